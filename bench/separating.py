"""Separation from samples to four stereo stems, by system B: ours, the plain way, the published.

All sides have the mixtures on their device and leave the stems there; the published program takes
and gives numpy's arrays in float64, as it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from sepfast import Separator, create_model, fuse, use_backend
from sepfast.bench import system_work
from sepfast.bench.case import Size, demand, product_precision
from sepfast.bench.published import covered_samples
from sepfast.bench.published import separate as published
from sepfast.bench.side import Side
from sepfast.bench.work import Work
from sepfast.bench.workloads import WORKLOADS, Workload
from sepfast.reference import DeepConvSep, istft, magnitude, masked_spectrum, overlap_add, stft
from sepfast.separation.fades import context_count, fades

RATE = 44100

#: Contexts that the plain way takes at once: on a CPU they stay in the cache, a GPU wants many.
_CPU_BATCH, _GPU_BATCH = 32, 256

#: |stems - eager's| / |eager's|, eager in float32. The bounds of `stft_magnitude`, `conv_pair`,
#: `overlap_decode` and `masked_istft` add up to 3.5e-6 and, in TF32, 8e-3; in float32 eager is as
#: inexact as others, and layers between add a little: tenfold.
TOLERANCE = {"highest": 3.5e-5, "high": 8e-3}

Network = Callable[[Tensor], Tensor]


def stereo_model(device: torch.device | None = None) -> DeepConvSep:
    """System B with random weights, and statistics as if it was trained."""
    torch.manual_seed(0)
    model = create_model("deepconvsep-stereo").eval()
    assert isinstance(model, DeepConvSep)
    model.set_statistics(torch.zeros(10, 513), torch.rand(10, 513) + 0.5)
    spread(model)
    return model.requires_grad_(False).to(device or torch.device("cpu"))


@torch.no_grad()
def spread(model: DeepConvSep) -> None:
    """Give the last layers weights with which shares differ, and a network that errs is heard.

    With PyTorch's own all sources are a quarter, to three digits. The bias leaves no bin without
    an estimate, where the published program has 0 / 0.
    """
    for source in model.sources:
        layer = cast(Any, model.decoder[source])[1]
        layer.weight *= 50
        layer.bias.fill_(0.5)


def plain(
    model: DeepConvSep, mixture: Tensor, overlap: int = 15, network: Network | None = None
) -> Tensor:
    """Every context through the whole network, in one batch after another, and back at once.

    Args:
        model: the model.
        mixture: (..., channels, samples), a song or several.
        overlap: frames that contexts share.
        network: what estimates contexts; None for the model.

    Returns:
        (..., N, channels, samples).
    """
    step, context = model.context - overlap, model.context
    spectrum = stft(mixture, model.framing)
    scaled = model.scale(magnitude(spectrum))  # (..., 2, frames, 513)
    frames = scaled.shape[-2]
    count = context_count(frames, context, overlap)
    scaled = F.pad(scaled, (0, 0, 0, (count - 1) * step + context - frames))
    contexts = scaled.unfold(-2, context, step).transpose(-4, -3).mT.flatten(0, -4)
    batches = contexts.split(_GPU_BATCH if mixture.is_cuda else _CPU_BATCH)
    shares = torch.cat([model.shares((network or model)(batch)) for batch in batches])
    shares = shares.unflatten(0, (*mixture.shape[:-2], count))
    shares *= fades(0, count, count, context, overlap, mixture.device)[:, None, None, :, None]
    # Contexts behind bins, as they are added: (..., 4, 2, 513, count, context).
    line = overlap_add(shares.movedim(-5, -2).transpose(-1, -3), step)
    masked = masked_spectrum(line[..., :frames].mT, spectrum, model.levels())
    return istft(masked, model.framing, mixture.shape[-1])


def stacked(stems: Mapping[str, Tensor]) -> Tensor:
    """The stems of a song, (N, channels, samples)."""
    return torch.stack(list(stems.values()))


@dataclass(frozen=True)
class Separation:
    """Songs in stereo, separated.

    Attributes:
        what: the songs in a word.
        seconds: of each.
        songs: how many.
        yardstick: whether the published program is a side, which takes long.
    """

    what: str
    seconds: float
    songs: int = 1
    yardstick: bool = False
    operator: ClassVar[str] = "separation"
    gradient: ClassVar[bool] = False
    result: ClassVar[str] = "stems"

    @property
    def name(self) -> str:
        """`separation/what`."""
        return f"separation/{self.what}"

    def __str__(self) -> str:
        return self.name

    @property
    def kernels(self) -> tuple[str, ...]:
        """Those of float16 shares where products are TF32."""
        inverse = "forward" if demand() == "highest" else "compact"
        return (
            "stft_magnitude_forward",
            *("conv_pair_vertical", "conv_pair_horizontal", "deconv_pair_horizontal"),
            *("overlap_decode_forward", f"masked_istft_{inverse}"),
        )

    @property
    def shape(self) -> Workload:
        """Of a song."""
        return replace(WORKLOADS["song"], samples=int(self.seconds * RATE))

    def sides(self, device: torch.device) -> list[str]:
        """Ours, others', compiled."""
        yardstick = self.yardstick and device.type == "cpu"
        return ["ours", "eager", *(["published"] if yardstick else []), "compiled"]

    def build(self, side: str, device: torch.device) -> Side:
        """A side, verified on 10 s."""
        separate = _separates(side, stereo_model(device))
        torch.manual_seed(1)
        mixtures = 0.1 * torch.randn(self.songs, 2, self.shape.samples, device=device)
        short = mixtures[..., : 10 * RATE].contiguous()

        def stems() -> dict[str, list[Tensor]]:
            out = torch.stack([x if isinstance(x, Tensor) else stacked(x) for x in separate(short)])
            covered = covered_samples(short.shape[-1]) if side == "published" else None
            return {"stems": [out[..., :covered]]}

        return Side(lambda: separate(mixtures), stems)

    def work(self) -> Work:
        """As `system_work` has it; shares are float16 where products are TF32."""
        compact = demand() != "highest"
        return system_work.separation(self.shape, self.songs, product_precision(), compact=compact)

    def shapes(self) -> dict[str, list[int]]:
        """Of the songs."""
        return {"mixtures": [self.songs, 2, self.shape.samples]}

    def tolerances(self) -> Mapping[str, float]:
        """Of the stems."""
        return {"stems": TOLERANCE[demand()]}


def _separates(side: str, model: DeepConvSep) -> Callable[[Tensor], Any]:
    """Songs (songs, 2, samples) to the stems of each."""
    if side == "ours":
        fuse(model)
        separator = Separator(model)
        return lambda mixtures: [separator(song, RATE) for song in mixtures]
    if side == "published":
        return lambda mixtures: [
            torch.from_numpy(published(model, song.double().numpy())) for song in mixtures
        ]
    network = _compiled(model) if side == "compiled" else None

    def plainly(mixtures: Tensor) -> Tensor:
        with use_backend("reference"), torch.inference_mode():
            return plain(model, mixtures, model.overlap, network)

    return plainly


def _compiled(model: DeepConvSep) -> Network:
    """The network compiled for whole batches, to which the last one is filled up."""
    compiled = torch.compile(model, dynamic=False)

    def network(contexts: Tensor) -> Tensor:
        whole = _GPU_BATCH if contexts.is_cuda else _CPU_BATCH
        filled = F.pad(contexts, (0, 0, 0, 0, 0, 0, 0, whole - len(contexts)))
        return compiled(filled)[: len(contexts)]

    return network


def excerpts(size: Size) -> Iterator[Separation]:
    """All that is separated, the most important first."""
    if size == "full":
        yield Separation("song", 240)
    yield Separation("excerpt", 2 if size == "quick" else 10, yardstick=True)
    if size != "quick":
        yield Separation("batch", 10, songs=8 if size == "full" else 2)
    if size == "full":
        yield Separation("hour", 3600)
