"""From a mixture's samples to its sources', whatever the length, the sample rate and the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from sepfast.data.resampling import StreamResampler
from sepfast.errors import InputError
from sepfast.reference import DeepConvSep
from sepfast.separation.deepconvsep import DeepConvSepTrack, Span
from sepfast.separation.line import Line, fit
from sepfast.separation.transfer import to_device, to_host

#: Samples that `__call__` hands on at once; more of those that are on a GPU, where each block is
#: waited for to see whether it is finite.
_BLOCK, _GPU_BLOCK = 1 << 18, 1 << 24


class Separator:
    """A model as a function from a mixture to its sources.

    Args:
        model: made by `create_model` or `load`; put into evaluation mode. Its weights are read
            here: after training on, make a new Separator.
        overlap: frames that neighbouring contexts share; None for the model's own: all but 5 of
            the context for A, half of it for B.
        device: where to compute; None for where the model is.

    Attributes:
        sources: names of what comes out, in order.
        sample_rate: the model's, in Hz; other rates are resampled to it and back.

    Example:
        >>> import sepfast, torch
        >>> separator = sepfast.Separator(sepfast.create_model("deepconvsep-stereo"))
        >>> stems = separator(torch.randn(2, 44100), 44100)
        >>> stems["vocals"].shape
        torch.Size([2, 44100])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        overlap: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not isinstance(model, DeepConvSep):
            raise InputError(
                f"model: got a {type(model).__name__}, takes one that separates: "
                "deepconvsep or deepconvsep-stereo"
            )
        model = model.eval() if device is None else model.eval().to(device)
        self.device = model.minimum.device
        self.sources, self.sample_rate = model.sources, model.sample_rate
        self._channels = model.channels
        self._track = DeepConvSepTrack(model, model.overlap if overlap is None else overlap)

    def __call__(self, waveform: Tensor | np.ndarray, sample_rate: int) -> dict[str, Tensor]:
        """Separate a mixture.

        A mono model separates every channel by the masks of their mean; a stereo model takes a
        mono mixture as two equal channels and gives back their mean.

        Args:
            waveform: (channels, samples), any length, zero included; never changed.
            sample_rate: Hz.

        Returns:
            For every source (channels, samples) in float32, as long as the mixture, on the
            waveform's device.

        Raises:
            InputError: for a shape, a number of channels or a rate that cannot be used, and for
                samples that are not finite.
        """
        mixture = torch.as_tensor(waveform)
        if mixture.ndim != 2:
            raise InputError(
                f"waveform: got shape {tuple(mixture.shape)}, takes (channels, samples)"
            )
        channels, samples = mixture.shape
        blocks = mixture.split(_GPU_BLOCK if mixture.is_cuda else _BLOCK, dim=-1)
        pieces = self.stream(blocks, sample_rate, channels)
        out = None
        position = 0
        for piece in pieces if mixture.is_cuda else to_host(pieces):
            if mixture.is_cuda and piece.shape[-1] == samples and piece.is_cuda:
                return dict(zip(self.sources, piece, strict=True))  # all of it, no copy
            if out is None:
                shape = (len(self.sources), channels, samples)
                out = mixture.new_empty(shape, dtype=torch.float32)
            out[..., position : position + piece.shape[-1]] = piece
            position += piece.shape[-1]
        if out is None:  # of no samples
            out = mixture.new_empty(len(self.sources), channels, 0, dtype=torch.float32)
        return dict(zip(self.sources, out, strict=True))

    def stream(
        self, blocks: Iterable[Tensor | np.ndarray], sample_rate: int, channels: int
    ) -> Iterator[Tensor]:
        """Separate a mixture that comes, and goes, in pieces; memory does not grow with it.

        Args:
            blocks: (channels, any number of samples) each, one behind the other.
            sample_rate: Hz.
            channels: channels of the blocks.

        Yields:
            (sources, channels, some samples) in float32 on the model's device, one behind the
            other, as long together as the blocks.

        Raises:
            InputError: as `__call__`.
        """
        self._check(sample_rate, channels)
        checked = _finite(blocks, channels)
        if sample_rate == self.sample_rate:
            yield from self._separate(checked)
        else:
            yield from self._resampled(checked, sample_rate, channels)

    def _check(self, sample_rate: int, channels: int) -> None:
        if sample_rate != int(sample_rate) or sample_rate < 1:
            raise InputError(f"sample_rate: got {sample_rate}, takes a positive whole number of Hz")
        if channels < 1 or channels > 2 == self._channels:
            raise InputError(f"waveform: got {channels} channels, takes 1 or 2")

    def _resampled(
        self, blocks: Iterable[Tensor], sample_rate: int, channels: int
    ) -> Iterator[Tensor]:
        """Separate at the model's rate; what comes out is as long as what went in."""
        taken = given = 0

        def at_model_rate() -> Iterator[Tensor]:
            nonlocal taken
            resampler = StreamResampler(sample_rate, self.sample_rate, channels)
            for block in blocks:
                taken += block.shape[-1]
                yield torch.from_numpy(resampler.push(block.numpy(force=True)))
            yield torch.from_numpy(resampler.finish())

        shape = (len(self.sources), channels)
        back = StreamResampler(self.sample_rate, sample_rate, shape[0] * shape[1])
        for piece in self._separate(at_model_rate()):
            resampled = torch.from_numpy(back.push(piece.flatten(0, 1).numpy(force=True)))
            resampled = resampled[:, : taken - given]
            given += resampled.shape[-1]
            yield resampled.unflatten(0, shape).to(self.device)
        # The rates' rounding may lack or have a sample too many at the very end.
        rest = torch.from_numpy(back.finish())
        yield fit(rest, taken - given).unflatten(0, shape).to(self.device)

    def _separate(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Separate blocks at the model's rate."""
        line = Line(self._track)
        for block in to_device(blocks, self.device):
            line.append(block)
            for span in line.ready():
                yield self._piece(line, span)
        for span in line.rest():
            yield self._piece(line, span)

    def _piece(self, line: Line, span: Span) -> Tensor:
        """Separate a span of the line: (sources, channels, samples)."""
        samples = line.samples_around(span)
        mono_for_stereo = len(samples) == 1 and self._channels == 2
        if mono_for_stereo:
            samples = samples.expand(2, -1)
        piece = self._track.separate(samples, line.origin, span)
        if mono_for_stereo:
            piece = piece.mean(1, keepdim=True)
        return line.crop(piece, span)


def _finite(blocks: Iterable[Tensor | np.ndarray], channels: int) -> Iterator[Tensor]:
    """Pass blocks on, as tensors, as long as they are what a waveform may be."""
    position = 0
    for values in blocks:
        block = torch.as_tensor(values)
        if not block.is_floating_point():
            raise InputError(f"waveform: got {block.dtype} samples, takes floats from -1 to 1")
        if block.ndim != 2 or block.shape[0] != channels:
            raise InputError(f"waveform: got shape {tuple(block.shape)}, takes ({channels}, n)")
        if not bool(block.isfinite().all()):
            raise InputError(
                f"waveform: holds NaN or infinite samples between {position} and "
                f"{position + block.shape[-1]}"
            )
        position += block.shape[-1]
        yield block
