"""Bilinear attention: the definition, padded memory, and what is refused."""

import pytest
import torch
from conftest import assert_near, noise, require_kernels
from contract import blocks_of, launches

from sepfast import InputError, fuse, modules, ops, reference
from sepfast.kernels.tuning import shipped
from sepfast.reference import bilinear_attention, bilinear_attention_backward


def made(batch=3, n=5, m=7, e=4, j=6, scale=0.2):
    """Query, memory and weight, of scores of about 1."""
    shapes = (batch, n, e), (batch, m, j), (e, j)
    query, memory, weight = (noise(*shape, seed=seed) for seed, shape in enumerate(shapes))
    return query, memory, weight * scale


def by_definition(query, memory, weight, lengths=None):
    """Row by row over the memory that counts, in float64."""
    counts = [memory.shape[1]] * len(query) if lengths is None else lengths.tolist()
    contexts, rows = [], []
    for q, h, count in zip(query, memory, counts, strict=True):
        heard = h[: max(count, 0)]
        weights = torch.softmax(q @ weight @ heard.T, -1)
        contexts.append(weights @ heard)
        rows.append(torch.nn.functional.pad(weights, (0, len(h) - len(heard))))
    return torch.stack(contexts), torch.stack(rows)


def outcome(function, args, lengths, grads):
    leaves = [x.detach().requires_grad_() for x in args]
    out = function(*leaves, lengths)
    used = [(x, g.to(x)) for x, g in zip(out, grads, strict=True) if g is not None]
    return out, torch.autograd.grad([x for x, _ in used], leaves, [g for _, g in used])


def check(place, args, lengths=None, used=(True, True)):
    """An operator's results and gradients against the definition's."""
    args = [place.put(x) for x in args]
    wide = [x.cpu().double() for x in args]
    shapes = [x.shape for x in by_definition(*wide, lengths)]
    grads = [noise(*s, seed=5) if use else None for s, use in zip(shapes, used, strict=True)]
    true, true_grads = outcome(by_definition, wide, lengths, grads)
    there = None if lengths is None else lengths.to(place.device)
    out, found = outcome(ops.bilinear_attention, args, there, grads)
    for some, others, stage in ((out, true, "forward"), (found, true_grads, "backward")):
        for x, expected in zip(some, others, strict=True):
            assert_near(x, expected, place.bound("bilinear_attention", stage))
    return out, found


@pytest.mark.parametrize(("e", "j"), [(1, 1), (1, 17), (17, 65), (65, 130), (130, 1)])
def test_features_of_any_number(place, e, j):
    check(place, made(e=e, j=j, scale=0.5 / (e * j) ** 0.5))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 300), (70, 3), (130, 65)])
def test_frames_of_any_number(place, n, m):
    check(place, made(batch=2, n=n, m=m))


def test_several_programs_meet(place, monkeypatch):
    small = blocks_of(ROWS=16, COLUMNS=16, DEPTH=16)
    monkeypatch.setattr("sepfast.kernels.launch.lookup", small)
    args = made(batch=2, n=37, m=53, e=19, j=35, scale=0.05)
    check(place, args, torch.tensor([50, 17]))


@pytest.mark.parametrize("used", [(True, False), (False, True)], ids=["context", "weights"])
def test_either_result_may_go_unused(place, used):
    check(place, made(), torch.tensor([7, 3, 5]), used)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
def test_lengths_are_integers_of_any_type(place, dtype):
    check(place, made(), torch.tensor([1, 7, 4], dtype=dtype))


def test_padding_has_no_weight_and_no_gradient(place):
    lengths = torch.tensor([70, 64, 3])
    padding = torch.arange(70) >= lengths[:, None]
    (_, weights), grads = check(place, made(m=70), lengths)
    assert not weights.cpu().mT[padding].any()
    assert not grads[1].cpu()[padding].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_what_stands_in_padding_has_no_effect(place):
    query, memory, weight = made(m=70)
    lengths = torch.tensor([70, 64, 3])
    padding = torch.arange(70) >= lengths[:, None]
    broken = memory.clone()
    broken[padding] = torch.nan
    of_context, of_weights = noise(*query.shape[:2], memory.shape[2]), noise(*query.shape[:2], 70)
    of_weights.mT[padding] = torch.nan

    def run(memory):
        leaves = [place.put(x).requires_grad_() for x in (query, memory, weight)]
        results = ops.bilinear_attention(*leaves, lengths.to(place.device))
        grads = torch.autograd.grad(results, leaves, [place.put(of_context), place.put(of_weights)])
        return *results, *grads

    found = run(broken)
    assert all(x.isfinite().all() for x in found)
    assert all(map(torch.equal, run(memory), found))


def test_a_row_without_memory_is_zero(place):
    args = [place.put(x) for x in made()]
    lengths = torch.tensor([0, -3, 7], device=place.device)
    leaves = [x.requires_grad_() for x in args]
    context, weights = ops.bilinear_attention(*leaves, lengths)
    assert not context[:2].any()
    assert not weights[:2].any()
    loss = context.square().sum() + weights.square().sum()
    for grad in torch.autograd.grad(loss, leaves):
        assert grad.isfinite().all()
        assert grad.ndim == 2 or not grad[:2].any()


def test_lengths_above_the_memory_are_all_of_it(place):
    args = [place.put(x) for x in made()]
    lengths = torch.tensor([8, 2**40, 7], device=place.device)
    results = ops.bilinear_attention(*args, lengths), ops.bilinear_attention(*args)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("empty", ["batch", "n", "m"])
@pytest.mark.parametrize("padded", [False, True])
def test_nothing_is_nothing(place, empty, padded):
    args = [place.put(x).requires_grad_() for x in made(**{empty: 0})]
    lengths = torch.ones(len(args[0]), dtype=torch.int64, device=place.device)
    context, weights = ops.bilinear_attention(*args, lengths if padded else None)
    assert context.shape == (*args[0].shape[:2], 6)
    assert weights.shape == (*args[0].shape[:2], args[1].shape[1])
    assert not context.any()
    for grad in torch.autograd.grad(context.sum() + weights.sum(), args):
        assert not grad.any()


def test_silence_is_weighed_evenly(place):
    args = [torch.zeros_like(place.put(x)).requires_grad_() for x in made()]
    lengths = torch.tensor([7, 4, 1], device=place.device)
    context, weights = ops.bilinear_attention(*args, lengths)
    assert not context.any()
    torch.testing.assert_close(weights[1], weights.new_tensor([0.25] * 4 + [0] * 3).expand(5, 7))
    for grad in torch.autograd.grad(context.sum() + weights.square().sum(), args):
        assert grad.isfinite().all()


@pytest.mark.parametrize("sign", [1, -1])
def test_large_scores_do_not_overflow(place, sign):
    query, memory, weight = (torch.ones_like(place.put(x)) for x in made())
    memory[:, 2:] *= 0.5
    args = [x.requires_grad_() for x in (query * sign * 1e4, memory, weight)]
    context, weights = ops.bilinear_attention(*args)
    expected = [0.5] * 2 + [0] * 5 if sign == 1 else [0] * 2 + [0.2] * 5
    torch.testing.assert_close(weights, weights.new_tensor(expected).expand(3, 5, 7))
    for grad in torch.autograd.grad(context.sum() + weights.square().sum(), args):
        assert grad.isfinite().all()


def test_a_broken_score_is_not_taken_for_padding(place):
    query, memory, weight = (place.put(x) for x in made())
    query[0, 2] = torch.nan
    context, weights = ops.bilinear_attention(query, memory, weight)
    assert context[0, 2].isnan().all()
    assert weights[0, 2].isnan().all()
    assert weights[0, :2].isfinite().all()
    assert weights[1:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_take_lengths_and_scores_beyond_them(kernels, dtype):
    """Scores of 80,000, more than float16 holds, that differ by what it could not tell apart."""
    query, memory, weight = (torch.ones_like(kernels.put(x), dtype=dtype) for x in made(m=300))
    memory *= 16
    memory[:, 1:] -= 0.125
    query *= 208
    lengths = torch.tensor([300, 1, 0], device=kernels.device)
    _, weights = ops.bilinear_attention(query, memory, weight, lengths)
    assert weights.dtype == dtype
    assert weights.isfinite().all()
    assert (weights[:2, :, 0] == 1).all()
    assert not weights[2].any()


@pytest.mark.parametrize("processors", [3, 50])
def test_sums_over_a_batch_are_shared_by_processors(kernels, monkeypatch, processors):
    monkeypatch.setattr("sepfast.kernels.launch.processors", lambda device: processors)
    check(kernels, made(batch=9, n=33, m=5))


@pytest.mark.parametrize("demand", ["highest", "high"])
def test_pytorch_takes_plain_products_but_in_float32(kernels, demand):
    # Where three TF32 products are faster than one in float32; the interpreter takes all kernels.
    gpus = [(8, 0), (9, 0), (10, 0)]
    faster = kernels.device == "cpu" or torch.cuda.get_device_capability() in gpus
    torch.set_float32_matmul_precision(demand)
    with launches() as launched:
        ops.bilinear_attention(*map(kernels.put, made()))
    stages = [launch.kernel.removeprefix("sepfast_bilinear_attention_") for launch in launched]
    assert stages == ["product"] * (faster and demand == "highest") + ["scores", "context"]


def test_the_references_gradient_is_autograds():
    args = [x.requires_grad_() for x in made()]
    lengths = torch.tensor([7, 0, 4])
    out = bilinear_attention(*args, lengths)
    grads = [noise(*x.shape, seed=8) for x in out]
    expected = torch.autograd.grad(out, args, grads)
    with torch.no_grad():
        found = bilinear_attention_backward(*grads, *args, args[0] @ args[2], out[1])
    torch.testing.assert_close(tuple(found), expected)


def test_gradients_are_those_of_finite_differences_with_lengths():
    args = [x.requires_grad_() for x in made(batch=2, n=2, m=4, e=2, j=3)]
    lengths = torch.tensor([3, 0])
    assert torch.autograd.gradcheck(lambda *x: ops.bilinear_attention(*x, lengths), args)


def test_lengths_compile_in_one_graph():
    args, lengths = made(), torch.tensor([7, 2, 0], dtype=torch.int32)
    torch._dynamo.reset()
    compiled = torch.compile(ops.bilinear_attention, fullgraph=True, backend="aot_eager")
    expected = ops.bilinear_attention(*args, lengths)
    assert all(map(torch.equal, compiled(*args, lengths), expected))


@pytest.mark.parametrize(
    ("at", "shape", "sentence"),
    [
        (0, (3, 4), r"query: got shape \(3, 4\), takes \(B, N, E\)"),
        (0, (3, 5, 0), r"query: got shape \(3, 5, 0\), takes \(B, N, E\), E not 0"),
        (1, (2, 7, 6), r"memory: got shape \(2, 7, 6\), takes \(3, M, J\)"),
        (2, (6, 4), r"weight: got shape \(6, 4\), takes \(4, 6\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(at, shape, sentence):
    args = list(made())
    args[at] = torch.zeros(shape).double()
    with pytest.raises(InputError, match=f"^{sentence}"):
        ops.bilinear_attention(*args)


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [
        (torch.ones(3), "is torch.float32 on cpu, takes integers on cpu"),
        (torch.ones(3, dtype=torch.bool), "is torch.bool on cpu, takes integers on cpu"),
        (torch.ones(2, dtype=torch.int64), r"got shape \(2,\), takes \(3,\)"),
        (torch.ones(3, 1, dtype=torch.int64), r"got shape \(3, 1\), takes \(3,\)"),
        (
            torch.ones(3, dtype=torch.int64, device="meta"),
            "is torch.int64 on meta, takes integers on cpu",
        ),
    ],
)
def test_lengths_that_do_not_fit_are_named(lengths, sentence):
    with pytest.raises(InputError, match=f"lengths:? {sentence}"):
        ops.bilinear_attention(*made(), lengths)


def test_every_kernel_is_shipped_where_one_is():
    """But for `product`, which stands in where PyTorch's own is the slower one."""
    found = []
    for stage in ("scores", "context", "slope", "query", "memory"):
        entries = shipped(f"sepfast_bilinear_attention_{stage}")
        found.append({(device.split(":")[0], key["precision"]) for device, key, _ in entries})
    assert found == [found[0]] * 5


def test_the_layer_is_swapped_and_stays_itself(kernels):
    torch.manual_seed(0)
    layer = reference.BilinearAttention(4, 6).to(kernels.device)
    assert layer.weight.abs().max() <= 6**-0.5
    query, memory, _ = map(kernels.put, made())
    lengths = torch.tensor([7, 3, 0], device=kernels.device)
    expected = layer(query, memory, lengths)
    fuse(layer, strict=True)
    assert type(layer) is modules.BilinearAttention
    assert repr(layer) == "BilinearAttention(query_size=4, memory_size=6)"
    with launches() as launched:
        layer(query, memory)
    assert launched
    torch.testing.assert_close(layer(query, memory, lengths), expected)


@pytest.mark.gpu
def test_offsets_pass_32_bits():
    require_kernels("cuda")
    query, memory, weight = (x.cuda().float() for x in made(batch=1, n=64, m=8192, e=3, j=2))
    batch = 2**31 // (64 * 8192) + 2
    with ops.use_backend("triton"):
        alone = ops.bilinear_attention(query, memory, weight)
        context, weights = ops.bilinear_attention(
            query.expand(batch, -1, -1), memory.expand(batch, -1, -1), weight
        )
    assert torch.equal(context[-1:], alone[0])
    assert torch.equal(weights[-1:], alone[1])
