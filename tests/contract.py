"""How the shared contract test runs an operator; `contract_cases.py` has the operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sepfast import ops, reference
from sepfast.reference import Framing

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
    error = distance / scale if scale else distance
    return float("inf") if error != error else error  # NaN, which `max` would lose


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
