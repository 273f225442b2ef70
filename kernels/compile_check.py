"""The compile gate: every kernel compiled for every target, without a GPU, and what came of it.

A kernel passes on a target where it compiles, keeps everything in registers, stays within the
shared memory, and where its matrix products are tensor-core instructions unless they are taken in
IEEE float32. Integer arguments are compiled as Triton does for values that are neither 1 nor
divisible by 16, pointers as divisible by 16, as PyTorch allocates.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepfast.errors import InputError
from sepfast.kernels import _compile_pool
from sepfast.kernels._compile_cache import Cache
from sepfast.kernels.compile_result import Result
from sepfast.kernels.machine_code import MachineCode, read_amd, read_cuda
from sepfast.kernels.targets import Target, targets

if TYPE_CHECKING:
    from sepfast.kernels.launch import Entry


@dataclass(frozen=True)
class Job:
    """An entry of the catalog for one target, as it travels to another process.

    Attributes:
        module: where the Triton function is.
        kernel: its name there.
        signature: run-time argument -> Triton type.
        constants: compile-time argument -> value.
        options: num_warps and num_stages.
        dots: whether it multiplies matrices.
        target: the target's name.
    """

    module: str
    kernel: str
    signature: dict[str, str]
    constants: dict[str, Any]
    options: dict[str, int]
    dots: bool
    target: str

    @classmethod
    def of(cls, entry: Entry, target: Target) -> Job:
        """The job to compile an entry for a target."""
        return cls(
            entry.function.__module__,
            entry.kernel,
            dict(entry.signature),
            dict(entry.constants),
            dict(entry.options),
            entry.dots,
            target.name,
        )

    def result(self, shared: int = 0, code: MachineCode | None = None, error: str = "") -> Result:
        """What came of it: counts, or an error."""
        counts = asdict(code or MachineCode(0, 0, 0, 0, 0, 0))
        about = (self.kernel, self.target, self.constants, self.options, self.dots)
        return Result(*about, shared=shared, **counts, error=error)


def check(
    entries: Iterable[Entry],
    on: Iterable[Target],
    *,
    workers: int | None = None,
    cached: bool = True,
    progress: Callable[[float, float | None], None] = lambda done, total: None,
) -> list[Result]:
    """Compile entries for all those of the targets that ever launch them.

    Args:
        entries: kernels in their configurations, as from `catalog()`.
        on: the targets.
        workers: processes that compile. (default: one for each core)
        cached: whether what was compiled before may come from the cache on disk.
        progress: called with the jobs done and the jobs in all.

    Returns:
        Results sorted by kernel, constants, options and target, errors of compilation included.

    Raises:
        InputError: where Triton runs interpreted in this process.
    """
    on, entries = list(on), list(entries)
    if any(not hasattr(entry.function, "cache_key") for entry in entries):
        raise InputError(
            "compile-check: Triton runs interpreted in this process, takes one that was started "
            "without TRITON_INTERPRET"
        )
    cache = Cache.read() if cached else Cache({})
    pairs = [(e, target) for e in entries for target in on if target.takes(e.constants, e.device)]
    jobs = {cache.key(entry, target.name): Job.of(entry, target) for entry, target in pairs}
    results = {key: found for key in jobs if (found := cache.get(key)) is not None}
    keys = {id(job): key for key, job in jobs.items() if key not in results}
    progress(len(results), len(jobs))
    try:
        todo = [jobs[key] for key in keys.values()]
        with closing(_compile_pool.run(todo, workers or cores())) as stream:
            for job, result in stream:
                results[keys[id(job)]] = result
                cache.put(keys[id(job)], result)
                progress(len(results), len(jobs))
    finally:
        cache.write()
    return sorted(results.values(), key=Result.order)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compiled(job: Job) -> Result:
    """Compile a job in this process, which must not interpret; errors become the result's."""
    try:
        return _compiled(job)
    except Exception as error:
        return job.result(error=_reason(error))


def _compiled(job: Job) -> Result:
    import triton
    from triton.compiler import ASTSource

    function = getattr(import_module(job.module), job.kernel)
    types = job.signature | dict.fromkeys(job.constants, "constexpr")
    if types.keys() != set(function.arg_names):
        odd = ", ".join(sorted(types.keys() ^ set(function.arg_names)))
        raise ValueError(f"the signature and the constants do not fit the arguments: {odd}")
    types = {name: types[name] for name in function.arg_names}
    pointers = [at for at, kind in enumerate(types.values()) if kind.startswith("*")]
    attributes = {(at,): [["tt.divisibility", 16]] for at in pointers}
    source = ASTSource(function, types, job.constants, attributes)
    (target,) = targets([job.target])
    kernel = triton.compile(source, target=target.for_triton(), options=job.options)
    code = _cuda(kernel.asm) if target.backend == "cuda" else read_amd(kernel.asm["amdgcn"])
    return job.result(kernel.metadata.shared, code)


def _cuda(asm: Mapping[str, Any]) -> MachineCode:
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(asm["cubin"])
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", "-sass", cubin]
        return read_cuda(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _reason(error: BaseException) -> str:
    """The innermost error in one line; Triton shows a page of source around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = getattr(error, "error_message", None) or str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
