"""Side information about the vocals, as system C has it: made from the truth, or read from files.

N mixture frames, F bins, M steps, D features a step; all that is made here has D = 1.

    BL2   ones, N of them: no information
    M1    Y_n = sum_f |V_n,f|, M = N
    M2    M1 padded with 100 on both sides to M = 300, split at random
    A1    0 where M1 < 0.1, else 1; padded as M2
    A2    A1's activity, w of each run of L zeros deleted, w uniform on 1 ... L / 2; padded as M2
    A3    A2's activity, each run of ones shortened by the same rule; padded as M2
    A3.2  A3, rolled by 100 steps when it is padded

Where the text is silent: BL2 is as long as M1. |V| is divided by its own maximum as all
magnitudes are, which the 0.1 is measured by. Padding comes last, behind all deletions, and all of
it may lie on one side. w is an integer, so that a run of one step stays and no run vanishes; every
run draws its own. The roll takes the padding along.
Source: C (Schulze-Forster et al. 2019), section 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sepfast.data.arrays import read_array
from sepfast.errors import InputError
from sepfast.files import PathLike
from sepfast.reference.informed import SIDE_KINDS

#: What is put around a sequence; no magnitude or activity comes near it.
PADDING = 100.0

_ACTIVE = 0.1
_LARGEST = float(np.finfo(np.float32).max)
_ROLL = 100

Seed = int | Sequence[int] | np.random.Generator
Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


class SideInformation(NamedTuple):
    """Side information of a file.

    Attributes:
        times: (M,) seconds, float64, none before the one ahead of it; None where there are none.
        values: (M, D) float32, finite.
    """

    times: NDArray[np.float64] | None
    values: Floats


def side_information(
    kind: str,
    vocals_magnitude: ArrayLike,
    seed: Seed,
    *,
    length: int = 300,
    split: float | None = None,
) -> Floats:
    """Side information of one fragment.

    Everything random follows from the seed: first the split, then zeros run by run, then ones. So
    one seed pads M2 and A1 alike, and deletes the same zeros for A2 and A3.

    Args:
        kind: one of `SIDE_KINDS`.
        vocals_magnitude: |V|, (N, F), divided by its own maximum, as `Informed.scale` does it.
        seed: what `numpy.random.default_rng` takes; a generator is drawn from.
        length: M of the padded kinds; 300 in the paper for N = 256.
        split: share of the padding that comes first, from 0 to below 1; drawn where it is None.
            In training, the paper draws one for each batch.

    Returns:
        Y, (M, 1).

    Raises:
        InputError: for an unknown kind, magnitudes that are not finite and (N, F), more frames
            than `length`, or a split out of range.

    Example:
        >>> side_information("A1", [[0.2], [0.0], [0.3]], seed=0, length=5, split=0.5).ravel()
        array([100.,   1.,   0.,   1., 100.], dtype=float32)
    """
    sequence = frame_values(kind, vocals_magnitude)
    frames = step_frames(kind, sequence > 0, seed, length=length, split=split)
    return step_values(sequence.astype(np.float32)[:, None], frames)


def frame_values(kind: str, vocals_magnitude: ArrayLike) -> NDArray[np.float64]:
    """What a kind says about every frame, before anything is deleted or padded.

    Args:
        kind: one of `SIDE_KINDS`.
        vocals_magnitude: |V|, (N, F), divided by its own maximum.

    Returns:
        (N,): ones for BL2, M1 for the kinds M, activity for the kinds A.

    Raises:
        InputError: for an unknown kind, or magnitudes that are not finite and (N, F).
    """
    if kind not in SIDE_KINDS:
        raise InputError(f"kind: got {kind!r}, takes one of {', '.join(SIDE_KINDS)}")
    total = _total_magnitude(vocals_magnitude)
    if kind == "BL2":
        return np.ones_like(total)
    return total if kind in ("M1", "M2") else (total >= _ACTIVE).astype(np.float64)


def step_frames(
    kind: str,
    active: NDArray[np.bool_],
    seed: Seed,
    *,
    length: int = 300,
    split: float | None = None,
) -> Indices:
    """Which of a fragment's frames each step of its side information is.

    Args:
        kind: one of `SIDE_KINDS`.
        active: (N,), the runs that A2 and A3 shorten.
        seed: as in `side_information`.
        length: likewise.
        split: likewise.

    Returns:
        (M,), -1 where the step is padding.

    Raises:
        InputError: for more frames than `length`, or a split out of range.
    """
    random = np.random.default_rng(seed)
    frames = np.arange(len(active))
    if kind in ("BL2", "M1"):
        return frames
    split = float(random.random()) if split is None else split
    if kind in ("A2", "A3", "A3.2"):
        frames = _shortened(frames, active, False, random)
    if kind in ("A3", "A3.2"):
        frames = _shortened(frames, active, True, random)
    padded = _pad(frames, length, split)
    return np.roll(padded, _ROLL) if kind == "A3.2" else padded


def step_values(values: Floats, frames: Indices) -> Floats:
    """Values of frames (N, D) in the order of the steps (M,), padding included: (M, D)."""
    return np.where(frames[:, None] >= 0, values[frames], np.float32(PADDING))


def _total_magnitude(vocals_magnitude: ArrayLike) -> NDArray[np.float64]:
    """M1, (N,)."""
    magnitudes = np.asarray(vocals_magnitude, np.float64)
    if magnitudes.ndim != 2 or not magnitudes.size:
        raise InputError(f"vocals_magnitude: got shape {magnitudes.shape}, takes (frames, bins)")
    if not np.isfinite(magnitudes).all():
        raise InputError("vocals_magnitude: holds NaN or infinite values")
    return magnitudes.sum(1)


def _shortened(
    frames: Indices, active: NDArray[np.bool_], value: bool, random: np.random.Generator
) -> Indices:
    """The frames with each run that is `value` shorter by 1 to half of its length."""
    runs = np.split(frames, np.flatnonzero(np.diff(active[frames])) + 1)
    kept = [run[_deleted(len(run), random) :] if active[run[0]] == value else run for run in runs]
    return np.concatenate(kept)


def _deleted(steps: int, random: np.random.Generator) -> int:
    return int(random.integers(1, steps // 2, endpoint=True)) if steps > 1 else 0


def _pad(frames: Indices, length: int, split: float) -> Indices:
    """The frames with -1 around them, (length,); each split of the padding is equally likely."""
    missing = length - len(frames)
    if missing < 0:
        raise InputError(f"length: got {length}, takes {len(frames)} or more for this fragment")
    if not 0 <= split < 1:
        raise InputError(f"split: got {split}, takes 0 to below 1")
    front = int(split * (missing + 1))
    return np.pad(frames, (front, missing - front), constant_values=-1)


def read_side_information(path: PathLike) -> SideInformation:
    """Side information from a file that a person drew or a program wrote.

    Args:
        path: `*.npy` with an array (M,) or (M, D), or a text file with one step a line: its time
            in seconds, then D values. Commas, semicolons or tabs stand between; the first line may
            be a header; a single column is values without times.

    Returns:
        Times, if there are any, and values.

    Raises:
        InputError: for a file that is missing, empty, of another shape, or holds anything but
            finite numbers, with the line that it stands in; and for times that go back.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; takes side information, .csv or .npy")
    return _read_array(path) if path.suffix.lower() == ".npy" else _read_text(path)


def _read_array(path: Path) -> SideInformation:
    array = read_array(path)
    if array.ndim not in (1, 2) or not array.size:
        raise InputError(f"{path}: holds shape {array.shape}, takes (steps,) or (steps, features)")
    values = _as_float32(array.reshape(len(array), -1))
    wrong = np.flatnonzero(~np.isfinite(values).all(1))
    if wrong.size:
        raise InputError(f"{path}: row {wrong[0] + 1} holds NaN or infinity, takes finite numbers")
    return SideInformation(None, values)


def _read_text(path: Path) -> SideInformation:
    rows: list[list[float]] = []
    for place, (line, fields) in enumerate(_fields(path)):
        if place == 0 and not any(map(_is_number, fields)):
            continue  # the header
        if rows and len(fields) != len(rows[0]):
            raise InputError(
                f"{path}: line {line} holds {len(fields)} columns, takes {len(rows[0])} as above"
            )
        rows.append([_number(path, line, field) for field in fields])
        if len(fields) > 1 and len(rows) > 1 and rows[-1][0] < rows[-2][0]:
            raise InputError(
                f"{path}: line {line} goes back to {rows[-1][0]} s, takes times in order"
            )
    if not rows:
        raise InputError(f"{path}: holds no values, takes a time and values in each line")
    table = np.array(rows)
    if table.shape[1] == 1:
        return SideInformation(None, _as_float32(table))
    return SideInformation(table[:, 0], _as_float32(table[:, 1:]))


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every line that is not blank, with its number, counted from 1, and its fields."""
    try:
        # Spreadsheets put a byte order mark in front.
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text, takes side information as .csv or .npy") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    written = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    delimiter = next((mark for mark in ";\t" if written and mark in written[0][1]), ",")
    for number, line in written:
        yield number, [field.strip(' "') for field in line.split(delimiter)]


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _number(path: Path, line: int, field: str) -> float:
    if not _is_number(field):
        raise InputError(f"{path}: line {line} holds {field!r}, takes a number")
    value = float(field)
    if not abs(value) <= _LARGEST:
        raise InputError(f"{path}: line {line} holds {field}, takes a finite number")
    return value


def _as_float32(values: NDArray[np.generic]) -> Floats:
    """Values (M, D) as float32; those beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
