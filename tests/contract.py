"""What the shared contract test knows of each operator, and how it is run.

A new operator is a `Case` in `CASES`; every line of the contract is then checked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sepfast import ops, reference
from sepfast.reference import Framing, Levels, LossWeights

Tensors = dict[str, Tensor]

#: Small enough for the interpreter; the smallest that the kernels transform.
FRAMING = Framing(256, 64, front=128, rule="ceil+2")
#: Smaller still, for gradients by finite differences in PyTorch.
TINY = Framing(16, 4, front=8, rule="ceil+2")


@dataclass(frozen=True)
class Case:
    """An operator and one way to call it.

    Attributes:
        operator: its name.
        inputs: takes rows (the batch), a size and a framing; gives random tensors by name, in
            float64, the operator's first argument first.
        call: takes `sepfast.ops` or `sepfast.reference`, such tensors and a framing; gives the
            result.
        differentiable: the tensors that have a gradient; the others are constants.
        unstable: tensors that have one too, but with a slope that divides by what may be next to
            nothing: it is held to finite differences alone.
        variant: what sets this case apart from others of the operator.
        dots: whether its kernels multiply matrices.
        size: the size where none is asked for.
        tiny: the size for finite differences.
        rows: the batch where none is asked for.
        widens: whether half types give float32.
        lowers: whether autocast lowers its type.
    """

    operator: str
    inputs: Callable[[int, int, Framing], Tensors]
    call: Callable[[Any, Tensors, Framing], Tensor]
    differentiable: tuple[str, ...]
    unstable: tuple[str, ...] = ()
    variant: str = ""
    dots: bool = False
    size: int = 37
    tiny: int = 3
    rows: int = 3
    widens: bool = False
    lowers: bool = False

    def __str__(self) -> str:
        return "-".join(filter(None, (self.operator, self.variant)))

    def make(
        self,
        rows: int | None = None,
        size: int = 0,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        framing: Framing = FRAMING,
        seed: int = 0,
    ) -> Tensors:
        """Random inputs; of so many rows and such a size, or of the case's own."""
        torch.manual_seed(seed)
        made = self.inputs(self.rows if rows is None else rows, size or self.size, framing)
        return {name: x.to(device, dtype) for name, x in made.items()}


class Result(NamedTuple):
    """What a call gave.

    Attributes:
        out: the result.
        grads: a gradient for each of the case's differentiable tensors.
    """

    out: Tensor
    grads: tuple[Tensor, ...]


def evaluate(
    case: Case,
    tensors: Mapping[str, Tensor],
    grad: Tensor | None = None,
    *,
    package: Any = ops,
    framing: Framing = FRAMING,
    function: Callable[..., Tensor] | None = None,
) -> Result:
    """Run a case forward and backward.

    Args:
        case: the case.
        tensors: its inputs.
        grad: the incoming gradient; `incoming` where None.
        package: `sepfast.ops` or `sepfast.reference`.
        framing: the framing.
        function: what to call in place of `case.call`, such as it compiled.
    """
    leaves = leaves_of(case, tensors)
    out = (function or case.call)(package, leaves, framing)
    grad = incoming(out) if grad is None else grad
    grads = torch.autograd.grad(out, [leaves[name] for name in case.differentiable], grad)
    return Result(out.detach(), grads)


def leaves_of(case: Case, tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors, those that have a gradient as leaves of a graph."""
    return {
        name: x.detach().requires_grad_(name in case.differentiable) for name, x in tensors.items()
    }


def incoming(out: Tensor) -> Tensor:
    """A random gradient for a result, the same in every type."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)


def true_result(case: Case, tensors: Mapping[str, Tensor], grad: Tensor | None = None) -> Result:
    """The reference in float64 for the very numbers of some inputs."""
    wide = {name: x.cpu().double() for name, x in tensors.items()}
    return evaluate(case, wide, None if grad is None else grad.cpu().double(), package=reference)


def errors(result: Result, true: Result) -> tuple[float, float]:
    """The relative error of the result, and the largest of a gradient."""
    return _error(result.out, true.out), max(map(_error, result.grads, true.grads))


def _error(out: Tensor, true: Tensor) -> float:
    assert out.shape == true.shape
    scale = float(true.double().norm())
    distance = float((out.cpu().double() - true.cpu().double()).norm())
    return distance / scale if scale else distance


# Layouts: one tensor's numbers, laid out in memory in another way.


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.ndim > 1 else _sliced(x)


def _sliced(x: Tensor) -> Tensor:
    """Every second element of the last axis, NaN between them."""
    wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1] + 1), torch.nan)
    wide[..., 1::2] = x
    return wide[..., 1::2]


def _expanded(x: Tensor) -> Tensor:
    """The first of the first axis that has several, stride 0 along it."""
    axis = next((axis for axis in range(x.ndim) if x.shape[axis] > 1), 0)
    return x.narrow(axis, 0, 1).expand_as(x)


def _shifted(x: Tensor) -> Tensor:
    """Contiguous, NaN before and behind, and off the alignment of the allocator."""
    line = x.new_full((x.numel() + 130,), torch.nan)
    inside = line[65 : 65 + x.numel()]
    inside.copy_(x.flatten())
    return inside.view(x.shape)


LAYOUTS = {
    "transposed": _transposed,
    "sliced": _sliced,
    "expanded": _expanded,
    "shifted": _shifted,
}


def lay_out(layout: str, x: Tensor) -> Tensor:
    """A tensor in a layout; scalars have one only."""
    return LAYOUTS[layout](x) if x.ndim else x


# What happens inside


class Call(NamedTuple):
    """One call of an operator below autograd.

    Attributes:
        operator: the overload.
        args: its arguments.
    """

    operator: Any
    args: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The operator's name."""
        return self.operator._schema.name.split("::")[1]

    @property
    def tensors(self) -> dict[int, str]:
        """Position -> name of the arguments that are tensors with axes."""
        names = [argument.name for argument in self.operator._schema.arguments]
        return {at: names[at] for at, x in enumerate(self.args) if isinstance(x, Tensor) and x.ndim}

    def replaced(self, at: int, value: Any) -> tuple[Any, ...]:
        """The arguments with another one at a position."""
        return (*self.args[:at], value, *self.args[at + 1 :])


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "sepfast":
            self.calls.append(Call(func, args))
        return func(*args, **(kwargs or {}))


def calls_of(case: Case, tensors: Mapping[str, Tensor]) -> list[Call]:
    """All calls of operators, forward and backward, that a case makes."""
    with _Recorder() as recorder:
        evaluate(case, tensors)
    return recorder.calls


class Launch(NamedTuple):
    """One launch of a kernel.

    Attributes:
        kernel: its name.
        constants: its compile-time arguments.
    """

    kernel: str
    constants: Mapping[str, Any]


@contextmanager
def launches() -> Iterator[list[Launch]]:
    """Collect launches instead of running them."""
    from sepfast.kernels.launch import Kernel

    collected: list[Launch] = []

    def collect(self: Kernel, programs: int, *args: Any, **constants: Any) -> None:
        collected.append(Launch(self.name, constants))

    launched = Kernel.launch
    Kernel.launch = collect
    try:
        yield collected
    finally:
        Kernel.launch = launched


def small_blocks(kernel: str, device: torch.device, **key: Any) -> dict[str, int]:
    """Stands in for `launch.lookup`: blocks so small that few numbers take several programs."""
    from sepfast.kernels.tuning import lookup

    small = {"BLOCK": 64, "BLOCKS": 1, "FRAMES": 4}
    return {name: small.get(name, value) for name, value in lookup(kernel, device, **key).items()}


def blocks_of(**sizes: int) -> Callable[..., dict[str, int]]:
    """Stands in for `launch.lookup`: what is shipped, but for these block sizes."""
    from sepfast.kernels.tuning import lookup

    def stand_in(kernel: str, device: torch.device, **key: Any) -> dict[str, int]:
        config = lookup(kernel, device, **key)
        return {name: sizes.get(name, value) for name, value in config.items()}

    return stand_in


class PoisonedMemory:
    """Stands in for `launch.empty`: every result is NaN, between guards that must stay NaN."""

    guard = 64

    def __init__(self) -> None:
        self._lines: list[Tensor] = []

    def __call__(self, shape: Any, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        size, guard = torch.Size(shape).numel(), self.guard
        line = like.new_full((size + 2 * guard,), torch.nan, dtype=dtype or like.dtype)
        self._lines.append(line)
        return line[guard : guard + size].view(*shape)

    def guards_hold(self) -> bool:
        """Whether nothing was written before or behind a result."""
        ends = [end for x in self._lines for end in (x[: self.guard], x[len(x) - self.guard :])]
        return all(bool(end.isnan().all()) for end in ends)


# The operators


def _estimates(rows: int, size: int, framing: Framing) -> Tensors:
    return {"estimates": torch.randn(rows, 3, size, dtype=torch.float64)}


def _loss_inputs(rows: int, size: int, framing: Framing) -> Tensors:
    y, t = torch.randn(2, rows, 4, size, dtype=torch.float64)
    return {
        "estimates": y,
        "mixture": torch.rand(rows, size, dtype=torch.float64),
        "targets": t.abs(),
    }


def _loss(reading: Any, *weights: float) -> Case:
    chosen = LossWeights(*weights, reading=reading)
    return Case(
        "soft_mask_loss",
        _loss_inputs,
        lambda f, x, framing: f.soft_mask_loss(x["estimates"], x["mixture"], x["targets"], chosen),
        ("estimates",),
        variant="-".join(map(str, (reading, *weights))),
        widens=True,
    )


def _linear_loss_inputs(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` bins; a source is loud or silent at a bin, and the ReLU clear of its kink."""
    shapes = (rows, 3, 2, 5), (3, 5, 2, size), (rows, 2, 2, size), (rows, 3, 2, 2, size)
    h, w, x, t = (torch.rand(shape, dtype=torch.float64) for shape in shapes)
    sign = torch.where(torch.rand(3, 1, 2, size) < 0.3, -1, 1)
    bias = torch.rand(3, 2, dtype=torch.float64) - 0.5
    weight = (w + 0.5) * sign
    return {"features": h + 0.5, "weight": weight, "bias": bias, "mixture": x, "targets": t}


def _linear_loss(reading: Any, *weights: float) -> Case:
    chosen = LossWeights(*weights, reading=reading)
    return Case(
        "linear_soft_mask_loss",
        _linear_loss_inputs,
        lambda f, x, framing: f.linear_soft_mask_loss(*x.values(), chosen),
        ("features", "weight", "bias"),
        variant="-".join(map(str, (reading, *weights))),
        dots=True,
        widens=True,
    )


def _line(rows: int, size: int, framing: Framing) -> Tensors:
    return {"waveform": torch.randn(rows, size, dtype=torch.float64)}


def _scaled_lines(rows: int, size: int, framing: Framing) -> Tensors:
    return {
        "waveform": torch.randn(rows, 2, size, dtype=torch.float64),
        "scale": torch.rand(2, 1, framing.bins, dtype=torch.float64) + 0.5,
        "offset": torch.randn(framing.bins, dtype=torch.float64),
    }


def _spectrum(rows: int, size: int, framing: Framing) -> Tensors:
    shape = (rows, framing.frames(size), framing.bins, 2)
    return {"spectrum": torch.randn(shape, dtype=torch.float64)}


def _shares(rows: int, size: int, framing: Framing) -> Tensors:
    shape = (rows, 3, 2, framing.frames(size), framing.bins)
    return {
        "shares": torch.rand(shape, dtype=torch.float64),
        "waveform": torch.randn(rows, 2, size, dtype=torch.float64),
    }


def _levelled_shares(rows: int, size: int, framing: Framing) -> Tensors:
    return {
        **_shares(rows, size, framing),
        "gain": torch.rand(3, 2, 1, framing.bins, dtype=torch.float64) + 0.5,
        "floor": torch.rand(2, 1, framing.bins, dtype=torch.float64),
        "base": torch.rand(3, 2, 1, framing.bins, dtype=torch.float64),
    }


def _istft(f: Any, x: Tensors, framing: Framing) -> Tensor:
    # Short of the last frame's end, and odd.
    return f.istft(x["spectrum"], framing, (x["spectrum"].shape[-3] - 1) * framing.hop - 3)


def _masked_istft(f: Any, x: Tensors, framing: Framing) -> Tensor:
    levels = Levels(x["gain"], x["floor"], x["base"]) if "gain" in x else None
    return f.masked_istft(x["shares"], x["waveform"], framing, levels)


def _pair(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` bins, that its filters span."""
    return _random(
        x=(rows, 2, 5, size), vertical=(3, 2, 1, size), vertical_bias=(3,),
        horizontal=(2, 3, 3, 1), horizontal_bias=(2,),
    )  # fmt: skip


def _deconv_pair(rows: int, size: int, framing: Framing) -> Tensors:
    return _random(
        codes=(rows, 3, 2, 3, 1), horizontal=(3, 2, 4, 3, 1), horizontal_bias=(3, 4),
        vertical=(3, 4, 2, 1, size), vertical_bias=(3, 2),
    )  # fmt: skip


def _horizontal_deconv(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` features."""
    return _random(codes=(rows, 3, 2, 3), weight=(3, 2, size, 3), bias=(3, size))


def _random(**shapes: tuple[int, ...]) -> Tensors:
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def _of_all(operator: str, inputs: Callable[[int, int, Framing], Tensors]) -> Case:
    """A product of tensors, which are its arguments and all have a gradient."""
    names = tuple(inputs(1, 1, FRAMING))
    return Case(
        operator,
        inputs,
        lambda f, x, framing: getattr(f, operator)(*x.values()),
        names,
        dots=True,
        rows=2,
        lowers=True,
    )


def _overlap_decode_inputs(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` bins; a source is loud or silent at a bin, and the ReLU clear of its kink."""
    shapes = {
        "codes": (rows, 3, 2, 3),
        "horizontal": (3, 2, 5, 3),
        "horizontal_bias": (3, 5),
        "vertical": (3, 5, 2, size),
        "vertical_bias": (3, 2),
        "fades": (rows, 5),
    }
    made = {n: torch.rand(shape, dtype=torch.float64) + 0.5 for n, shape in shapes.items()}
    made["vertical"] *= torch.where(torch.rand(3, 1, 2, size) < 0.3, -1, 1)
    return made


def _attention(rows: int, size: int, framing: Framing) -> Tensors:
    """Of `size` frames of memory, with scores of about 1."""
    made = _random(query=(rows, 5, 7), memory=(rows, size, 6), weight=(7, 6))
    made["weight"] *= 0.15
    return made


CASES = [
    Case(
        "bilinear_attention",
        _attention,
        lambda f, x, framing: torch.cat(f.bilinear_attention(*x.values()), -1),
        ("query", "memory", "weight"),
        dots=True,
        lowers=True,
    ),
    _of_all("conv_pair", _pair),
    _of_all("deconv_pair", _deconv_pair),
    _of_all("horizontal_deconv", _horizontal_deconv),
    Case(
        "soft_mask",
        _estimates,
        lambda f, x, framing: f.soft_mask(x["estimates"], -2),
        ("estimates",),
    ),
    _loss("code"),
    _loss("code", 0.5, 0.7, 0.9),  # negative before its absolute value
    _loss("paper", 0.1, 0.2, 0.3),
    _linear_loss("code"),
    _linear_loss("paper", 0.1, 0.2, 0.3),
    Case(
        "stft",
        _line,
        lambda f, x, framing: f.stft(x["waveform"], framing),
        ("waveform",),
        dots=True,
        tiny=9,
        rows=2,
    ),
    Case("istft", _spectrum, _istft, ("spectrum",), dots=True, rows=2),
    Case(
        "stft_magnitude",
        _line,
        lambda f, x, framing: f.stft_magnitude(x["waveform"], framing),
        ("waveform",),
        dots=True,
        tiny=9,
        rows=2,
    ),
    Case(
        "stft_magnitude",
        _scaled_lines,
        lambda f, x, framing: f.stft_magnitude(
            x["waveform"], framing, power=0.7, scale=x["scale"], offset=x["offset"]
        ),
        ("waveform",),
        variant="scaled",
        dots=True,
        tiny=9,
        rows=1,
    ),
    Case("masked_istft", _shares, _masked_istft, ("shares", "waveform"), dots=True, rows=1),
    Case(
        "overlap_decode",
        _overlap_decode_inputs,
        # Frames first: one gradient for all sources would be a gradient of nothing.
        lambda f, x, framing: f.overlap_decode(*x.values(), 2).transpose(0, 2).contiguous(),
        ("codes", "horizontal", "horizontal_bias", "vertical", "vertical_bias"),
        dots=True,
    ),
    Case(
        "masked_istft",
        _levelled_shares,
        _masked_istft,
        ("shares",),
        unstable=("waveform",),
        variant="levels",
        dots=True,
        rows=1,
    ),
]
