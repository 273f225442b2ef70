"""No speed without a green check: what is measured is first held to the reference in float64."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sepfast import ops, reference
from sepfast.bench import plain, stepwise
from sepfast.bench.case import BESIDE, OWN_LAYER, Case, Output, Tensors, computed, demand
from sepfast.errors import InputError
from sepfast.ops.accuracy import Bound, largest, relative_error

Called = Callable[[Tensors], Output]

#: A yardstick need not be as exact as ours by this factor; it only must compute the same.
LENIENCE = 10


class WrongResult(InputError):
    """A function does not compute what it is measured for.

    Attributes:
        side: the side that the function is.
    """

    def __init__(self, case: object, side: str, what: str, error: float, most: float) -> None:
        super().__init__(f"{case}: {what} of {side} is off by {error:.2g}, takes {most:.2g}")
        self.side = side


@dataclass(frozen=True)
class Checked:
    """How a side did against the reference.

    Attributes:
        case: its name.
        side: the side.
        precision: what PyTorch's knob said.
        error: of the result, |out - ref64| / |ref64|.
        gradient_error: the largest of a gradient; 0 where none is verified.
        bound: what `error` had to stay below.
        gradient_bound: likewise.
        path: "triton", "pytorch" or "triton and pytorch".
        kernels: the kernels that ran.
    """

    case: str
    side: str
    precision: str
    error: float
    gradient_error: float
    bound: float
    gradient_bound: float
    path: str
    kernels: tuple[str, ...]


def side_function(case: Case, side: str) -> Called:
    """A side of a case as a function of its tensors, in the shape that is timed.

    Args:
        case: the case.
        side: "ours", "eager", "compiled", or one of the others that `sides` gives.
    """
    case, side = computed(case, side)
    package, shape = _package(case, side), case.shape

    def call(tensors: Tensors) -> Output:
        return case.call(package, tensors, shape)

    whole = side == "compiled" and not case.stepwise
    return torch.compile(call, dynamic=False) if whole else call


def compiles(case: Case, device: torch.device) -> bool:
    """Whether compiling a case, and calling it then, takes a share of the time that there is.

    Transforms take PyTorch's compiler minutes on a CPU; so do, anywhere, framings of many frames
    to a sample, whose overlap-add it writes out frame by frame. All contexts of a song in one
    batch are more than a CPU's cache holds. A recurrent step alone takes a quarter of a minute to
    compile on a CPU, in each of many cases. Random bits are ten rounds of products, which it writes
    out in all that follows: not done in five minutes on a CPU.
    """
    framing, on_gpu = case.shape.framing, device.type == "cuda"
    if case.batched or case.stepwise:
        return on_gpu
    return not case.random and (
        not case.transforms or (on_gpu and framing.span <= 16 * framing.hop)
    )


def sides(case: Case, compiled: bool = True, graph: bool = False) -> list[str]:
    """The sides of a case, "ours" first, "compiled" last; "graph" takes a GPU."""
    has = {"cufft": case.transforms, "batched": case.batched, "sdpa": case.sdpa}
    has |= {OWN_LAYER: case.own_layer, BESIDE: case.beside is not None}
    other = [side for side, there in has.items() if there]
    captured = ["graph"] if graph else []
    return ["ours", *captured, "eager", *other, *(["compiled"] if compiled else [])]


def _package(case: Case, side: str) -> Any:
    """Where a side's operators are."""
    if side == "compiled" and (case.batched or case.stepwise):
        return stepwise if case.stepwise else plain
    if side == "ours":
        return ops
    return plain if side in ("cufft", "batched", "sdpa", OWN_LAYER) else reference


def check(case: Case, side: str, device: torch.device) -> Checked:
    """Hold a side to the float64 reference on a small shape, result and gradients.

    Raises:
        WrongResult: where an error is above its bound; tenfold for sides other than ours.
    """
    torch.manual_seed(1)
    name, (case, own) = case.name, computed(case, side)
    shape = case.tiny()
    tensors = case.inputs(shape, device)
    package = _package(case, own)
    with launched() as kernels:
        out, grads = _evaluate(case, lambda x: case.call(package, x, shape), tensors)
    true, true_grads = _evaluate(
        case,
        lambda x: case.call(reference, x, shape),
        {name: x.cpu().double() for name, x in tensors.items()},
    )
    bound = case.bound()
    if side != "ours":
        bound = Bound(*(LENIENCE * number for number in bound))
    done = Checked(
        name,
        side,
        demand(),
        largest(map(relative_error, out, true)),
        largest(map(relative_error, grads, true_grads)),
        *bound,
        path_of(case, kernels),
        tuple(sorted(set(kernels))),
    )
    for what, error, most in (
        ("result", done.error, done.bound),
        ("gradient", done.gradient_error, done.gradient_bound),
    ):
        if not error <= most:  # NaN is wrong too
            raise WrongResult(name, side, what, error, most)
    return done


def agree(case: Case, functions: Mapping[str, Called], tensors: Tensors) -> None:
    """Hold the results of sides to that of one of them, "eager", in the shape that is timed.

    Args:
        case: the case.
        functions: the sides.
        tensors: what is timed.

    Raises:
        WrongResult: where one is off by more than a yardstick may be.
    """
    most = LENIENCE * case.bound().forward
    # With the gradients that are timed, so that what is compiled is compiled once.
    given = leaves_of(case, tensors) if case.gradient else tensors
    with torch.set_grad_enabled(case.gradient):
        true = as_tuple(functions["eager"](given))
    for side, function in functions.items():
        with torch.set_grad_enabled(case.gradient):
            out = as_tuple(function(given))
            other = computed(case, side)[0]
            right = true if other is case else as_tuple(side_function(other, "eager")(given))
        error = largest(map(relative_error, out, right))
        if not error <= most:
            raise WrongResult(case, side, "full-size result", error, most)


def leaves_of(case: Case, tensors: Tensors) -> Tensors:
    """The tensors, those whose gradient is verified as leaves of a graph."""
    return {
        name: x.detach().requires_grad_(name in case.differentiable) for name, x in tensors.items()
    }


def as_tuple(out: Output) -> tuple[Tensor, ...]:
    """A result as a tuple of tensors."""
    return (out,) if isinstance(out, Tensor) else out


def with_gradient(case: Case, function: Called, tensors: Tensors) -> Callable[[], Any]:
    """A call without arguments that gives the result, and the gradients where a case has them."""
    if not case.gradient:

        def forward() -> Output:
            with torch.no_grad():
                return function(tensors)

        return forward
    leaves = leaves_of(case, tensors)
    wanted = [leaves[name] for name in case.differentiable]
    incoming: list[Tensor] = []

    def both() -> Any:
        out = as_tuple(function(leaves))
        incoming.extend(map(_random, out) if not incoming else ())
        return torch.autograd.grad(out, wanted, incoming)

    return both


@contextmanager
def demanded(precision: str) -> Iterator[None]:
    """Set `torch.get_float32_matmul_precision()` within, for cuDNN's convolutions as well.

    PyTorch lets those round to TF32 whatever is demanded of matrix products, and yardsticks would
    compute something else than ours.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def launched() -> Iterator[list[str]]:
    """Collect the names of the kernels that run within."""
    names: list[str] = []
    possible = torch.cuda.is_available() or "triton" in sys.modules
    if not possible or importlib.util.find_spec("triton") is None:
        yield names
        return
    from sepfast.kernels.launch import Kernel

    launch = Kernel.launch

    def record(self: Kernel, *args: Any, **options: Any) -> None:
        names.append(self.name)
        launch(self, *args, **options)

    Kernel.launch = record  # type: ignore[method-assign]
    try:
        yield names
    finally:
        Kernel.launch = launch  # type: ignore[method-assign]


class Launching(Protocol):
    """What knows the kernels that it may launch."""

    @property
    def kernels(self) -> tuple[str, ...]: ...


def path_of(case: Launching, kernels: list[str]) -> str:
    """Of all that a case times: "triton", "pytorch" or "triton and pytorch"."""
    expected = {f"sepfast_{name}" for name in case.kernels}
    if not kernels:
        return "pytorch"
    return "triton" if expected <= set(kernels) else "triton and pytorch"


def _evaluate(
    case: Case, function: Called, tensors: Tensors
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Results and gradients."""
    leaves = leaves_of(case, tensors)
    out = as_tuple(function(leaves))
    reached = [x for x in out if x.requires_grad]
    wanted = [leaves[name] for name in case.differentiable]
    if not wanted:
        return out, ()
    return out, torch.autograd.grad(reached, wanted, [_incoming(x) for x in reached])


def _incoming(out: Tensor) -> Tensor:
    """A gradient for a result, the same numbers in every type and place."""
    if out.ndim == 0:
        return torch.ones_like(out)
    generator = torch.Generator().manual_seed(7)
    return torch.randn(out.shape, generator=generator).to(out)


def _random(out: Tensor) -> Tensor:
    """The same where numbers do not matter: made on the device, and quickly."""
    return torch.randn_like(out) if out.ndim else torch.ones_like(out)
