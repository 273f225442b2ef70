"""Forward mode through every operator: refused and never 0, and PyTorch takes it in their place."""

import pytest
import torch
from contract import TINY, evaluate, incoming, leaves_of
from contract_cases import CASES
from torch.autograd import forward_ad

from sepfast import InputError, ops, reference

pytestmark = [
    pytest.mark.parametrize("case", CASES, ids=str),
    pytest.mark.usefixtures("one_thread"),
]


# What PyTorch itself warns of where it first meets forward mode.
_forward_mode = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning",
    "ignore:Attempted to insert a get_attr Node:UserWarning:torch.fx",
)


@_forward_mode
@pytest.mark.parametrize(
    "derivative",
    [
        pytest.param(lambda f, x: torch.func.jvp(f, (x,), (x,)), id="jvp"),
        pytest.param(lambda f, x: torch.func.linearize(f, x)[1](x), id="linearize"),
        pytest.param(lambda f, x: torch.func.jacfwd(f)(x), id="jacfwd"),
        pytest.param(lambda f, x: torch.func.jacrev(f)(x), id="jacrev"),
        pytest.param(lambda f, x: torch.func.hessian(f)(x), id="hessian"),
        pytest.param(lambda f, x: _dual(f, x), id="dual"),
        pytest.param(lambda f, x: _dual(f, x.requires_grad_()), id="dual-leaf"),
    ],
)
def test_forward_mode_is_refused(case, derivative):
    tensors = case.make(rows=1, size=case.tiny, framing=TINY)
    for name in tensors:

        def function(x, name=name):
            return case.call(ops, tensors | {name: x}, TINY)

        with pytest.raises(InputError, match=f"^{case.operator}: has no |requires a gradient"):
            derivative(function, tensors[name].clone())


@_forward_mode
def test_forward_mode_of_the_gradient_is_refused(case):
    leaves = leaves_of(case, case.make(rows=1, size=case.tiny, framing=TINY))
    out = case.call(ops, leaves, TINY)
    inputs = [leaves[name] for name in case.differentiable]
    with pytest.raises(InputError, match=r"_backward: has no forward-mode derivative"):
        _dual(lambda grad: torch.autograd.grad(out, inputs, grad)[0], incoming(out))


@_forward_mode
def test_plain_pytorch_takes_forward_mode_in_its_place(case):
    tensors = case.make(rows=1, size=case.tiny, dtype=torch.float64, framing=TINY)
    inputs = tuple(tensors[name] for name in case.differentiable)

    def function(*args):
        named = zip(case.differentiable, args, strict=True)
        return case.call(reference, tensors | dict(named), TINY)

    tangents = tuple(map(torch.randn_like, inputs))
    out, tangent = torch.func.jvp(function, inputs, tangents)
    result = evaluate(case, tensors, framing=TINY)  # the gradient by hand
    backward = sum((g * t).sum() for g, t in zip(result.grads, tangents, strict=True))
    torch.testing.assert_close((incoming(out) * tangent).sum(), backward)


def _dual(function, x):
    with forward_ad.dual_level():
        return function(forward_ad.make_dual(x, torch.ones_like(x)))
