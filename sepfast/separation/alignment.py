"""What a network of system C looks at in its side information, frame by frame of a mixture.

T frames of the track, K fragments of N frames, M steps a fragment is told, D features a step, F
bins.

    share_n    = sum of alpha_nm over the steps m that are not padding
    value_n    = sum of alpha_nm Y_m over them, / share_n
    position_n = sum of alpha_nm t_m over them, / share_n

with t_m the time at which step m was taken from the line. Fragments that overlap are cross-faded as
their estimates are. Where all of a frame's weight lies on padding, it is spread evenly over the
other steps.

Beside these, 8 (2 + D) bytes a frame, memory does not grow with the track: the picture is kept in
cells of as many frames each as make at most 1000 cells, which are joined two by two as it goes on.
Source: C (Schulze-Forster et al. 2019), section 5 and figure 3.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sepfast.data.side_line import Fragments, Steps
from sepfast.errors import InputError
from sepfast.files import PathLike, atomic
from sepfast.separation.track import Span

_CELLS = 1000

Floats = NDArray[np.float64]


class Picture(NamedTuple):
    """An alignment in cells of several frames, S of them.

    Attributes:
        weights: (S, S), of the mixture's frames and of the line's; a cell is the mean over the
            former and the sum over the latter.
        side: (S, D), the means of what the line says.
        magnitudes: (S, F), the means of the estimate's.
        seconds: that the cells cover.
    """

    weights: Floats
    side: Floats
    magnitudes: Floats
    seconds: float


class Alignment:
    """Collects the alignment of one recording while it is separated; used again, it starts anew.

    Attributes:
        times: (T,) seconds, the centres of the mixture's frames.
        values: (T, D), the side information that each is aligned with.
        positions: (T,) seconds, where in the side information that lies.

    Example:
        >>> import sepfast, torch
        >>> separator = sepfast.Separator(sepfast.create_model("informed", hidden=2))
        >>> alignment = Alignment()
        >>> stems = separator(torch.rand(1, 8000), 16000, side=[0.0, 1.0], alignment=alignment)
        >>> alignment.times.shape, alignment.values.shape
        ((17,), (17, 1))
    """

    def __init__(self) -> None:
        self._fragments: Fragments | None = None
        self._rows: list[Floats] = []
        self._cells: _Cells | None = None

    @property
    def times(self) -> Floats:
        """Seconds, (T,)."""
        if self._fragments is None:
            return np.zeros(0)
        return self._fragments.seconds(np.arange(sum(map(len, self._rows))))

    @property
    def values(self) -> Floats:
        """Aligned values, (T, D)."""
        return self._table()[:, 1:]

    @property
    def positions(self) -> Floats:
        """Aligned positions in seconds, (T,)."""
        return self._table()[:, 0]

    def begin(self, fragments: Fragments) -> None:
        """Forget what was collected; what follows is of one recording.

        Args:
            fragments: what the network hears and is told at once.
        """
        self._fragments, self._rows, self._cells = fragments, [], None

    def add(
        self,
        span: Span,
        starts: Sequence[int],
        looks: Tensor,
        fades: Tensor,
        steps: Sequence[Steps],
        magnitudes: Tensor,
    ) -> None:
        """Take in the next span.

        Args:
            span: the span.
            starts: the first frames of its K fragments.
            looks: the attention's weights, (K, N, M).
            fades: (K, N), the weights of the fragments in their frames.
            steps: what each fragment was told.
            magnitudes: the estimate's, of the span's frames, (frames, F).
        """
        assert self._fragments is not None
        features = steps[0].values.shape[1]
        rows = np.zeros((span.stop - span.first, 1 + features))
        if self._cells is None:
            self._cells = _Cells(features, magnitudes.shape[1])
        cells, weights = self._cells, fades.double().numpy(force=True)
        cells.reach(max(span.stop, starts[-1] + self._fragments.context))
        for first, alpha, fade, told in zip(
            starts, looks.double().numpy(force=True), weights, steps, strict=True
        ):
            frames = np.arange(first, first + len(fade))
            inside = (frames >= span.first) & (frames < span.stop)
            frames, fade, alpha = frames[inside], fade[inside, None], alpha[inside]
            kept = told.frames >= 0
            last = np.inf if span.frames is None else span.frames - 1
            places = np.minimum(first + told.frames[kept], last).astype(np.intp)
            alpha = alpha[:, kept]
            looked_at = np.column_stack([self._fragments.seconds(places), told.values[kept]])
            rows[frames - span.first] += fade * (_shares(alpha) @ looked_at)
            # What lies behind the track's end is not drawn, where it would pile up.
            drawn = first + told.frames[kept] <= last
            cells.add(frames, places[drawn], fade * alpha[:, drawn], fade * told.line[inside])
        cells.add_magnitudes(span.first, magnitudes.double().numpy(force=True))
        self._rows.append(rows)

    def picture(self) -> Picture:
        """The whole in cells.

        Raises:
            InputError: where nothing was collected.
        """
        if self._cells is None or self._fragments is None:
            raise InputError("alignment: holds nothing, takes a recording that is separated")
        framing, rate = self._fragments.framing, self._fragments.sample_rate
        weights, side, magnitudes = self._cells.means(len(self.times))
        seconds = len(side) * self._cells.size * framing.hop / rate
        return Picture(weights, side, magnitudes, seconds)

    def write_csv(self, path: PathLike) -> None:
        """Write a line for each frame: its time, the value, or values, and the position.

        Args:
            path: the file, whole or not there.

        Raises:
            InputError: for a file that cannot be written.
        """
        values = self.values
        names = ["value", *(f"value_{i}" for i in range(2, values.shape[1] + 1))]
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["time", *names, "position"])
            for time, value, position in zip(self.times, values, self.positions, strict=True):
                row = (f"{v:.6g}" for v in value)
                writer.writerow([f"{time:.4f}", *row, f"{position:.4f}"])

    def write_png(self, path: PathLike, title: str = "") -> None:
        """Draw the weights with the side information beside and the estimate below.

        Args:
            path: the PNG file, whole or not there.
            title: above the figure.

        Raises:
            InputError: for a file that cannot be written, nothing to draw, or no matplotlib.
        """
        check_drawing()
        from sepfast.evaluation.alignment import alignment_figure

        drawn = self.picture()
        assert self._fragments is not None
        alignment_figure(
            path,
            drawn.weights,
            drawn.side,
            drawn.magnitudes,
            seconds=drawn.seconds,
            rate=self._fragments.sample_rate,
            steps=len(self.times),
            title=title,
        )

    def _table(self) -> Floats:
        """Positions and values, (T, 1 + D)."""
        return np.concatenate(self._rows) if self._rows else np.zeros((0, 2))


def check_drawing() -> None:
    """Raise `InputError` where there is nothing to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("matplotlib: is not installed, takes `pip install matplotlib`")


class _Cells:
    """Sums over cells of frames, at most `_CELLS` of them.

    Attributes:
        size: frames of a cell.
    """

    def __init__(self, features: int, bins: int) -> None:
        self.size = 1
        self._weights = np.zeros((_CELLS, _CELLS), np.float32)
        self._side, self._magnitudes = np.zeros((_CELLS, features)), np.zeros((_CELLS, bins))

    def reach(self, frames: int) -> None:
        """Make room for so many frames: join cells two by two until there is."""
        while frames > _CELLS * self.size:
            self.size *= 2
            self._weights = _joined(_joined(self._weights).T).T
            self._side, self._magnitudes = _joined(self._side), _joined(self._magnitudes)

    def add(
        self, frames: NDArray[np.intp], places: NDArray[np.intp], weights: Floats, side: Floats
    ) -> None:
        """Add weights (n, m) of some of the mixture's frames (n,) and of the line's (m,).

        `side` (n, D) is what the line says in the former.
        """
        rows, columns = frames // self.size, places // self.size
        np.add.at(self._weights, (rows[:, None], columns[None]), weights.astype(np.float32))
        np.add.at(self._side, rows, side)

    def add_magnitudes(self, first: int, magnitudes: Floats) -> None:
        """Add magnitudes (n, F) of the frames from `first` on."""
        np.add.at(
            self._magnitudes, np.arange(first, first + len(magnitudes)) // self.size, magnitudes
        )

    def means(self, frames: int) -> tuple[Floats, Floats, Floats]:
        """Weights, side and magnitudes of the cells that so many frames fill."""
        count = -(-frames // self.size)
        filled = np.full((count, 1), float(self.size))
        filled[-1] = frames - (count - 1) * self.size
        weights = self._weights[:count, :count]
        return weights / filled, self._side[:count] / filled, self._magnitudes[:count] / filled


def _joined(cells: NDArray[Any]) -> NDArray[Any]:
    """Cells (S, ...) added two by two, with as many empty ones behind."""
    halves = cells.reshape(len(cells) // 2, 2, -1).sum(1).reshape(-1, *cells.shape[1:])
    return np.concatenate([halves, np.zeros_like(halves)])


def _shares(weights: Floats) -> Floats:
    """Weights (n, m), not negative, as shares that add up to one; equal ones where all are 0."""
    total = weights.sum(1, keepdims=True)
    even = np.full_like(weights, 1 / weights.shape[1])
    return np.where(total > 0, weights / np.where(total > 0, total, 1), even)
