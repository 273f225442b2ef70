"""The operator `lstm` and its fused layer: ends of sequences, memory, types, what is refused."""

import pytest
import torch
from conftest import assert_near, kernels_on, noise, require_kernels
from contract import blocks_of, launches
from test_lstm import made

import sepfast
from sepfast import InputError, fuse, modules, ops, reference, unfuse
from sepfast.reference import lstm

NAMES = ("input", "weight", "recurrent", "bias", "peephole", "lengths", "hidden", "cell")
RESULTS = ("output", "last output", "last cell")


def outcome(function, args, used=RESULTS, **options):
    """Results, and the gradients of all floats from random ones of the results that are used."""
    leaves = [
        x.detach().requires_grad_() if x is not None and x.is_floating_point() else x for x in args
    ]
    results = function(*leaves, **options)
    pairs = [
        (x, noise(*x.shape, seed=seed).to(x))
        for seed, (name, x) in enumerate(zip(RESULTS, results, strict=True))
        if name in used
    ]
    asked = [x for x in leaves if x is not None and x.requires_grad]
    grads = torch.autograd.grad([x for x, _ in pairs], asked, [g for _, g in pairs])
    return results, grads


def check(place, args, used=RESULTS, **options):
    """An operator's results and gradients against the reference in float64."""
    put = [x if x is None else x.to(place.device) for x in args]
    put = [x if x is None or x.dtype == torch.int64 else place.put(x) for x in put]
    wide = [x if x is None else x.cpu() for x in put]
    wide = [x.double() if x is not None and x.is_floating_point() else x for x in wide]
    true, true_grads = outcome(lstm, wide, used)
    out, found = outcome(ops.lstm, put, used, **options)
    for stage, some, others in (("forward", out, true), ("backward", found, true_grads)):
        for x, expected in zip(some, others, strict=True):
            assert_near(x, expected, place.bound("lstm", stage))
    return out, found


@pytest.mark.parametrize("without", ["", "peephole", "lengths", "states", "bias"])
@pytest.mark.parametrize("directions", [1, 2])
def test_any_of_the_options_may_be_left_out(place, directions, without):
    check(place, made(batch=4, directions=directions, without=(without,) if without else ()))


def test_plain_cells(place):
    check(place, made(without=("peephole", "lengths", "states", "bias")))


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_padding_touches_nothing(place, recompute):
    args = made(batch=4)
    behind = torch.arange(5)[None] >= args[5][:, None]
    clean = args[0].masked_fill(behind[..., None], 0)
    expected, of_clean = check(place, [clean, *args[1:]], recompute=recompute)
    args[0] = args[0].masked_fill(behind[..., None], torch.nan)
    put = [x.to(place.device) if x.dtype == torch.int64 else place.put(x) for x in args]
    out, grads = outcome(ops.lstm, put, recompute=recompute)
    for x, y in zip((*out, *grads), (*expected, *of_clean), strict=True):
        assert torch.equal(x, y)
    assert not out[0][behind.to(place.device)].any()
    assert not grads[0][behind.to(place.device)].any()


@pytest.mark.parametrize("used", RESULTS)
def test_results_may_go_unused(place, used):
    check(place, made(batch=4), (used,))


@pytest.mark.parametrize("lengths", [[0, 0], [5, 5], [-3, 9]], ids=str)
def test_lengths_at_and_beyond_the_ends(place, lengths):
    args = made(batch=2)
    args[5] = torch.tensor(lengths)
    check(place, args)


@pytest.mark.parametrize(("batch", "size"), [(1, 1), (17, 2), (33, 5)])
def test_batches_of_several_programs(place, batch, size):
    check(place, made(batch=batch, steps=2, size=size))


def test_units_in_several_tiles(place, monkeypatch):
    monkeypatch.setattr("sepfast.kernels.launch.lookup", blocks_of(UNITS=16, DEPTH=16))
    check(place, made(steps=3, size=37, scale=0.2))


def test_large_sizes_take_a_launch_a_step(place, monkeypatch):
    monkeypatch.setattr("sepfast.kernels.launch.lookup", blocks_of(UNITS=16, DEPTH=16))
    monkeypatch.setattr("sepfast.kernels.lstm._ONE_LAUNCH", 20)
    check(place, made(steps=3, size=21, scale=0.2))
    if place.dtype == torch.float32:
        args = [x if x.dtype == torch.int64 else place.put(x) for x in made(steps=3, size=21)]
        with launches() as collected:
            ops.lstm(*(x.to(place.device) for x in args))
        assert len(collected) == 3


def test_saturated_gates_stay_finite(place):
    """A tanh written with exp alone is NaN below -44, and exp overflows at 89."""
    args = made(without=("lengths",))
    for scale in (1e2, 1e4):
        out, grads = outcome(ops.lstm, [place.put(x) for x in [args[0] * scale, *args[1:5]]])
        assert all(x.isfinite().all() for x in (*out, *grads))


@pytest.mark.parametrize("value", [0.0, 1e-7, -1e-3, 0.2, -0.34, 0.36, 3.0])
def test_small_cells_keep_their_digits(kernels, value):
    """Of a single unit, whose cell is sigmoid(0) tanh(value): both ends of the series."""
    weight = torch.tensor([0.0, 0.0, 1.0, 0.0]).view(1, 4, 1)
    x, r = torch.full((1, 1, 1), value), torch.zeros(1, 4, 1)
    _, _, cell = ops.lstm(*(t.to(kernels.device) for t in (x, weight, r)))
    assert_near(cell, 0.5 * x.double().tanh().view(1, 1, 1), 1.5e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_cells_of_half_types_are_float32(place, dtype):
    args = [x if x.dtype == torch.int64 else x.to(dtype) for x in made(batch=4)]
    args[7] = args[7].float()
    put = [x.to(place.device) for x in args]
    (output, hidden, cell), grads = outcome(ops.lstm, put)
    assert (output.dtype, hidden.dtype, cell.dtype) == (dtype, dtype, torch.float32)
    wide = [x.double() if x.is_floating_point() else x for x in args]
    true, true_grads = outcome(lstm, wide)
    unit = torch.finfo(dtype).eps
    for x, expected in zip((output, hidden, cell), true, strict=True):
        assert_near(x, expected, 2 * unit)
    for x, expected in zip(grads, true_grads, strict=True):
        assert_near(x, expected, 4 * unit)


def test_recomputing_keeps_no_gates():
    args = made()
    kept = [_kept(args, recompute) for recompute in (False, True)]
    batch, steps, _ = args[0].shape
    assert kept[0] - kept[1] == batch * steps * 2 * 4 * 3


def _kept(args, recompute):
    """Numbers that a call keeps for its gradient."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        ops.lstm(args[0].requires_grad_(), *args[1:], recompute=recompute)
    return sum(x.numel() for x in saved)


def test_the_layer_is_swapped_and_back(kernel_device):
    layer = reference.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True, peephole=True)
    layer = layer.to(kernel_device)
    x, lengths = noise(3, 5, 4).float().to(kernel_device), torch.tensor([5, 2, 0])
    expected, (h, c) = layer(x, lengths=lengths)
    report = fuse(layer)
    assert [(e.layer, e.operator) for e in report.replaced] == [("LSTM", "lstm")]
    assert type(layer) is modules.LSTM
    with kernels_on(kernel_device):
        output, states = layer(x, lengths=lengths)
    for found, true in zip((output, *states), (expected, h, c), strict=True):
        assert_near(found, true, 2e-6)
    unfuse(layer)
    assert type(layer) is reference.LSTM


def test_layers_of_pytorch_stay_with_cudnn():
    assert not fuse(torch.nn.LSTM(3, 4)).replaced


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_a_model_around_the_layer_compiles_whole(backend):
    if backend == "triton":
        require_kernels("cpu")
    layer = torch.nn.Sequential(modules.LSTM(4, 3, batch_first=True, peephole=True))
    x = noise(2, 3, 4).float()
    with sepfast.use_backend(backend):
        compiled = torch.compile(lambda x: layer[0](x)[0], fullgraph=True, backend="eager")
        assert_near(compiled(x), layer[0](x)[0], 1e-6)


WRONG = {
    "input": (torch.zeros(3, 4), "takes (B, T, I), I not 0"),
    "recurrent": (torch.zeros(2, 12, 4), "takes (D, 4 H, H), D 1 or 2, H not 0"),
    "weight": (torch.zeros(2, 12, 5), "takes (2, 12, 4)"),
    "bias": (torch.zeros(1, 12), "takes (2, 12)"),
    "peephole": (torch.zeros(2, 3), "takes (2, 3, 3)"),
    "lengths": (torch.zeros(4, dtype=torch.int64), "takes (3,)"),
    "hidden": (torch.zeros(3, 2, 3), "takes (2, 3, 3)"),
    "cell": (torch.zeros(2, 2, 3), "takes (2, 3, 3)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_shapes_that_do_not_fit(name):
    args = [x.float() if x.is_floating_point() else x for x in made()]
    value, taken = WRONG[name]
    args[NAMES.index(name)] = value
    with pytest.raises(InputError) as error:
        ops.lstm(*args)
    assert str(error.value) == f"{name}: got shape {tuple(value.shape)}, {taken}"


def test_lengths_of_floats():
    args = [x.float() for x in made()]
    with pytest.raises(InputError, match=r"lstm: lengths is torch.float32 on cpu, takes integers"):
        ops.lstm(*args)
