"""What there is to tune: every kernel with every key, and something to run it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sepfast.bench import attention, network_jobs, normalising, recurrent
from sepfast.bench.case import Prepared, Tensors
from sepfast.bench.work import DEVICES, shipped_config
from sepfast.kernels.tuning import shipped
from sepfast.reference import FRAMINGS, Framing

Config = dict[str, int]

#: n_fft -> the paper's framing of that size, of those whose frames do not slide.
_NAMED = {512: "landmarks", 1024: "deepconvsep"}
#: Kernels that slide.
_SLIDING = ("stft_sliding", "istft_sliding", "stft_magnitude_sliding", "masked_istft_sliding")


@dataclass(frozen=True)
class Job:
    """A kernel and a key to find a configuration for.

    Attributes:
        kernel: its name.
        key: of the configuration.
        start: the shipped configuration, or where to begin.
        known: whether it is shipped.
    """

    kernel: str
    key: Mapping[str, Any]
    start: Config
    known: bool

    @property
    def stage(self) -> str:
        """The kernel's name without its prefix."""
        return self.kernel.removeprefix("sepfast_")

    def __str__(self) -> str:
        return " ".join((self.stage, *(f"{k} {v}" for k, v in self.key.items())))


def jobs(
    precisions: tuple[str, ...] = ("tf32x3", "tf32"), devices: Sequence[str] = DEVICES
) -> list[Job]:
    """All keys, those of the song and of training first.

    Args:
        precisions: of matrix products.
        devices: as what configurations that count are shipped, the best first.
    """
    wanted: list[tuple[str, dict[str, Any]]] = []
    loss = [f"soft_mask_loss_{stage}" for stage in ("forward", "backward")]
    masks = [f"soft_mask_{stage}" for stage in ("forward", "backward")]
    for n_fft in (1024, 2048, 512, 4096, 256):
        stages = ["masked_istft_forward none", "stft_magnitude_forward"]
        stages += ["masked_istft_backward none", "masked_istft_forward floor"]
        stages += ["stft_forward", "stft_inverse", "stft_magnitude_backward"]
        stages += ["masked_istft_backward floor"]
        for stage in stages:
            kernel, *levels = stage.split()
            for precision in precisions:
                key = {"n_fft": n_fft, "precision": precision}
                wanted.append((kernel, key | ({"levels": levels[0]} if levels else {})))
        if n_fft == 1024:
            wanted[2:2] = [(kernel, {"sources": 4}) for kernel in loss + masks]
            wanted += [each for p in precisions for each in network_jobs.song_keys(p)]
            wanted += [
                ("masked_istft_compact", {"n_fft": n_fft, "precision": "tf32", "levels": levels})
                for levels in ("gain", "none", "floor")
                if "tf32" in precisions  # in float32, shares are float32
            ]
    wanted += [(kernel, {"sources": n}) for n in (2, 16) for kernel in loss + masks]
    wanted += [
        (f"masked_istft_{stage}", {"n_fft": n_fft, "precision": precision, "levels": "gain"})
        for n_fft in (1024, 2048, 512, 256)
        for stage in ("forward", "backward")
        for precision in precisions
    ]
    wanted += [(f"amplitude_mask_loss_{stage}", {}) for stage in ("forward", "backward")]
    wanted += normalising.keys()
    wanted += [
        (kernel, {"n_fft": n_fft, "hop": 16, "precision": precision})
        for n_fft in (2048, 512)
        for kernel in _SLIDING
        for precision in precisions
    ]
    wanted += [each for p in precisions for each in (*attention.keys(p), *recurrent.keys(p))]
    wanted += [each for p in precisions for each in network_jobs.other_keys(p)]
    return [_job(f"sepfast_{kernel}", key, devices) for kernel, key in wanted]


def _job(kernel: str, key: dict[str, Any], devices: Sequence[str]) -> Job:
    entries = list(shipped(kernel))
    if any(known == key and device in devices for device, known, _ in entries):
        return Job(kernel, key, dict(shipped_config(kernel, devices, **key)), True)
    *_, (_, _, near) = entries
    small = {"FRAMES": 1, "SOURCES": 1}
    return Job(kernel, key, {k: small.get(k, v) for k, v in near.items()}, False)


def prepare(job: Job, frames: int, device: torch.device) -> Prepared:
    """The operator that launches a job's kernel, and what to call it with.

    Args:
        job: the job.
        frames: of each of two rows.
        device: where it runs.
    """
    if job.stage.startswith("bilinear_attention"):
        return attention.prepare(job.stage, job.key, frames, device)
    if job.stage.startswith("softplus"):
        return normalising.prepare(job.stage, frames, device)
    if job.stage.startswith("lstm"):
        return recurrent.prepare(job.stage, frames, device)
    if "precision" in job.key and "n_fft" not in job.key:
        return network_jobs.prepare(job.stage, job.key, frames, device)
    if job.stage.startswith("amplitude_mask_loss"):
        return _amplitudes(job, frames, device)
    if "sources" in job.key:
        return _elementwise(job, frames, device)
    framing = _framing_of(job)
    if job.stage.startswith("masked_istft"):
        return _masked(job, framing, frames, device)
    return _transform(job, framing, frames, device)


def _framing_of(job: Job) -> Framing:
    """One that takes the kernel of a job: a paper's where there is one of that length."""
    n = int(job.key["n_fft"])
    if "hop" in job.key:
        return Framing(n, job.key["hop"], symmetric=False, front=n // 2)
    if n in _NAMED:
        return FRAMINGS[_NAMED[n]]
    return Framing(n, n // 4, front=n // 2, rule="ceil+2")


def _transform(job: Job, framing: Framing, frames: int, device: torch.device) -> Prepared:
    """The STFT, its inverse, its magnitudes or their gradient."""
    text, samples, o = framing.to_text(), frames * framing.hop, torch.ops.sepfast
    line = torch.randn(2, samples, device=device)
    count, bins = framing.frames(samples), framing.bins
    if job.stage in ("stft_forward", "stft_sliding"):
        return lambda x: o.stft(x["line"], text), {"line": line}
    if job.stage in ("stft_inverse", "istft_sliding"):
        spectrum = torch.randn(2, count, bins, 2, device=device)
        return lambda x: o.istft(x["spectrum"], text, samples), {"spectrum": spectrum}
    if job.stage in ("stft_magnitude_forward", "stft_magnitude_sliding"):
        return lambda x: o.stft_magnitude(x["line"], text, 1.0, None, None), {"line": line}
    grad = torch.randn(2, count, bins, device=device)
    return (
        lambda x: o.stft_magnitude_backward(x["grad"], x["line"], text, 1.0, None),
        {"grad": grad, "line": line},
    )


def _masked(job: Job, framing: Framing, frames: int, device: torch.device) -> Prepared:
    """Shares to samples of four sources, or the gradient of the shares."""
    text, samples, o = framing.to_text(), frames * framing.hop, torch.ops.sepfast
    sources, count, bins = 4, framing.frames(samples), framing.bins
    tensors = {
        "line": torch.randn(2, samples, device=device),
        **_levels(job, sources, bins, device),
    }
    if job.stage != "masked_istft_backward":
        shares = torch.rand(sources, 2, count, bins, device=device)
        tensors["first"] = shares.half() if job.stage.endswith("compact") else shares
        call = o.masked_istft
    else:
        tensors["first"] = torch.randn(sources, 2, samples, device=device)
        call = o.masked_istft_backward

    def masked(x: Tensors) -> Tensor:
        levels = (x.get(name) for name in ("gain", "floor", "base"))
        return call(x["first"], x["line"], text, *levels)

    return masked, tensors


def _levels(job: Job, sources: int, bins: int, device: torch.device) -> Tensors:
    if job.key.get("levels", "none") == "none":
        return {}
    gain, base = torch.rand(2, sources, 2, 1, bins, device=device) + 0.5
    if job.key["levels"] == "gain":
        return {"gain": gain}
    return {"gain": gain, "base": base, "floor": torch.rand(2, 1, bins, device=device)}


def _amplitudes(job: Job, frames: int, device: torch.device) -> Prepared:
    z = torch.randn(2, frames, 257, device=device)
    tensors = {"scores": z, "mixture": torch.rand_like(z), "target": torch.rand_like(z)}
    o, names = torch.ops.sepfast, tuple(tensors)
    if job.stage == "amplitude_mask_loss_forward":
        return lambda x: o.amplitude_mask_loss(*(x[name] for name in names), None), tensors
    tensors["grad"] = torch.ones((), device=device)

    def backward(x: Tensors) -> Tensor:
        return o.amplitude_mask_loss_backward(*(x[name] for name in names), None, x["grad"])

    return backward, tensors


def _elementwise(job: Job, frames: int, device: torch.device) -> Prepared:
    sources = int(job.key["sources"])
    y, t = torch.randn(2, 2, sources, frames, 513, device=device)
    o = torch.ops.sepfast
    if job.stage == "soft_mask_forward":
        return lambda x: o.soft_mask(x["y"], 1), {"y": y}
    if job.stage == "soft_mask_backward":
        return lambda x: o.soft_mask_backward(x["t"], x["y"], 1), {"y": y, "t": t}
    t = t.abs()
    tensors = {"y": y, "x": t.sum(1), "t": t}
    if job.stage == "soft_mask_loss_forward":
        return lambda x: o.soft_mask_loss(x["y"], x["x"], x["t"], *network_jobs.WEIGHTS)[1], tensors
    tensors |= {"grad": torch.ones((), device=device), "total": torch.ones((), device=device)}

    def backward(x: Tensors) -> Tensor:
        return o.soft_mask_loss_backward(
            x["y"], x["x"], x["t"], x["grad"], x["total"], *network_jobs.WEIGHTS
        )

    return backward, tensors
