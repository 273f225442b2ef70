"""Files and folders of mixtures, separated into folders of stems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sepfast.data.audio import AudioReader, AudioWriter, is_audio
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.separation.separator import Separator
from sepfast.separation.transfer import to_host

#: Samples read at once.
_BLOCK = 1 << 17

#: Called with samples done and samples in all (None where the file does not say).
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Job:
    """A mixture and the folder its stems go to."""

    mixture: Path
    folder: Path


@dataclass(frozen=True)
class Written:
    """A stem that was written.

    Attributes:
        path: the file.
        peak: the highest absolute sample; 1 is full scale.
        clipped: samples cut off at full scale, 0 in float files.
    """

    path: Path
    peak: float
    clipped: int


def find_jobs(inputs: Iterable[PathLike], output: Path) -> list[Job]:
    """Mixtures among files and folders, each with a folder of its own below `output`.

    A folder is searched through, and its inner folders are kept in the output.

    Raises:
        InputError: for an input that is missing, a folder without audio, and two mixtures whose
            stems would go to one folder.
    """
    jobs = [job for given in inputs for job in _jobs(Path(given), output)]
    taken: dict[Path, Path] = {}
    for job in jobs:
        other = taken.setdefault(job.folder, job.mixture)
        if other != job.mixture:
            raise InputError(
                f"{job.mixture}: its stems would go to {job.folder}, as those of {other}; "
                "separate them into two output folders"
            )
    return jobs


def separate_file(
    separator: Separator,
    job: Job,
    *,
    form: Literal["wav", "flac"] = "wav",
    subtype: Literal["float", "int16"] = "float",
    progress: Progress = lambda done, total: None,
) -> list[Written]:
    """Separate one file; its stems appear all together, or not at all.

    Memory does not grow with the file's length. The mixture is only read.

    Args:
        separator: what separates.
        job: the mixture and the folder of its stems, `{source}.{form}` each.
        form: "wav" or "flac".
        subtype: "float", or "int16" for 16 bits.
        progress: called after every piece.

    Returns:
        The stems, in the order of `separator.sources`.

    Raises:
        InputError: for a mixture that cannot be used, a silent one included, and a folder that
            cannot be written.
    """
    with AudioReader(job.mixture) as mixture, _folder(job.folder), ExitStack() as stack:
        writers = [
            stack.enter_context(
                AudioWriter(
                    job.folder / f"{source}.{form}",
                    mixture.sample_rate,
                    mixture.channels,
                    subtype=subtype,
                )
            )
            for source in separator.sources
        ]
        done = 0
        blocks = _heard(mixture.blocks(_BLOCK), job.mixture)
        for piece in to_host(separator.stream(blocks, mixture.sample_rate, mixture.channels)):
            for writer, stem in zip(writers, piece.numpy(), strict=True):
                writer.write(stem)
            done += piece.shape[-1]
            progress(done, mixture.samples)
    return [Written(w.path, w.peak, w.clipped) for w in writers]


def _jobs(given: Path, output: Path) -> Iterator[Job]:
    if given.is_file():
        yield Job(given, output / _name(given))
        return
    if not given.is_dir():
        raise InputError(f"{given}: there is no such file or folder")
    files = sorted(p for p in given.rglob("*") if is_audio(p) and not p.name.startswith("."))
    if not files:
        raise InputError(f"{given}: holds no audio files")
    for file in files:
        yield Job(file, output / file.parent.relative_to(given) / _name(file))


def _name(path: Path) -> str:
    """A song's name: the file's without `.wav`, or `.stem.mp4`."""
    return path.stem.removesuffix(".stem")


def _heard(blocks: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    """Pass blocks on; refuse a track of which not one sample sounds."""
    heard = False
    for block in blocks:
        heard = heard or bool(block.any())
        yield block
    if not heard:
        raise InputError(f"{path}: is silent; there is nothing to separate")


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder, and take back on failure what was made and stayed empty."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made a folder ({error.strerror})") from error
    try:
        yield
    except BaseException:
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
