"""From a mixture's samples to its sources', whatever the length, the sample rate and the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sepfast.data.resampling import StreamResampler
from sepfast.data.side_information import SideInformation
from sepfast.data.side_line import SideLine, TrueLine, side_line
from sepfast.errors import InputError
from sepfast.reference import DeepConvSep, Denoiser, Informed, StyleTransfer
from sepfast.separation.alignment import Alignment
from sepfast.separation.deepconvsep import DeepConvSepTrack
from sepfast.separation.denoised import DenoisedTrack
from sepfast.separation.held import Held
from sepfast.separation.informed import InformedTrack
from sepfast.separation.line import Line, fit
from sepfast.separation.style_transfer import StyleTransferTrack
from sepfast.separation.track import Span, Track
from sepfast.separation.transfer import to_device, to_host

#: Samples that `__call__` hands on at once; more of those that are on a GPU, where each block is
#: waited for to see whether it is finite.
_BLOCK, _GPU_BLOCK = 1 << 18, 1 << 24

#: What a model can be told about a recording.
Side = SideInformation | SideLine | TrueLine | ArrayLike


class Separator:
    """A model as a function from a mixture to its sources.

    Args:
        model: made by `create_model` or `load`; put into evaluation mode. Its weights are read
            here: after training on, make a new Separator.
        overlap: frames that neighbouring contexts share; None for the model's own: all but 5 of
            the context for A, half of it for B and C. E has no contexts and takes None.
        denoisers: of A and B, denoisers by the sources that they are for, trained on this model's
            output. Their stems have what the denoiser makes of the magnitudes and the mixture's
            phase, and the stems add up to the mixture no more.
        device: where to compute; None for where the model is.

    Attributes:
        sources: names of what comes out, in order.
        sample_rate: the model's, in Hz; other rates are resampled to it and back.
        takes_side: whether the model has to be told something of each recording.

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
        denoisers: Mapping[str, Denoiser] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not isinstance(model, DeepConvSep | Informed | StyleTransfer):
            raise InputError(
                f"model: got a {type(model).__name__}, takes one that separates: "
                "deepconvsep, deepconvsep-stereo, informed, udt or denoising-vae"
            )
        model = model.eval() if device is None else model.eval().to(device)
        self.device = next(model.parameters()).device
        self.sources, self.sample_rate = model.sources, model.sample_rate
        self._stereo = isinstance(model, DeepConvSep) and model.channels == 2
        self._name, self._track = type(model).__name__, _track(model, overlap, denoisers)
        self.takes_side = isinstance(self._track, InformedTrack) and self._track.takes_side

    def check_side(self, given: bool) -> None:
        """Raise `InputError` where a recording lacks side information, or has it to no avail.

        Args:
            given: whether there is side information.
        """
        if isinstance(self._track, InformedTrack):
            self._track.check_side(given)
        elif given:
            raise InputError(
                f"side: got side information, takes None: {self._name} is told nothing"
            )

    def __call__(
        self,
        waveform: Tensor | np.ndarray,
        sample_rate: int,
        *,
        side: Side | None = None,
        alignment: Alignment | None = None,
    ) -> dict[str, Tensor]:
        """Separate a mixture.

        A mono model of A separates every channel by the masks of their mean; the stereo model of B
        takes a mono mixture as two equal channels and gives back their mean. C and E separate
        every channel on its own, and the second source is the mixture without the first, at the
        mixture's rate.

        Args:
            waveform: (channels, samples), any length, zero included; never changed.
            sample_rate: Hz.
            side: side information for a model that takes some: of a file, an array (steps,) or
                (steps, features) that is spread evenly over the mixture, or a `TrueLine`.
            alignment: collects where a model with attention looks in its side information.

        Returns:
            For every source (channels, samples) in float32, as long as the mixture, on the
            waveform's device.

        Raises:
            InputError: for a shape, a number of channels or a rate that cannot be used, for
                samples that are not finite, and for side information that is missing, is for
                another model or goes on for a second or more behind the mixture.
        """
        mixture = torch.as_tensor(waveform)
        if mixture.ndim != 2:
            raise InputError(
                f"waveform: got shape {tuple(mixture.shape)}, takes (channels, samples)"
            )
        channels, samples = mixture.shape
        blocks = mixture.split(_GPU_BLOCK if mixture.is_cuda else _BLOCK, dim=-1)
        pieces = self.stream(
            blocks, sample_rate, channels, side=side, samples=samples, alignment=alignment
        )
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
        self,
        blocks: Iterable[Tensor | np.ndarray],
        sample_rate: int,
        channels: int,
        *,
        side: Side | None = None,
        samples: int | None = None,
        alignment: Alignment | None = None,
    ) -> Iterator[Tensor]:
        """Separate a mixture that comes, and goes, in pieces; memory does not grow with it.

        Args:
            blocks: (channels, any number of samples) each, one behind the other.
            sample_rate: Hz.
            channels: channels of the blocks.
            side: as `__call__`.
            samples: how many will come; None where it is not known, which side information
                without times does not take.
            alignment: as `__call__`; whole behind the last piece.

        Yields:
            (sources, channels, some samples) in float32 on the model's device, one behind the
            other, as long together as the blocks.

        Raises:
            InputError: as `__call__`.
        """
        self._check(sample_rate, channels)
        track = self._told(side, None if samples is None else samples / sample_rate, alignment)
        checked, held = _measured(_finite(blocks, channels), track, sample_rate), Held()
        whole = self._track.sources == len(self.sources)
        checked = checked if whole else held.passing(checked)
        if sample_rate == self.sample_rate:
            pieces = self._separate(checked, track)
        else:
            pieces = self._resampled(checked, track, sample_rate, channels)
        for piece in pieces:
            yield piece if whole else held.with_rest(piece)

    def _told(self, side: Side | None, seconds: float | None, alignment: Alignment | None) -> Track:
        """The track, told what is known of one recording."""
        self.check_side(side is not None)
        if isinstance(self._track, InformedTrack):
            return self._track.told(None if side is None else side_line(side), seconds, alignment)
        if alignment is not None:
            raise InputError(f"alignment: got one, takes None: {self._name} has no attention")
        return self._track

    def _check(self, sample_rate: int, channels: int) -> None:
        if not (sample_rate >= 1 and sample_rate % 1 == 0):
            raise InputError(f"sample_rate: got {sample_rate}, takes a positive whole number of Hz")
        if channels < 1 or (channels > 2 and self._stereo):
            raise InputError(f"waveform: got {channels} channels, takes 1 or 2")

    def _resampled(
        self, blocks: Iterable[Tensor], track: Track, sample_rate: int, channels: int
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

        shape = (track.sources, channels)
        back = StreamResampler(self.sample_rate, sample_rate, shape[0] * shape[1])
        for piece in self._separate(at_model_rate(), track):
            resampled = torch.from_numpy(back.push(piece.flatten(0, 1).numpy(force=True)))
            resampled = resampled[:, : taken - given]
            given += resampled.shape[-1]
            yield resampled.unflatten(0, shape).to(self.device)
        # The rates' rounding may lack or have a sample too many at the very end.
        rest = torch.from_numpy(back.finish())
        yield fit(rest, taken - given).unflatten(0, shape).to(self.device)

    def _separate(self, blocks: Iterable[Tensor], track: Track) -> Iterator[Tensor]:
        """Separate blocks at the model's rate."""
        line = Line(track)
        for block in to_device(blocks, self.device):
            line.append(block)
            for span in line.ready():
                yield self._piece(line, track, span)
        for span in line.rest():
            yield self._piece(line, track, span)

    def _piece(self, line: Line, track: Track, span: Span) -> Tensor:
        """Separate a span of the line: (sources, channels, samples)."""
        samples = line.samples_around(span)
        mono_for_stereo = len(samples) == 1 and self._stereo
        if mono_for_stereo:
            samples = samples.expand(2, -1)
        piece = track.separate(samples, line.origin, span)
        if mono_for_stereo:
            piece = piece.mean(1, keepdim=True)
        return line.crop(piece, span)


def _track(
    model: DeepConvSep | Informed | StyleTransfer,
    overlap: int | None,
    denoisers: Mapping[str, Denoiser] | None,
) -> Track:
    """The model over tracks."""
    if denoisers and not isinstance(model, DeepConvSep):
        raise InputError(
            f"denoisers: got one of {next(iter(denoisers))}, takes None: "
            f"{type(model).__name__} has none"
        )
    if isinstance(model, Informed):
        return InformedTrack(model, overlap)
    if isinstance(model, DeepConvSep):
        overlap = model.overlap if overlap is None else overlap
        if denoisers:
            return DenoisedTrack(model, overlap, denoisers)
        return DeepConvSepTrack(model, overlap)
    if overlap is not None:
        raise InputError(
            f"overlap: got {overlap}, takes None: {type(model).__name__} has no contexts"
        )
    return StyleTransferTrack(model)


def _measured(blocks: Iterable[Tensor], track: Track, sample_rate: int) -> Iterator[Tensor]:
    """Pass blocks on, and tell the track how long they were."""
    samples = 0
    for block in blocks:
        samples += block.shape[-1]
        yield block
    track.ended(samples / sample_rate)


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
