"""Whether the operators compute the right thing here: each on a tiny input, against float64.

The suite that is timed has such a check too, in the shapes of the published systems. This one is of
a few hundred numbers, so that it is done in seconds, in Triton's interpreter too, and stands below
the benchmarks, which import what they measure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from sepfast import ops, reference
from sepfast.ops.accuracy import ACCURACY, Precision, largest, relative_error
from sepfast.ops.backend import current_backend, noted_decisions, use_backend
from sepfast.reference import Framing

Tensors = dict[str, Tensor]

#: The smallest frames that kernels transform.
_FRAMING = Framing(256, 64, front=128, rule="ceil+2")
_SAMPLES = 300

#: Seconds that the interpreter may take.
_PATIENCE = 300


@dataclass(frozen=True)
class Check:
    """How an operator did.

    Attributes:
        operator: its name.
        place: "cpu", "cuda" or "interpreter".
        precision: what PyTorch's knob said.
        runs: "kernels", "PyTorch", "kernels and PyTorch", or "nothing" where it failed before.
        why_not: why PyTorch ran, one reason after another; empty where kernels did.
        error: of the result, |out - ref64| / |ref64|; None where it failed.
        bound: what `error` has to stay below.
        gradient_error: the largest of a gradient.
        gradient_bound: likewise.
        failed: the first line of the exception, empty where there was none.
    """

    operator: str
    place: str
    precision: str
    runs: str
    why_not: str
    error: float | None
    bound: float
    gradient_error: float | None
    gradient_bound: float
    failed: str = ""

    @property
    def passed(self) -> bool:
        """Whether both errors are within their bounds; NaN is not."""
        if self.error is None or self.gradient_error is None:
            return False
        return self.error <= self.bound and self.gradient_error <= self.gradient_bound


@dataclass(frozen=True)
class _Call:
    """A way to call an operator.

    Attributes:
        inputs: tensors in float64, by name.
        call: takes `ops` or `reference` and the tensors; gives the result.
        wanted: the tensors whose gradients are held to the reference; all where empty.
    """

    inputs: Callable[[], Tensors]
    call: Callable[[Any, Tensors], Tensor]
    wanted: tuple[str, ...] = ()


def check_operators(device: torch.device, operators: Iterable[str] = ()) -> list[Check]:
    """Run operators on a tiny input, forward and backward, by the backend that is chosen now.

    Args:
        device: where.
        operators: their names; all of them for none.

    Returns:
        A check for each, in the order of their names. What raises has failed.
    """
    names = sorted(operators or ACCURACY)
    return [_checked(name, device) for name in names]


def check_in_interpreter(operators: Iterable[str] = ()) -> list[Check]:
    """Run the operators' kernels in Triton's interpreter, in a process of its own.

    Which of the two a process has, compiler or interpreter, is fixed when Triton is imported.

    Args:
        operators: their names; all of them for none.

    Returns:
        A check for each, in the order of their names, all failed where the process does.
    """
    names = sorted(operators or ACCURACY)
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "sepfast.selfcheck", *names]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_PATIENCE
        )
        found = [Check(**each) for each in json.loads(done.stdout)] if not done.returncode else []
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    except subprocess.TimeoutExpired:
        found, reason = [], f"not done within {_PATIENCE} s"
    except (OSError, ValueError, TypeError) as error:
        found, reason = [], str(error)
    return found or [_failure(name, "interpreter", reason) for name in names]


def _checked(name: str, device: torch.device) -> Check:
    place = device.type
    if place == "cpu" and current_backend() == "triton":
        place = "interpreter"
    if name not in _CALLS:
        return _failure(name, place, "selfcheck.py has no input for it")
    made = _CALLS[name]
    with torch.random.fork_rng([]):  # the caller's random numbers stay as they are
        torch.default_generator.manual_seed(1)
        inputs = made.inputs()
    # From float32 on, so that the reference gets the very numbers of the operator.
    tensors = {key: x.float().to(device) for key, x in inputs.items()}
    try:
        with noted_decisions() as decisions:
            out, grads = _evaluated(made, ops, tensors)
        wide = {key: x.cpu().double() for key, x in tensors.items()}
        true, true_grads = _evaluated(made, reference, wide)
        error = relative_error(out, true)
        gradient_error = largest(map(relative_error, grads, true_grads))
    except Exception as raised:  # a kernel that does not compile, a library that is missing
        return _failure(name, place, f"{type(raised).__name__}: {raised}")
    why_not = sorted({each.obstacle for each in decisions if each.obstacle})
    ran = {each.obstacle is None for each in decisions}
    runs = " and ".join(what for what, has in (("kernels", True), ("PyTorch", False)) if has in ran)
    blank = _failure(name, place, "")
    return replace(
        blank, runs=runs, why_not="; ".join(why_not), error=error, gradient_error=gradient_error
    )


def _failure(name: str, place: str, reason: str) -> Check:
    knob = cast(Precision, torch.get_float32_matmul_precision())
    # The interpreter takes every product in float32.
    bound = ACCURACY[name]["highest" if place != "cuda" else knob]
    first = (reason.strip().splitlines() or [""])[0]
    return Check(name, place, knob, "nothing", "", None, bound.forward, None, bound.backward, first)


def _evaluated(made: _Call, package: Any, tensors: Tensors) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The result and the gradients."""
    wanted = made.wanted or tuple(tensors)
    leaves = {key: x.detach().requires_grad_(key in wanted) for key, x in tensors.items()}
    out = made.call(package, leaves)
    generator = torch.Generator().manual_seed(7)
    incoming = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)
    return out.detach(), torch.autograd.grad(out, [leaves[key] for key in wanted], incoming)


# What each operator is called with: rows, sources, channels, frames and so on are 2 to 7.


def _normal(**shapes: tuple[int, ...]) -> Tensors:
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def _positive(**shapes: tuple[int, ...]) -> Tensors:
    """From 0.5 to 1.5."""
    return {name: torch.rand(shape, dtype=torch.float64) + 0.5 for name, shape in shapes.items()}


def _amplitudes() -> Tensors:
    levels = _positive(mixture=(2, 3, 17), target=(2, 3, 17))
    return {**_normal(scores=(2, 3, 17)), **levels}


def _attention() -> Tensors:
    made = _normal(query=(2, 5, 7), memory=(2, 9, 6), weight=(7, 6))
    made["weight"] *= 0.15  # for scores of about 1
    return made


def _channels() -> Tensors:
    made = _normal(x=(2, 16, 17), bias=(16,), weight=(16,), offset=(16,))
    made["x"] *= 3  # over the bend of softplus
    return made


def _loud_or_silent(vertical: Tensor) -> Tensor:
    """Weights (S, n1, C, F) of a decoder that leaves no estimate at the kink of the ReLU."""
    sources, _, channels, bins = vertical.shape
    return vertical * torch.where(torch.rand(sources, 1, channels, bins) < 0.3, -1, 1)


def _decoder() -> Tensors:
    made = _positive(
        codes=(3, 3, 2, 3), horizontal=(3, 2, 5, 3), horizontal_bias=(3, 5),
        vertical=(3, 5, 2, 17), vertical_bias=(3, 2), fades=(3, 5),
    )  # fmt: skip
    made["vertical"] = _loud_or_silent(made["vertical"])
    return made


def _linear_loss() -> Tensors:
    made = _positive(features=(2, 3, 2, 5), weight=(3, 5, 2, 17))
    made["weight"] = _loud_or_silent(made["weight"])
    made["bias"] = torch.rand(3, 2, dtype=torch.float64) - 0.5
    return made | _positive(mixture=(2, 2, 2, 17), targets=(2, 3, 2, 2, 17))


def _loss() -> Tensors:
    return _normal(estimates=(2, 4, 37)) | _positive(mixture=(2, 37), targets=(2, 4, 37))


def _sequences() -> Tensors:
    units = 17
    made = _normal(
        input=(2, 3, 4), weight=(2, 4 * units, 4), recurrent=(2, 4 * units, units),
        bias=(2, 4 * units), peephole=(2, 3, units),
    )  # fmt: skip
    made["recurrent"] /= units**0.5
    return made


def _line() -> Tensors:
    return _normal(waveform=(2, _SAMPLES))


def _spectrum() -> Tensors:
    return _normal(spectrum=(2, _FRAMING.frames(_SAMPLES), _FRAMING.bins, 2))


def _shares() -> Tensors:
    frames = _FRAMING.frames(_SAMPLES)
    return _positive(shares=(1, 2, 2, frames, _FRAMING.bins)) | _normal(waveform=(1, 2, _SAMPLES))


_CALLS: dict[str, _Call] = {
    "amplitude_mask_loss": _Call(
        _amplitudes, lambda f, x: f.amplitude_mask_loss(*x.values()), ("scores",)
    ),
    "bilinear_attention": _Call(
        _attention, lambda f, x: torch.cat(f.bilinear_attention(*x.values()), -1)
    ),
    "conv_pair": _Call(
        lambda: _normal(
            x=(2, 2, 5, 17), vertical=(3, 2, 1, 17), vertical_bias=(3,),
            horizontal=(2, 3, 3, 1), horizontal_bias=(2,),
        ),
        lambda f, x: f.conv_pair(*x.values()),
    ),
    "deconv_pair": _Call(
        lambda: _normal(
            codes=(2, 3, 2, 3, 1), horizontal=(3, 2, 4, 3, 1), horizontal_bias=(3, 4),
            vertical=(3, 4, 2, 1, 17), vertical_bias=(3, 2),
        ),
        lambda f, x: f.deconv_pair(*x.values()),
    ),
    "horizontal_deconv": _Call(
        lambda: _normal(codes=(2, 3, 2, 3), weight=(3, 2, 17, 3), bias=(3, 17)),
        lambda f, x: f.horizontal_deconv(*x.values()),
    ),
    "istft": _Call(_spectrum, lambda f, x: f.istft(x["spectrum"], _FRAMING, _SAMPLES)),
    "linear_soft_mask_loss": _Call(
        _linear_loss,
        lambda f, x: f.linear_soft_mask_loss(*x.values()),
        ("features", "weight", "bias"),
    ),
    "lstm": _Call(_sequences, lambda f, x: f.lstm(*x.values())[0]),
    "masked_istft": _Call(
        _shares, lambda f, x: f.masked_istft(x["shares"], x["waveform"], _FRAMING)
    ),
    "overlap_decode": _Call(
        _decoder,
        # Frames first: one gradient for all sources would be a gradient of nothing.
        lambda f, x: f.overlap_decode(*x.values(), 2).transpose(0, 2).contiguous(),
        ("codes", "horizontal", "horizontal_bias", "vertical", "vertical_bias"),
    ),
    "soft_mask": _Call(
        lambda: _normal(estimates=(2, 3, 37)), lambda f, x: f.soft_mask(x["estimates"], 1)
    ),
    "soft_mask_loss": _Call(_loss, lambda f, x: f.soft_mask_loss(*x.values()), ("estimates",)),
    "softplus_affine": _Call(_channels, lambda f, x: f.softplus_affine(*x.values())),
    "softplus_norm": _Call(_channels, lambda f, x: f.softplus_norm(*x.values())[0]),
    "stft": _Call(_line, lambda f, x: f.stft(x["waveform"], _FRAMING)),
    "stft_magnitude": _Call(_line, lambda f, x: f.stft_magnitude(x["waveform"], _FRAMING)),
}  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    with use_backend("triton"):
        done = check_operators(torch.device("cpu"), sys.argv[1:])
    print(json.dumps([asdict(each) for each in done]))
