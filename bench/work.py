"""The work model: what each operator has to move and to compute, and what our kernels do instead.

R rows, L samples a row, T frames, N = n_fft, B = N / 2 + 1 bins, S sources; float32. Three counts
of bytes:

    least      every input read once, every output written once: what no program can go below
    moved      what ours takes from the GPU's memory: what a program reads that another one read
               long before counts again (a part of a walk along a line), so do buffers that
               our operators write and read in between; what neighbours read at the same time
               does not, as the second one finds it in the L2
    requested  what our kernels load and store, overlapping frames as often as they overlap

Operations are those of the factored DFT (`kernels/dft.py`), two for a multiplication and addition,
or, at a high overlap, of the products of `kernels/_sliding.py`; `needed` takes each frame once,
`performed` as often as ours does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sepfast.kernels.tuning import shipped, walk_length
from sepfast.reference import Framing

#: Bytes of an element.
_FLOAT = 4

#: n_fft -> (N1, N2), as `kernels/dft.py` has them, which takes Triton to import.
FACTORS = {256: (16, 16), 512: (16, 32), 1024: (32, 32), 2048: (32, 64), 4096: (64, 64)}

#: How often 1 / sum a^2 goes through memory while a gradient makes it, for each sample of one row:
#: repeated (1), joined with its edges (2), cut to length (2). See `sepfast/ops/_framing.py`.
NORM_PASSES = 5

#: Multiprocessors of an H200.
PROCESSORS = 132


@dataclass(frozen=True)
class Work:
    """Bytes and operations of a piece of work, as the module has them.

    Attributes:
        least: bytes.
        moved: bytes.
        requested: bytes.
        needed: operations.
        performed: operations.
    """

    least: int
    moved: int
    requested: int
    needed: int = 0
    performed: int = 0

    @property
    def excess(self) -> float:
        """Predicted bytes over least bytes; at most 1.1 is what we aim at."""
        return self.moved / self.least if self.least else 1.0

    def floor(self, copy: float, matrix: float) -> tuple[float, str]:
        """Seconds that it takes at least, and what bounds it, "memory" or "arithmetic".

        Args:
            copy: bytes a second.
            matrix: operations a second.
        """
        seconds = {"memory": self.least / copy, "arithmetic": self.needed / matrix}
        bound = max(seconds, key=lambda name: seconds[name])
        return seconds[bound], bound


@dataclass(frozen=True)
class Tiling:
    """What of a kernel's configuration its work depends on.

    Attributes:
        blocks: blocks of N samples that a program walks along at most.
        sources: sources that a program has.
    """

    blocks: int = 32
    sources: int = 4


#: What entries of configurations are called that an H200 takes, the best first.
DEVICES = ("cuda:90", "cuda", "any")


def shipped_config(kernel: str, devices: Sequence[str] = DEVICES, **key: Any) -> Mapping[str, int]:
    """The configuration that a GPU takes for a key, an H200 by default; empty where none is."""
    fitting = {
        device: config
        for device, known, config in shipped(kernel)
        if all(known.get(name) == value for name, value in key.items())
    }
    return next((fitting[name] for name in devices if name in fitting), {})


def shipped_tiling(kernel: str, **key: Any) -> Tiling:
    """The tiling that an H200 takes for a key; the usual one where none is shipped."""
    config = shipped_config(kernel, **key)
    return Tiling(config.get("BLOCKS", Tiling.blocks), config.get("SOURCES", Tiling.sources))


def dft_operations(n_fft: int) -> int:
    """Operations of one transform of a frame, or of its inverse, where there are kernels for it."""
    if n_fft not in FACTORS:
        return 0
    n1, n2 = FACTORS[n_fft]
    k2 = max(16, n2 // 2)
    return 2 * (2 * n2 * n1 * n1 + 4 * n1 * n2 * k2)


def slides(framing: Framing) -> bool:
    """Whether our kernels take sums that slide (`kernels/_sliding.py`) in place of transforms."""
    whole = framing.span == framing.n_fft and not framing.symmetric
    kernel = "sepfast_stft_magnitude_sliding"
    return whole and bool(shipped_config(kernel, n_fft=framing.n_fft, hop=framing.hop))


def frame_operations(framing: Framing, back: bool = False) -> int:
    """Operations in products for one frame, by what our kernels do."""
    if not slides(framing):
        return dft_operations(framing.n_fft)
    return (16 if back else 8) * framing.hop * framing.bins


def stft(rows: int, samples: int, framing: Framing) -> Work:
    """Samples (R, L) to spectra (R, T, B, 2)."""
    return _forward(rows, samples, framing, 2)


def istft(rows: int, samples: int, framing: Framing, tiling: Tiling | None = None) -> Work:
    """Spectra (R, T, B, 2) to samples (R, L)."""
    frames = framing.frames(samples)
    line, spectrum = _FLOAT * rows * samples, _FLOAT * rows * frames * framing.bins * 2
    again = _repeated(rows, samples, framing, tiling or Tiling())
    walked = spectrum * (frames + again) // frames
    return Work(
        line + spectrum,
        line + walked,
        line + walked,
        rows * frames * frame_operations(framing, back=True),
        rows * (frames + again) * frame_operations(framing, back=True),
    )


def stft_magnitude(rows: int, samples: int, framing: Framing) -> Work:
    """Samples (R, L) to magnitudes (R, T, B)."""
    return _forward(rows, samples, framing, 1)


def stft_magnitude_gradient(
    rows: int, samples: int, framing: Framing, tiling: Tiling | None = None
) -> Work:
    """`stft_magnitude` and the gradient of its samples."""
    forward = stft_magnitude(rows, samples, framing)
    frames = framing.frames(samples)
    line, levels = _FLOAT * rows * samples, _FLOAT * rows * frames * framing.bins
    again = _repeated(rows, samples, framing, tiling or Tiling())
    walked = levels * (frames + again) // frames
    loaded = _FLOAT * rows * (frames + again) * framing.span
    operations = 2 * dft_operations(framing.n_fft)
    return Work(
        forward.least + levels + line,
        forward.moved + walked + line * (frames + again) // frames + line,
        forward.requested + walked + loaded + line,
        forward.needed + rows * frames * operations,
        forward.performed + rows * (frames + again) * operations,
    )


def masked_istft(
    rows: int, sources: int, samples: int, framing: Framing, tiling: Tiling | None = None
) -> Work:
    """Shares (R, S, T, B) and the mixture (R, L) to samples (R, S, L), R batch and channels."""
    tiling = tiling or Tiling()
    groups = -(-sources // tiling.sources)  # each transforms the mixture for itself
    frames, again = framing.frames(samples), _repeated(rows * groups, samples, framing, tiling)
    line, levels = _FLOAT * rows * samples, _FLOAT * rows * frames * framing.bins
    walked = sources * levels * (frames + again) // frames
    mixture = groups * line * (frames + again) // frames
    loaded = _FLOAT * groups * rows * (frames + again) * framing.span
    there, back = frame_operations(framing), frame_operations(framing, back=True)
    return Work(
        line + sources * (levels + line),
        mixture + walked + sources * line,
        loaded + walked + sources * line,
        rows * frames * (there + sources * back),
        rows * (frames + again) * (groups * there + sources * back),
    )


def masked_istft_gradient(
    rows: int, sources: int, samples: int, framing: Framing, tiling: Tiling | None = None
) -> Work:
    """`masked_istft` and the gradient of its shares."""
    forward = masked_istft(rows, sources, samples, framing, tiling)
    frames, groups = framing.frames(samples), -(-sources // (tiling or Tiling()).sources)
    line, levels = _FLOAT * rows * samples, _FLOAT * rows * frames * framing.bins
    # The gradients are first multiplied by 1 / sum a^2, into memory of their own.
    scaled = 2 * sources * line + _norm(sources * rows, samples)
    loaded = _FLOAT * (groups + sources) * rows * frames * framing.span
    operations = rows * frames * dft_operations(framing.n_fft)
    return Work(
        forward.least + sources * (levels + line),
        forward.moved + scaled + (groups + sources) * line + sources * levels,
        forward.requested + scaled + loaded + sources * levels,
        forward.needed + sources * operations,
        forward.performed + (groups + sources) * operations,
    )


def soft_mask(elements: int) -> Work:
    """Estimates to shares; so many elements in all sources together."""
    bytes_ = 2 * _FLOAT * elements
    return Work(bytes_, bytes_, bytes_, 6 * elements, 6 * elements)


def soft_mask_gradient(elements: int) -> Work:
    """`soft_mask` and the gradient of its estimates, which the backward reads again."""
    least, moved = 4 * _FLOAT * elements, 5 * _FLOAT * elements
    return Work(least, moved, moved, 12 * elements, 14 * elements)


def soft_mask_loss(sources: int, inner: int) -> Work:
    """The loss of so many sources of so many elements each."""
    bytes_ = _FLOAT * (2 * sources + 1) * inner
    return Work(bytes_, bytes_, bytes_, 25 * sources * inner, 25 * sources * inner)


def soft_mask_loss_gradient(sources: int, inner: int) -> Work:
    """The loss and its gradient, which reads the loss's inputs again."""
    least = _FLOAT * (3 * sources + 1) * inner
    moved = _FLOAT * (5 * sources + 2) * inner
    return Work(least, moved, moved, 40 * sources * inner, 60 * sources * inner)


def amplitude_mask_loss(elements: int) -> Work:
    """The loss of so many bins of scores, mixture and target."""
    bytes_ = 3 * _FLOAT * elements
    return Work(bytes_, bytes_, bytes_, 12 * elements, 12 * elements)


def amplitude_mask_loss_gradient(elements: int) -> Work:
    """The loss and its gradient, which reads the loss's inputs again."""
    least, moved = 4 * _FLOAT * elements, 7 * _FLOAT * elements
    return Work(least, moved, moved, 20 * elements, 30 * elements)


def chain(
    rows: int, sources: int, samples: int, framing: Framing, tiling: Tiling | None = None
) -> Work:
    """Samples to magnitudes; estimates to shares; shares and samples to stems.

    At least the samples and estimates are read, and the magnitudes and stems written.
    """
    elements = rows * framing.frames(samples) * framing.bins
    parts = (
        stft_magnitude(rows, samples, framing),
        soft_mask(sources * elements),
        masked_istft(rows, sources, samples, framing, tiling),
    )
    least = _FLOAT * (rows * samples + sources * elements + elements + sources * rows * samples)
    return Work(
        least,
        sum(part.moved for part in parts),
        sum(part.requested for part in parts),
        sum(part.needed for part in parts),
        sum(part.performed for part in parts),
    )


def _forward(rows: int, samples: int, framing: Framing, parts: int) -> Work:
    """Samples read, `parts` numbers written for each bin."""
    frames = framing.frames(samples)
    line, out = _FLOAT * rows * samples, _FLOAT * rows * frames * framing.bins * parts
    operations = rows * frames * frame_operations(framing)
    loaded = _FLOAT * rows * frames * framing.span
    return Work(line + out, line + out, loaded + out, operations, operations)


def _repeated(lines: int, samples: int, framing: Framing, tiling: Tiling) -> int:
    """Frames of a line that programs walk over a second time, for the ends of their frames."""
    blocks = -(-(framing.front + samples) // framing.n_fft)
    programs = -(-blocks // walk_length(blocks, lines, tiling.blocks, PROCESSORS))
    return max(0, programs - 1) * framing.n_fft // framing.hop


def _norm(rows: int, samples: int) -> int:
    """Bytes of 1 / sum a^2: made once, read for each row."""
    return _FLOAT * samples * (NORM_PASSES + rows)
