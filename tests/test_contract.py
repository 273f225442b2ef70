"""The contract of every operator, one test or more for each of its ten lines.

The tenth, names, is in `test_contract_names.py`; that forward mode is refused in
`test_contract_forward_mode.py`.

The kernels run in Triton's interpreter, or on a GPU where there is one; every result they are
given to write is NaN before and lies between guards.
"""

from contextlib import contextmanager

import pytest
import torch
from conftest import require_kernels
from contract import (
    FRAMING,
    LAYOUTS,
    TINY,
    PoisonedMemory,
    calls_of,
    errors,
    evaluate,
    incoming,
    launches,
    lay_out,
    leaves_of,
    small_blocks,
    true_result,
)
from contract_cases import CASES
from torch import library

from sepfast import InputError, ops, reference
from sepfast.ops.accuracy import ACCURACY

SIZES = [1, 15, 17, 250, 513]
HALVES = [torch.float16, torch.bfloat16]
EPS = torch.finfo(torch.float32).eps

pytestmark = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors on a busy machine; and the knobs of the process as they were."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


@pytest.fixture
def kernels(kernel_device, monkeypatch):
    """Operators run kernels, on the device that this gives."""
    with _kernels_on(kernel_device, monkeypatch):
        yield kernel_device


@pytest.fixture(
    params=[
        ("reference", "cpu"),
        ("triton", "cpu"),
        pytest.param(("triton", "cuda"), marks=pytest.mark.gpu),
    ],
    ids="-".join,
)
def place(request, monkeypatch):
    """Operators run PyTorch, then kernels, on the device that this gives."""
    backend, device = request.param
    if backend == "reference":
        with ops.use_backend("reference"):
            yield device
    else:
        with _kernels_on(require_kernels(device), monkeypatch):
            yield device


@contextmanager
def _kernels_on(device, monkeypatch):
    memory = PoisonedMemory()
    monkeypatch.setattr("sepfast.kernels.launch.empty", memory)
    if device == "cpu":
        monkeypatch.setattr("sepfast.kernels.launch.lookup", small_blocks)
    with ops.use_backend("triton"):
        yield
    assert memory.guards_hold()


def _bound(case, precision="highest"):
    return ACCURACY[case.operator][precision]


def _assert_close(result, true, forward, backward=None):
    out, grad = errors(result, true)
    assert out <= forward
    assert grad <= (forward if backward is None else backward)


# 1. Registration


def test_1_opcheck_with_pytorch(case):
    _opcheck(case, "cpu", _OPCHECKS)


def test_1_opcheck_with_kernels(case, kernels, monkeypatch):
    monkeypatch.setattr(PoisonedMemory, "guard", 0)  # opcheck knows no results inside a larger one
    # Registration and tracing do not depend on what runs inside.
    _opcheck(case, kernels, _OPCHECKS[:2])


_OPCHECKS = (
    "test_schema",
    "test_faketensor",
    "test_autograd_registration",
    "test_aot_dispatch_dynamic",
)


def _opcheck(case, device, checks):
    for call in calls_of(case, case.make(size=17, device=device)):
        differentiable = call.name == case.operator  # what is a gradient already has none
        library.opcheck(call.operator, _own(call.args, differentiable), test_utils=checks)


def _own(args, differentiable):
    """Arguments that belong to no graph, for opcheck to differentiate where one required it."""
    return tuple(
        x.detach().clone().requires_grad_(differentiable and x.requires_grad)
        if isinstance(x, torch.Tensor)
        else x
        for x in args
    )


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_1_compiles_in_one_graph(case, dynamic):
    tensors = case.make()
    torch._dynamo.reset()
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    result = evaluate(case, tensors, function=compiled)
    eager = evaluate(case, tensors)
    assert torch.equal(result.out, eager.out)
    assert all(map(torch.equal, result.grads, eager.grads))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_1_exports(case, dynamic):
    tensors = case.make(rows=3, size=37, framing=TINY)
    names = list(tensors)

    class Module(torch.nn.Module):
        def forward(self, *args):
            return case.call(ops, dict(zip(names, args, strict=True)), TINY)

    axes = tuple(dict.fromkeys(range(x.ndim), torch.export.Dim.AUTO) for x in tensors.values())
    exported = torch.export.export(
        Module(), tuple(tensors.values()), dynamic_shapes=(axes,) if dynamic else None
    )
    if dynamic:
        tensors = case.make(rows=2, size=53, framing=TINY)
    expected = case.call(ops, tensors, TINY)
    assert torch.equal(exported.module()(*tensors.values()), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel_device", ["cuda"], indirect=True)
def test_1_replays_in_a_cuda_graph(case, kernel_device):
    first, second = (leaves_of(case, case.make(device="cuda", seed=seed)) for seed in (0, 1))
    with ops.use_backend("triton"):
        expected = evaluate(case, second)
        grad = incoming(expected.out)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            evaluate(case, first, grad)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            replayed = evaluate(case, first, grad)
        with torch.no_grad():
            for name, x in first.items():
                x.copy_(second[name])
        graph.replay()
    assert torch.equal(replayed.out, expected.out)
    assert all(map(torch.equal, replayed.grads, expected.grads))


# 2. Gradients


def test_2_the_derived_gradient_is_that_of_finite_differences(case):
    tensors = case.make(rows=2, size=case.tiny, dtype=torch.float64, framing=TINY)
    # Away from the kinks, which differences would straddle.
    tensors = {name: x + 0.2 * x.sign() for name, x in tensors.items()}
    names = case.differentiable + case.unstable

    def function(*args):
        return case.call(ops, tensors | dict(zip(names, args, strict=True)), TINY)

    inputs = [tensors[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(function, inputs)


def test_2_the_kernels_gradient_is_the_references(case, kernels):
    tensors = case.make(device=kernels)
    _, grad = errors(evaluate(case, tensors), true_result(case, tensors))
    assert grad <= _bound(case).backward


def test_2_a_second_differentiation_is_refused(case, place):
    leaves = leaves_of(case, case.make(device=place))
    out = case.call(ops, leaves, FRAMING)
    grad = incoming(out).requires_grad_()
    inputs = [leaves[name] for name in case.differentiable]
    first = torch.autograd.grad(out, inputs, grad, create_graph=True)
    with pytest.raises(InputError, match="can be differentiated once"):
        torch.autograd.grad(first[0].sum(), [*inputs, grad], allow_unused=True)


# 3. Layouts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_3_layouts_of_inputs_and_incoming_gradients_change_nothing(case, place, layout):
    tensors = {name: lay_out(layout, x) for name, x in case.make(device=place).items()}
    before = {name: x.clone() for name, x in tensors.items()}
    grad = lay_out(layout, incoming(case.call(reference, tensors, FRAMING)))
    result = evaluate(case, tensors, grad)
    _assert_close(result, true_result(case, tensors, grad), *_bound(case))
    assert all(x.is_contiguous() for x in (result.out, *result.grads))
    assert all(torch.equal(x, before[name]) for name, x in tensors.items())


# 4. The same bits again


def test_4_the_backward_is_repeatable_bit_by_bit(case, kernels):
    tensors = case.make(device=kernels)
    first, second = (evaluate(case, tensors) for _ in range(2))
    assert torch.equal(first.out, second.out)
    assert all(map(torch.equal, first.grads, second.grads))


# 5. What is refused


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda x: x.to("meta"), id="device"),
        pytest.param(lambda x: x.double(), id="type"),
    ],
)
def test_5_mixed_devices_and_types_are_refused_by_name(case, broken):
    for call in calls_of(case, case.make()):
        first, *others = call.tensors
        for at in others:
            sentence = _refusal(call.operator, call.replaced(at, broken(call.args[at])))
            assert sentence.startswith(f"{call.name}: {call.tensors[at]} is torch.float")
            assert sentence.endswith(f"takes torch.float32 on cpu as {call.tensors[first]}")


def test_5_integers_are_refused_by_name(case):
    tensors = case.make()
    sentence = _refusal(case.call, (ops, {n: x.int() for n, x in tensors.items()}, FRAMING))
    assert sentence == f"{case.operator}: {next(iter(tensors))} is torch.int32, takes real floats"


def test_5_there_are_no_kernels_for_float64(case, kernels):
    tensors = case.make(dtype=torch.float64, device=kernels)
    assert "no kernels for torch.float64" in _refusal(case.call, (ops, tensors, FRAMING))


def _refusal(function, args):
    with pytest.raises(InputError) as refusal:
        function(*args)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    return sentence


# 6. Sizes


@pytest.mark.parametrize("size", SIZES)
def test_6_every_size_works(case, kernels, size):
    tensors = case.make(size=size, device=kernels)
    _assert_close(evaluate(case, tensors), true_result(case, tensors), *_bound(case))


@pytest.mark.gpu
@pytest.mark.parametrize("kernel_device", ["cuda"], indirect=True)
def test_6_large_sizes_work(case, kernels):
    test_6_every_size_works(case, kernels, 70_001)


def test_6_a_batch_of_none_is_a_result_of_none(case, place):
    tensors = case.make(rows=0, device=place)
    result = evaluate(case, tensors)
    assert result.out.shape == case.call(reference, tensors, FRAMING).shape
    assert not result.out.any()
    assert [x.shape for x in result.grads] == [tensors[n].shape for n in case.differentiable]


# 7. Silence


def test_7_silence_is_not_nan(case, place):
    tensors = case.make(device=place)
    for silent in [list(tensors), *([name] for name in case.differentiable + case.unstable)]:
        hushed = {n: torch.zeros_like(x) if n in silent else x for n, x in tensors.items()}
        result = evaluate(case, hushed)
        assert all(x.isfinite().all() for x in (result.out, *result.grads)), silent


# 8. Precision


@pytest.mark.parametrize(
    ("demand", "given"), [("highest", {"tf32x3", "ieee"}), ("high", {"tf32"}), ("medium", {"tf32"})]
)
def test_8_matrix_products_are_as_exact_as_pytorch_is_told(case, kernels, demand, given):
    torch.set_float32_matmul_precision(demand)
    with launches() as launched:
        evaluate(case, case.make(device=kernels))
    assert launched
    found = {launch.constants.get("PRECISION") for launch in launched}
    if case.dots:
        assert found
        assert found <= given
    else:
        assert found == {None}


def test_8_autocast_lowers_products_and_widens_the_rest(case, place):
    given, taken = (torch.float32, torch.bfloat16)[:: 1 if case.lowers else -1]
    tensors = case.make(dtype=given, device=place)
    with torch.autocast(place, torch.bfloat16):
        result = evaluate(case, tensors)
    assert result.out.dtype == taken
    assert all(x.dtype == given for x in result.grads)
    bound = 4 * torch.finfo(torch.bfloat16).eps if case.lowers else _bound(case).forward
    assert errors(result, true_result(case, tensors))[0] <= bound


def test_8_autocast_leaves_float64_alone(case):
    tensors = case.make(dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluate(case, tensors).out.dtype == torch.float64


@pytest.mark.parametrize("dtype", HALVES)
def test_8_half_types_give_half_types(case, place, dtype):
    tensors = case.make(dtype=dtype, device=place)
    result = evaluate(case, tensors)
    assert result.out.dtype == (torch.float32 if case.widens else dtype)
    assert all(x.dtype == dtype for x in result.grads)
    true = true_result(case, tensors, incoming(result.out))
    _assert_close(result, true, 4 * torch.finfo(dtype).eps)


# 9. Accuracy


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_9_errors_are_within_the_table(case, kernels, precision):
    if kernels == "cpu" and precision != "highest":
        pytest.skip("the interpreter takes every product in float32")
    torch.set_float32_matmul_precision(precision)
    tensors = case.make(size=250, device=kernels)
    _assert_close(evaluate(case, tensors), true_result(case, tensors), *_bound(case, precision))


def test_9_float32_is_no_worse_than_twice_pytorchs_own(case, kernels):
    torch.set_float32_matmul_precision("highest")
    tensors = case.make(size=250, device=kernels)
    true = true_result(case, tensors)
    plain = errors(evaluate(case, tensors, package=reference), true)
    # The rounding of the result itself is no worse, however lucky PyTorch's was.
    _assert_close(evaluate(case, tensors), true, *(max(2 * error, EPS) for error in plain))
