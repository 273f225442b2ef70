"""System A's loss of the soft-masked mixture and its gradient, from one read of the inputs each.

B outer and I inner elements, N sources between them, the last of them "other", M = N - 1 named.
x mixture, y estimates, t targets, s_n = m_n x with the shares m_n of `soft_mask.py`; the rivals r
are t in the reading `code` and s in `paper`; b_i = beta_vocals for i = 0 and beta for the others.

    D = sum_{i named} (s_i - t_i)^2
    C = sum_{i != j named} (s_i - r_j)^2
    L = sum over B and I of  D - alpha C - sum_{i named} b_i (s_i - r_other)^2;  `code` takes |L|

C takes no loop over pairs. With ~ the mean over the named sources and V_s = sum_i (s_i - ~s)^2,

    code   C = M V_s + M V_t + M^2 (~s - ~t)^2 - D        paper   C = 2 M V_s

which sums squares of differences only, so that it keeps its digits where sources are alike.

    code   ds_i = 2 sign(L) ((s_i - t_i) - b_i (s_i - t_other)
                             - alpha ((M - 1) s_i - sum_{j != i} t_j)),   ds_other = 0
    paper  ds_i = 2 ((s_i - t_i) - b_i (s_i - s_other) - 2 alpha (M s_i - sum_j s_j)),
           ds_other = 2 sum_i b_i (s_i - s_other)
    dy_n = g sign(y_n) x (ds_n - sum_k ds_k m_k) / sum_k |y_k|, 0 at silence, g the gradient of L

A program has all sources of BLOCK inner elements, (SOURCES, BLOCK), and writes one partial sum, so
that the order of summation is fixed: no atomics. The sign of L is a number in device memory, which
the backward reads; the host never waits for it.

Bytes: forward (2 N + 1) I B elements, backward (3 N + 1) I B. The backward reads the inputs again:
87 MB for both at B 32 x 2 x 30 x 513 and 4 sources. A forward that stored the slope for the
backward to scale would move 83 MB and hold 16 MB between the two, for every forward, also those
that no backward follows. About 25 N I B operations forward, 35 N I B backward.

Source: A, "loss"; B, section 4 c.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from sepfast.kernels import launch


@triton.jit
def sepfast_soft_mask_loss_forward(
    estimates,
    mixture,
    targets,
    partials,
    sources,
    inner,
    alpha,
    beta,
    beta_vocals,
    READING: tl.constexpr,
    SOURCES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One partial sum of the signed loss."""
    row, source, column = _place(inner, SOURCES, BLOCK)
    y, x, t = _read(estimates, mixture, targets, row, source, column, sources, inner)
    terms = signed_terms(y, x, t, source, sources, alpha, beta, beta_vocals, READING)
    # Outside the tensors all are 0, and so is their part.
    tl.store(partials + tl.program_id(0), tl.sum(terms))


@triton.jit
def sepfast_soft_mask_loss_backward(
    grad,
    total_loss,
    estimates,
    mixture,
    targets,
    out,
    sources,
    inner,
    alpha,
    beta,
    beta_vocals,
    READING: tl.constexpr,
    SOURCES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of the estimates, for an incoming gradient and a signed loss of one element."""
    row, source, column = _place(inner, SOURCES, BLOCK)
    y, x, t = _read(estimates, mixture, targets, row, source, column, sources, inner)
    scale = slope_scale(grad, total_loss, READING)
    result = slope(y, x, t, scale, source, sources, alpha, beta, beta_vocals, READING)
    at = (row * sources + source) * inner + column
    tl.store(out + at, result, (source < sources) & (column < inner))


@triton.jit
def signed_terms(y, x, t, source, sources, alpha, beta, beta_vocals, READING: tl.constexpr):
    """What adds up to the signed loss, (1, ...).

    y and t are tiles (SOURCES, ...), x (1, ...) and source (SOURCES, 1, ...), of any rank; the
    terms are 0 where x and t are.
    """
    levels = tl.abs(y)
    total = tl.sum(levels, axis=0, keep_dims=True)
    s = _shares(levels, total, sources) * x  # (SOURCES, ...)
    named = source < sources - 1
    count = sources - 1.0

    distance = tl.sum(_square(tl.where(named, s - t, 0)), axis=0, keep_dims=True)  # D
    s_mean = tl.sum(tl.where(named, s, 0), axis=0, keep_dims=True) / count
    s_spread = tl.sum(_square(tl.where(named, s - s_mean, 0)), axis=0, keep_dims=True)
    if READING == "code":
        rivals = t
        t_mean = tl.sum(tl.where(named, t, 0), axis=0, keep_dims=True) / count
        t_spread = tl.sum(_square(tl.where(named, t - t_mean, 0)), axis=0, keep_dims=True)
        apart = _square(count * (s_mean - t_mean))
        cross = count * (s_spread + t_spread) + apart - distance
    else:
        rivals = s
        cross = 2 * count * s_spread
    other = tl.sum(tl.where(source == sources - 1, rivals, 0), axis=0, keep_dims=True)
    weights = tl.where(source == 0, beta_vocals, beta)  # (SOURCES, 1, ...)
    from_other = weights * _square(tl.where(named, s - other, 0))
    return distance - alpha * cross - tl.sum(from_other, axis=0, keep_dims=True)


@triton.jit
def slope(y, x, t, scale, source, sources, alpha, beta, beta_vocals, READING: tl.constexpr):
    """The gradient of estimates y, (SOURCES, ...); `scale` from `slope_scale`, else as above."""
    levels = tl.abs(y)
    total = tl.sum(levels, axis=0, keep_dims=True)
    shares = _shares(levels, total, sources)
    s = shares * x  # (SOURCES, ...)
    named = source < sources - 1
    last = source == sources - 1
    weights = tl.where(source == 0, beta_vocals, beta)  # (SOURCES, 1, ...)
    if READING == "code":
        other = tl.sum(tl.where(last, t, 0), axis=0, keep_dims=True)
        others = tl.sum(tl.where(named, t, 0), axis=0, keep_dims=True) - t
        ds = s - t - alpha * ((sources - 2) * s - others) - weights * (s - other)
        ds = tl.where(named, ds, 0)
    else:
        other = tl.sum(tl.where(last, s, 0), axis=0, keep_dims=True)
        all_named = tl.sum(tl.where(named, s, 0), axis=0, keep_dims=True)
        from_other = tl.where(named, weights * (s - other), 0)
        ds = s - t - 2 * alpha * ((sources - 1) * s - all_named) - from_other
        of_last = tl.where(last, tl.sum(from_other, axis=0, keep_dims=True), 0)
        ds = tl.where(named, ds, of_last)

    ds *= scale * x
    common = tl.sum(ds * shares, axis=0, keep_dims=True)
    sign = tl.where(y > 0, 1, tl.where(y < 0, -1, y))  # 0 and NaN stay
    return tl.where(total == 0, 0, sign * (ds - common) / tl.where(total == 0, 1, total))


@triton.jit
def slope_scale(grad, total_loss, READING: tl.constexpr):
    """What every slope is multiplied by, from the loss's gradient and the signed loss."""
    scale = 2 * tl.load(grad).to(tl.float32)
    if READING == "code":
        scale *= _sign(tl.load(total_loss))
    return scale


@triton.jit
def _place(inner, SOURCES: tl.constexpr, BLOCK: tl.constexpr):
    """This program's row, its sources (SOURCES, 1) and its columns (1, BLOCK)."""
    per_row = tl.cdiv(inner, BLOCK)
    row = (tl.program_id(0) // per_row).to(tl.int64)
    column = (tl.program_id(0) % per_row).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[None, :]
    return row, tl.arange(0, SOURCES)[:, None], column


@triton.jit
def _read(estimates, mixture, targets, row, source, column, sources, inner):
    """Estimates (SOURCES, BLOCK), mixture (1, BLOCK) and targets (SOURCES, BLOCK), 0 outside."""
    at = (row * sources + source) * inner + column
    inside = (source < sources) & (column < inner)
    y = tl.load(estimates + at, inside, other=0).to(tl.float32)
    t = tl.load(targets + at, inside, other=0).to(tl.float32)
    x = tl.load(mixture + row * inner + column, column < inner, other=0).to(tl.float32)
    return y, x, t


@triton.jit
def _shares(levels, total, sources):
    """Shares of levels (SOURCES, BLOCK) in their total (1, BLOCK)."""
    return tl.where(total == 0, 1 / sources, levels / tl.where(total == 0, 1, total))


@triton.jit
def _square(x):
    """x^2."""
    return x * x


@triton.jit
def _sign(x):
    """-1, 0 or 1; 0 for NaN, as PyTorch has it."""
    return tl.where(x > 0, 1.0, 0.0) - tl.where(x < 0, 1.0, 0.0)


def _variants(sources: int) -> Iterator[dict[str, int | str]]:
    for reading in ("code", "paper"):
        yield {"READING": reading, "SOURCES": sources}


_INPUTS = {"estimates": "*fp32", "mixture": "*fp32", "targets": "*fp32"}
_NUMBERS = {
    "sources": "i32",
    "inner": "i32",
    "alpha": "fp32",
    "beta": "fp32",
    "beta_vocals": "fp32",
}
FORWARD = launch.Kernel(
    sepfast_soft_mask_loss_forward, {**_INPUTS, "partials": "*fp32", **_NUMBERS}, _variants
)
BACKWARD = launch.Kernel(
    sepfast_soft_mask_loss_backward,
    {"grad": "*fp32", "total_loss": "*fp32", **_INPUTS, "out": "*fp32", **_NUMBERS},
    _variants,
)
KERNELS = (FORWARD, BACKWARD)


def soft_mask_loss(
    estimates: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: tuple[float, float, float],
    reading: str,
) -> Tensor:
    """The signed loss, whose absolute value is the loss in the reading `code`.

    Args:
        estimates: (B, N, ...), contiguous.
        mixture: (B, ...), contiguous.
        targets: (B, N, ...), contiguous.
        weights: alpha, beta and beta_vocals.
        reading: "code" or "paper".

    Returns:
        A scalar in float32.
    """
    config = FORWARD.config(estimates.device, sources=estimates.shape[1])
    partials = launch.empty((_programs(estimates, config["BLOCK"]),), estimates, torch.float32)
    _launch(FORWARD, config, (estimates, mixture, targets, partials), weights, reading)
    return partials.sum()


def soft_mask_loss_backward(
    grad: Tensor,
    total: Tensor,
    estimates: Tensor,
    mixture: Tensor,
    targets: Tensor,
    weights: tuple[float, float, float],
    reading: str,
) -> Tensor:
    """The gradient of the loss with respect to the estimates.

    Args:
        grad: a scalar, the gradient of the loss.
        total: a scalar, the signed loss.
        estimates: as in the forward, and so are the others.
        mixture: (B, ...).
        targets: (B, N, ...).
        weights: alpha, beta and beta_vocals.
        reading: "code" or "paper".

    Returns:
        (B, N, ...) in the type of `estimates`.
    """
    out = launch.empty(estimates.shape, estimates)
    config = BACKWARD.config(estimates.device, sources=estimates.shape[1])
    _launch(BACKWARD, config, (grad, total, estimates, mixture, targets, out), weights, reading)
    return out


def _launch(
    kernel: launch.Kernel,
    config: launch.Config,
    tensors: tuple[Tensor, ...],
    weights: tuple[float, float, float],
    reading: str,
) -> None:
    estimates = tensors[-4]
    sources, inner = estimates.shape[1], estimates.shape[2:].numel()
    kernel.launch(
        _programs(estimates, config["BLOCK"]),
        *tensors,
        sources,
        inner,
        *weights,
        config=config,
        READING=reading,
        SOURCES=triton.next_power_of_2(sources),
    )


def _programs(estimates: Tensor, block: int) -> int:
    return estimates.shape[0] * launch.blocks(estimates.shape[2:].numel(), block)
