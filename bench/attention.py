"""`bilinear_attention` in the shapes of system C: its cases, their work, and what there is to tune.

B fragments of N frames of a mixture, M steps of side information, E = J = 2 F features of either,
both directions of a recurrent layer of F, the bins. Counts as in `work.py`, bytes and operations
those that `kernels/bilinear_attention.py` derives.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor

from sepfast.bench.case import Case, Prepared, Tensors, product_precision
from sepfast.bench.work import Work, shipped_config
from sepfast.bench.workloads import Workload

_FLOAT = 4

#: Steps of side information for 256 frames, to which the paper pads it.
_STEPS = 300

FORWARD, BACKWARD = ("scores", "context"), ("slope", "query", "memory")
#: What a kernel shows in: of the operator's results and of its gradient's, three each.
_RESULTS = ("context", "scores", "product", "query", "memory", "slope")


def attention(name: str, shape: Workload, gradient: bool = False) -> Case:
    """Context and weights, and with `gradient` the gradients of all three inputs."""
    stages = FORWARD + (BACKWARD if gradient else ())
    return Case(
        name, "bilinear_attention", shape, _inputs,
        lambda f, x, s: f.bilinear_attention(x["query"], x["memory"], x["weight"]),
        lambda s: work(s, gradient), ("query", "memory", "weight"), gradient=gradient,
        kernels=tuple(f"bilinear_attention_{stage}" for stage in stages), transforms=False,
        sdpa=True,
    )  # fmt: skip


def work(shape: Workload, gradient: bool) -> Work:
    """The work of the operator, or of it and its gradient."""
    b, n, m, e = shape.rows, shape.frames, _steps(shape.frames), 2 * shape.framing.bins
    query, memory, weights = b * n * e, b * m * e, b * n * m
    least = 2 * query + memory + e * e + weights
    moved = 4 * query + 2 * memory + 3 * weights + e * e
    products = [("", b * n, e, e), ("scores", n, m, e), ("context", n, e, m)]
    if gradient:
        least += query + weights + query + memory + e * e
        moved += 8 * query + 3 * memory + 7 * weights + 2 * e * e
        products += [("slope", n, m, e), ("query", n, e, m), ("memory", m, e, 2 * n)]
        products += [("", b * n, e, e), ("", e, e, b * n)]
    requested = needed = performed = 0
    for stage, rows, columns, depth in products:
        times = b if stage else 1
        loaded, computed = _tiled(stage, rows, columns, depth)
        requested += times * loaded
        needed += times * 2 * rows * columns * depth
        performed += times * computed
    return Work(_FLOAT * least, _FLOAT * moved, _FLOAT * max(moved, requested), needed, performed)


def keys(precision: str) -> list[tuple[str, dict[str, Any]]]:
    """Kernels and keys to tune."""
    stages = [f"bilinear_attention_{stage}" for stage in FORWARD + BACKWARD]
    found: list[tuple[str, dict[str, Any]]] = [
        (stage, {"precision": precision, **rows})
        for rows in ({"rows": "many"}, {})
        for stage in stages
    ]
    if precision == "tf32x3":  # elsewhere PyTorch's own product is as fast
        found.append(("bilinear_attention_product", {"precision": precision}))
    return found


def prepare(stage: str, key: Mapping[str, Any], frames: int, device: torch.device) -> Prepared:
    """The operator that launches a kernel, and what to call it with.

    Args:
        stage: the kernel's name without its prefix.
        key: of its configuration.
        frames: of all fragments together; those of one where its tiles are for few.
        device: where it runs.
    """
    length = min(256, frames)
    tensors = _tensors(max(1, frames // length) if "rows" in key else 1, length, 1026, device)
    o = torch.ops.sepfast
    order = ("query", "memory", "weight")
    name = stage.rpartition("_")[2]
    which = _RESULTS.index(name) % 3
    if name not in BACKWARD:
        return lambda x: o.bilinear_attention(*(x[each] for each in order), None)[which], tensors
    _, weights, projected = o.bilinear_attention(*(tensors[each] for each in order), None)
    tensors |= {"of_context": torch.randn_like(projected), "weights": weights}
    tensors |= {"of_weights": torch.randn_like(weights), "projected": projected}

    def backward(x: Tensors) -> Tensor:
        grads = o.bilinear_attention_backward(
            x["of_context"], x["of_weights"], *(x[each] for each in order), None,
            x["projected"], x["weights"],
        )  # fmt: skip
        return grads[which]

    return backward, tensors


def _inputs(shape: Workload, device: torch.device) -> Tensors:
    return _tensors(shape.rows, shape.frames, 2 * shape.framing.bins, device)


def _tensors(batch: int, frames: int, features: int, device: torch.device) -> Tensors:
    """Scores of about 1: of large ones a softmax keeps no digits, whoever takes it."""
    return {
        "query": torch.randn(batch, frames, features, device=device) / features**0.5,
        "memory": torch.randn(batch, _steps(frames), features, device=device),
        "weight": torch.randn(features, features, device=device) / features**0.5,
    }


def _steps(frames: int) -> int:
    return ceil(frames * _STEPS / 256)


def _tiled(stage: str, rows: int, columns: int, depth: int) -> tuple[int, int]:
    """Elements that a product of whole tiles loads and stores, and its operations."""
    kernel, key = f"sepfast_bilinear_attention_{stage or 'product'}", {"rows": "many"}
    config = shipped_config(kernel, precision=product_precision(), **(key if stage else {}))
    high, wide = config.get("ROWS", 128), config.get("COLUMNS", 128)
    down, across = ceil(rows / high), ceil(columns / wide)
    loaded = across * rows * depth + down * depth * columns
    return loaded + rows * columns, 2 * down * high * across * wide * depth
