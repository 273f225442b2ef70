"""Soft masks and their gradient, one read and one write of the estimates.

B outer and I inner elements, N sources between them.

    m_n  = |y_n| / S, 1 / N where S = sum_n |y_n| is 0
    dy_n = sign(y_n) (g_n - sum_k g_k m_k) / S, 0 where S is 0

A program has all sources of BLOCK inner elements, (SOURCES, BLOCK). Bytes: 2 or 3 times the
estimates; 6 N I B operations.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch


@triton.jit
def sepfast_soft_mask_forward(
    estimates, shares, sources, inner, SOURCES: tl.constexpr, BLOCK: tl.constexpr
):
    """Estimates (B, N, I) to shares."""
    at, inside = _tile(sources, inner, SOURCES, BLOCK)
    levels = tl.abs(tl.load(estimates + at, inside, other=0).to(tl.float32))  # (SOURCES, BLOCK)
    total = tl.sum(levels, axis=0)[None, :]
    share = tl.where(total == 0, 1 / sources, levels / tl.where(total == 0, 1, total))
    tl.store(shares + at, share, inside)


@triton.jit
def sepfast_soft_mask_backward(
    grads, estimates, out, sources, inner, SOURCES: tl.constexpr, BLOCK: tl.constexpr
):
    """Gradients of shares (B, N, I) to those of estimates."""
    at, inside = _tile(sources, inner, SOURCES, BLOCK)
    y = tl.load(estimates + at, inside, other=0).to(tl.float32)  # (SOURCES, BLOCK)
    grad = tl.load(grads + at, inside, other=0).to(tl.float32)
    levels = tl.abs(y)
    total = tl.sum(levels, axis=0)[None, :]
    safe = tl.where(total == 0, 1, total)
    common = tl.sum(grad * (levels / safe), axis=0)[None, :]
    sign = tl.where(y > 0, 1, tl.where(y < 0, -1, y))  # 0 and NaN stay
    tl.store(out + at, tl.where(total == 0, 0, sign * (grad - common) / safe), inside)


@triton.jit
def _tile(sources, inner, SOURCES: tl.constexpr, BLOCK: tl.constexpr):
    """Offsets and validity of this program's tile, (SOURCES, BLOCK)."""
    per_row = tl.cdiv(inner, BLOCK)
    row = (tl.program_id(0) // per_row).to(tl.int64)
    source = tl.arange(0, SOURCES)[:, None]
    column = (tl.program_id(0) % per_row).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[None, :]
    at = (row * sources + source) * inner + column
    return at, (source < sources) & (column < inner)


def _variants(sources: int) -> list[dict[str, int]]:
    return [{"SOURCES": sources}]


FORWARD = launch.Kernel(
    sepfast_soft_mask_forward,
    {"estimates": "*fp32", "shares": "*fp32", "sources": "i32", "inner": "i32"},
    _variants,
)
BACKWARD = launch.Kernel(
    sepfast_soft_mask_backward,
    {"grads": "*fp32", "estimates": "*fp32", "out": "*fp32", "sources": "i32", "inner": "i32"},
    _variants,
)
KERNELS = (FORWARD, BACKWARD)


def soft_mask(estimates: Tensor, dim: int) -> Tensor:
    """Shares of estimates, contiguous, any shape with the sources on `dim`; of that shape."""
    out = launch.empty(estimates.shape, estimates)
    _launch(FORWARD, estimates, dim, estimates, out)
    return out


def soft_mask_backward(grad: Tensor, estimates: Tensor, dim: int) -> Tensor:
    """The gradient of `soft_mask`; both contiguous and of one shape, which is the result's."""
    out = launch.empty(estimates.shape, estimates)
    _launch(BACKWARD, estimates, dim, grad, estimates, out)
    return out


def _launch(kernel: launch.Kernel, like: Tensor, dim: int, *tensors: Tensor) -> None:
    if like.numel() == 0:
        return
    sources = like.shape[dim]
    inner = like.shape[dim + 1 :].numel()
    rows = like.numel() // (sources * inner)
    config = kernel.config(like.device, sources=sources)
    padded = triton.next_power_of_2(sources)
    programs = rows * launch.blocks(inner, config["BLOCK"])
    kernel.launch(programs, *tensors, sources, inner, config=config, SOURCES=padded)
