"""Files and folders of mixtures, separated into folders of stems."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sepfast.data.audio import AudioReader, AudioWriter, is_audio
from sepfast.data.side_information import read_side_information
from sepfast.data.side_line import SideLine
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic
from sepfast.separation.alignment import Alignment, check_drawing
from sepfast.separation.separator import Separator, Side
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

    A folder is searched through, and its inner folders are kept in the output. An output folder
    within it is left out: what earlier runs have put there are stems.

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
    side: PathLike | Side | None = None,
) -> list[Written]:
    """Separate one file; its stems appear all together, or not at all.

    With side information, `alignment.csv` and `alignment.png` appear beside them: where in it the
    model looked, frame by frame. Memory does not grow with the file's length. The mixture is only
    read.

    Args:
        separator: what separates.
        job: the mixture and the folder of its stems, `{source}.{form}` each.
        form: "wav" or "flac".
        subtype: "float", or "int16" for 16 bits.
        progress: called after every piece.
        side: side information for a model that takes some: a file, or what `Separator` takes.

    Returns:
        The stems, in the order of `separator.sources`.

    Raises:
        InputError: for a mixture that cannot be used, a silent one included, for side information
            that is missing or does not fit, and a folder that cannot be written.
    """
    separator.check_side(side is not None)
    if isinstance(side, str | os.PathLike):
        side = SideLine(read_side_information(side), name=str(side))
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
        alignment, samples = None, mixture.samples
        if side is not None:
            alignment, samples = stack.enter_context(_drawn(job)), _length(mixture)
        done = 0
        pieces = separator.stream(
            _heard(mixture.blocks(_BLOCK), job.mixture),
            mixture.sample_rate,
            mixture.channels,
            side=side,
            samples=samples,
            alignment=alignment,
        )
        for piece in to_host(pieces):
            for writer, stem in zip(writers, piece.numpy(), strict=True):
                writer.write(stem)
            done += piece.shape[-1]
            progress(done, samples)
    return [Written(w.path, w.peak, w.clipped) for w in writers]


def has_stems(job: Job, sources: Iterable[str], form: Literal["wav", "flac"] = "wav") -> bool:
    """Whether all stems of a mixture are there; `separate_file` leaves none that is half-written.

    Args:
        job: the mixture and the folder of its stems.
        sources: those of the separator.
        form: as of `separate_file`.
    """
    return all((job.folder / f"{source}.{form}").is_file() for source in sources)


def find_sides(path: PathLike, jobs: Iterable[Job], output: Path) -> list[Path]:
    """The side information of each mixture.

    Args:
        path: a file for one mixture; for any number a folder with `NAME.csv` or `NAME.npy` for
            each, in inner folders as its stems are in `output`.
        jobs: the mixtures.
        output: the folder that their stems' folders lie in.

    Raises:
        InputError: where one is missing, or there are two of one mixture.
    """
    path, jobs = Path(path), list(jobs)
    if path.is_dir():
        return [_side(path / job.folder.relative_to(output), job) for job in jobs]
    if not path.is_file():
        raise InputError(f"{path}: there is no such file or folder")
    if len(jobs) > 1:
        raise InputError(
            f"{path}: is one file for {len(jobs)} mixtures, takes a folder with NAME.csv or "
            "NAME.npy for each"
        )
    return [path for _ in jobs]


def _side(bare: Path, job: Job) -> Path:
    """The one file that is called so, but for its suffix."""
    known = [bare.with_name(bare.name + suffix) for suffix in (".csv", ".npy")]
    found = [p for p in known if p.is_file()]
    if len(found) != 1:
        counted = "both" if found else "neither"
        raise InputError(
            f"{bare.parent}: holds {counted} of {known[0].name} and {known[1].name}, takes one for "
            f"{job.mixture}"
        )
    return found[0]


def _length(mixture: AudioReader) -> int:
    """Samples of a mixture, decoded once more where its file does not say."""
    if mixture.samples is not None:
        return mixture.samples
    with AudioReader(mixture.path) as again:
        return sum(block.shape[1] for block in again.blocks(_BLOCK))


@contextmanager
def _drawn(job: Job) -> Iterator[Alignment]:
    """An alignment that is written beside the stems when the block ends well."""
    check_drawing()
    alignment = Alignment()
    with atomic(job.folder / "alignment.csv") as table, atomic(job.folder / "alignment.png") as png:
        yield alignment
        alignment.write_csv(table)
        alignment.write_png(png, job.folder.name)


def _jobs(given: Path, output: Path) -> Iterator[Job]:
    if given.is_file():
        yield Job(given, output / _name(given))
        return
    if not given.is_dir():
        raise InputError(f"{given}: there is no such file or folder")
    files = sorted(_mixtures(given, output))
    if not files:
        raise InputError(f"{given}: holds no audio files")
    for file in files:
        yield Job(file, output / file.parent.relative_to(given) / _name(file))


def _mixtures(folder: Path, output: Path) -> Iterator[Path]:
    """The audio files beneath a folder, but for those beneath an output folder within it."""
    whole, stems = folder.resolve(), output.resolve()
    within = whole in stems.parents
    for path in folder.rglob("*"):
        made = within and path.parent.resolve().is_relative_to(stems)
        if is_audio(path) and path.is_file() and not made:
            yield path


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
            with suppress(OSError):  # something is in it, another process's stems perhaps
                folder.rmdir()
        raise
