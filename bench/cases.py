"""What is measured: operators in the six workloads of `workloads.py`, the most important first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from sepfast.bench import network_cases, normalising, recurrent, work
from sepfast.bench.attention import attention
from sepfast.bench.case import Case, Output, Size, Tensors, product_precision, shaped
from sepfast.bench.work import Work
from sepfast.bench.workloads import Workload
from sepfast.reference import Levels


def suite(size: Size = "full", operator: str = "") -> list[Case]:
    """All cases in a size, or those of one operator, in the order of their importance."""
    return [case for case in _suite(size) if operator in ("", case.operator)]


def _suite(size: Size) -> Iterator[Case]:
    song, training, style = (shaped(w, size) for w in ("song", "training", "style-transfer"))
    yield _magnitude("song/stft_magnitude", song)
    yield _masked("song/masked_istft", song)
    yield network_cases.linear_loss("training/linear_soft_mask_loss+gradient", training)
    yield network_cases.decode("song/overlap_decode", song)
    yield _chain("song/chain", song)
    yield network_cases.conv("song/conv_pair", song)
    yield network_cases.deconv("training/deconv_pair+gradient", training)
    yield network_cases.conv("training/conv_pair+gradient", training, gradient=True)
    yield _loss("training/soft_mask_loss+gradient", training)
    yield _mask("training/soft_mask+gradient", training, gradient=True)
    yield _masked("training/masked_istft+gradient", training, gradient=True)
    yield _masked("song/masked_istft-levels", song, levels=True)
    yield _magnitude("style-transfer/stft_magnitude", style)
    yield _masked("style-transfer/masked_istft", style)
    yield normalising.norm("style-transfer/softplus_norm+gradient", style, gradient=True)
    yield normalising.norm("style-transfer/softplus_norm", style)
    yield normalising.affine("style-transfer/softplus_affine", style)
    landmarks = shaped("landmarks", size)
    yield _magnitude("landmarks/stft_magnitude-scaled", landmarks, scaled=True)
    yield _amplitudes("landmarks/amplitude_mask_loss+gradient", landmarks)
    fragments = shaped("fragments", size)
    yield attention("fragments/bilinear_attention", fragments)
    yield attention("fragments/bilinear_attention+gradient", fragments, gradient=True)
    yield from recurrent.cases(size)
    yield _stft("song/stft", song)
    yield _istft("song/istft", song)
    yield network_cases.decode("song/overlap_decode-25of30", shaped("song-mono", size))
    yield network_cases.horizontal("training/horizontal_deconv+gradient", training)
    yield _magnitude("style-transfer/stft_magnitude+gradient", style, gradient=True)
    yield _istft("style-transfer/istft", style)
    yield _mask("song/soft_mask", song)
    yield _loss("training/soft_mask_loss", training, gradient=False)


def _line(shape: Workload, device: torch.device) -> Tensors:
    return {"waveform": torch.randn(shape.rows, shape.samples, device=device)}


def _shares(shape: Workload, device: torch.device) -> Tensors:
    """One batch of `rows` channels: to the kernels that is the same as a batch of them."""
    axes = (shape.sources, shape.rows, shape.framing.frames(shape.samples), shape.framing.bins)
    return {"shares": torch.rand(axes, device=device), **_line(shape, device)}


def _levelled(shape: Workload, device: torch.device) -> Tensors:
    bins, axes = shape.framing.bins, (shape.sources, shape.rows, 1)
    return {
        **_shares(shape, device),
        "gain": torch.rand(*axes, bins, device=device) + 0.5,
        "floor": torch.rand(shape.rows, 1, bins, device=device),
        "base": torch.rand(*axes, bins, device=device),
    }


def _scaled(shape: Workload, device: torch.device) -> Tensors:
    bins = shape.framing.bins
    levels = {name: torch.rand(bins, device=device) + 0.5 for name in ("scale", "offset")}
    return {**_line(shape, device), **levels}


def _spectrum(shape: Workload, device: torch.device) -> Tensors:
    axes = (shape.rows, shape.framing.frames(shape.samples), shape.framing.bins, 2)
    return {"spectrum": torch.randn(axes, device=device)}


def _estimates(shape: Workload, device: torch.device) -> Tensors:
    axes = (shape.rows, shape.sources, shape.framing.frames(shape.samples), shape.framing.bins)
    return {"estimates": torch.randn(axes, device=device)}


def _loss_inputs(shape: Workload, device: torch.device) -> Tensors:
    estimates = _estimates(shape, device)
    targets = torch.rand_like(estimates["estimates"])
    return {**estimates, "mixture": targets.sum(1), "targets": targets}


def _amplitude_inputs(shape: Workload, device: torch.device) -> Tensors:
    axes = (shape.rows, shape.frames, shape.framing.bins)
    levels = {name: torch.rand(axes, device=device) for name in ("mixture", "target")}
    return {"scores": torch.randn(axes, device=device), **levels}


def _chain_inputs(shape: Workload, device: torch.device) -> Tensors:
    tensors = _shares(shape, device)
    return {"estimates": tensors.pop("shares") + 0.01, **tensors}


def _call_chain(f: Any, x: Tensors, shape: Workload) -> Output:
    """Magnitudes, which a network would take, and the stems of what it gave."""
    magnitudes = f.stft_magnitude(x["waveform"], shape.framing)
    shares = f.soft_mask(x["estimates"], 0)
    return magnitudes, f.masked_istft(shares, x["waveform"], shape.framing)


def _call_masked(f: Any, x: Tensors, shape: Workload) -> Output:
    levels = Levels(x["gain"], x["floor"], x["base"]) if "gain" in x else None
    return f.masked_istft(x["shares"], x["waveform"], shape.framing, levels)


def _call_scaled(f: Any, x: Tensors, shape: Workload) -> Output:
    levels = {"scale": x["scale"], "offset": x["offset"]}
    return f.stft_magnitude(x["waveform"], shape.framing, power=0.3, **levels)


def _tiling(kernel: str, n_fft: int, **key: str) -> work.Tiling:
    """What is shipped for the precision that is demanded now, on CUDA."""
    return work.shipped_tiling(
        f"sepfast_{kernel}", n_fft=n_fft, precision=product_precision(), **key
    )


def _stft(name: str, shape: Workload) -> Case:
    return Case(
        name, "stft", shape, _line,
        lambda f, x, s: f.stft(x["waveform"], s.framing),
        lambda s: work.stft(s.rows, s.samples, s.framing),
        ("waveform",), kernels=("stft_sliding" if work.slides(shape.framing) else "stft_forward",),
    )  # fmt: skip


def _istft(name: str, shape: Workload) -> Case:
    def done(s: Workload) -> Work:
        tiling = _tiling("stft_inverse", s.framing.n_fft)
        return work.istft(s.rows, s.samples, s.framing, tiling)

    return Case(
        name, "istft", shape, _spectrum,
        lambda f, x, s: f.istft(x["spectrum"], s.framing, s.samples),
        done, ("spectrum",),
        kernels=("istft_sliding" if work.slides(shape.framing) else "stft_inverse",),
    )  # fmt: skip


def _magnitude(name: str, shape: Workload, scaled: bool = False, gradient: bool = False) -> Case:
    def done(s: Workload) -> Work:
        if not gradient:
            return work.stft_magnitude(s.rows, s.samples, s.framing)
        tiling = _tiling("stft_magnitude_backward", s.framing.n_fft)
        return work.stft_magnitude_gradient(s.rows, s.samples, s.framing, tiling)

    def plainly(f: Any, x: Tensors, s: Workload) -> Output:
        return f.stft_magnitude(x["waveform"], s.framing)

    return Case(
        name, "stft_magnitude", shape, _scaled if scaled else _line,
        _call_scaled if scaled else plainly, done, () if scaled else ("waveform",),
        gradient=gradient,
        kernels=(
            "stft_magnitude_sliding" if work.slides(shape.framing) else "stft_magnitude_forward",
            "stft_magnitude_backward",
        )[: 1 + gradient],
    )  # fmt: skip


def _masked(name: str, shape: Workload, levels: bool = False, gradient: bool = False) -> Case:
    def done(s: Workload) -> Work:
        kind = "floor" if levels else "none"
        tiling = _tiling("masked_istft_forward", s.framing.n_fft, levels=kind)
        count = work.masked_istft_gradient if gradient else work.masked_istft
        return count(s.rows, s.sources, s.samples, s.framing, tiling)

    return Case(
        name, "masked_istft", shape, _levelled if levels else _shares, _call_masked,
        done, ("shares",), gradient=gradient,
        kernels=(
            "masked_istft_forward"
            if levels or not work.slides(shape.framing)
            else "masked_istft_sliding",
            "masked_istft_backward",
        )[: 1 + gradient],
    )  # fmt: skip


def _chain(name: str, shape: Workload) -> Case:
    def done(s: Workload) -> Work:
        tiling = _tiling("masked_istft_forward", s.framing.n_fft, levels="none")
        return work.chain(s.rows, s.sources, s.samples, s.framing, tiling)

    return Case(
        name, "chain", shape, _chain_inputs, _call_chain, done, ("estimates",),
        kernels=("stft_magnitude_forward", "soft_mask_forward", "masked_istft_forward"),
        parts=("stft_magnitude", "soft_mask", "masked_istft"),
    )  # fmt: skip


def _mask(name: str, shape: Workload, gradient: bool = False) -> Case:
    count = work.soft_mask_gradient if gradient else work.soft_mask
    return Case(
        name, "soft_mask", shape, _estimates,
        lambda f, x, s: f.soft_mask(x["estimates"], 1),
        lambda s: count(s.sources * _inner(s)),
        ("estimates",), gradient=gradient, transforms=False, products=False,
        kernels=("soft_mask_forward", "soft_mask_backward")[: 1 + gradient],
    )  # fmt: skip


def _loss(name: str, shape: Workload, gradient: bool = True) -> Case:
    count = work.soft_mask_loss_gradient if gradient else work.soft_mask_loss
    return Case(
        name, "soft_mask_loss", shape, _loss_inputs,
        lambda f, x, s: f.soft_mask_loss(x["estimates"], x["mixture"], x["targets"]),
        lambda s: count(s.sources, _inner(s)),
        ("estimates",), gradient=gradient, transforms=False, products=False,
        kernels=("soft_mask_loss_forward", "soft_mask_loss_backward")[: 1 + gradient],
    )  # fmt: skip


def _amplitudes(name: str, shape: Workload) -> Case:
    return Case(
        name, "amplitude_mask_loss", shape, _amplitude_inputs,
        lambda f, x, s: f.amplitude_mask_loss(x["scores"], x["mixture"], x["target"]),
        lambda s: work.amplitude_mask_loss_gradient(_inner(s)),
        ("scores",), gradient=True, transforms=False, products=False,
        kernels=("amplitude_mask_loss_forward", "amplitude_mask_loss_backward"),
    )  # fmt: skip


def _inner(shape: Workload) -> int:
    """Elements of one source."""
    return shape.rows * shape.framing.frames(shape.samples) * shape.framing.bins
