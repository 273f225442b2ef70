"""Compiling in several processes, of which a compiler's crash may take some down."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepfast.kernels.compile_check import Job
    from sepfast.kernels.compile_result import Result


def run(jobs: Sequence[Job], workers: int) -> Generator[tuple[Job, Result], None, None]:
    """Compile jobs, in any order; those that crash the compiler get that as their error.

    Closing it ends what is being compiled.
    """
    if not jobs:
        return
    # Triton keeps what it compiles on disk; here it would only pile up.
    with tempfile.TemporaryDirectory() as folder:
        waiting = list(reversed(jobs))
        flying: dict[Future[Result], Job] = {}
        while waiting:
            try:
                yield from _shared(waiting, flying, workers, folder)
            except BrokenProcessPool:
                suspects = list(flying.values())
                flying.clear()
                yield from ((job, _alone(job, folder)) for job in suspects)


def _shared(
    waiting: list[Job], flying: dict[Future[Result], Job], workers: int, folder: str
) -> Iterator[tuple[Job, Result]]:
    """As many jobs at a time as there are workers, so that a crash leaves few suspects."""
    from sepfast.kernels.compile_check import compiled

    with _pool(min(workers, len(waiting)), folder) as pool:
        while waiting or flying:
            while waiting and len(flying) < workers:
                flying[pool.submit(compiled, waiting[-1])] = waiting[-1]
                waiting.pop()
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield flying.pop(future), result


def _alone(job: Job, folder: str) -> Result:
    from sepfast.kernels.compile_check import compiled

    try:
        with _pool(1, folder) as pool:
            return pool.submit(compiled, job).result()
    except BrokenProcessPool:
        return job.result(error="the compiler crashed")


@contextmanager
def _pool(workers: int, folder: str) -> Iterator[ProcessPoolExecutor]:
    # Not forked: the parent may have threads, and Triton be imported there.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (folder,))
    try:
        yield pool
    except BaseException:
        # Left alone, they would finish what they compile, and a second Ctrl-C meanwhile would
        # leave this process waiting for them for ever.
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown()


def _start(folder: str) -> None:
    """Runs in each worker before it imports Triton, which reads these then."""
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ["TRITON_CACHE_DIR"] = folder
    # Ctrl-C ends a worker at once and without a page of traceback; the parent speaks for all.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
