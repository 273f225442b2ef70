"""How exact every operator is: the one table that tests and benchmarks read.

A bound is on |out - ref| / |ref| (Frobenius norms), ref in float64 from the very inputs that the
operator got. u = 2^-24 = 6e-8 is the rounding of one operation in float32; roundings of many
elements are independent, so that in the norm an element's own depth counts, not their number.

Element by element, `soft_mask` and `soft_mask_loss`, whatever the precision of matrix products:

- shares are a sum of N levels and a division, (log2 N + 2) roundings at most and far fewer on
  average: 2e-7 holds to N = 8 at worst and for any N in practice;
- their gradient is a difference of the incoming gradient and its mean over the sources, of the
  size of both: about 8 roundings, 5e-7;
- the loss is a sum of squares in a tree, 3 roundings an element and one for every level of the
  tree, nearly all of which cancel: 5e-7. Weights that make its terms cancel lose more digits;
- the gradient of the loss has the roundings of the slope and of the mask behind each other: 5e-7.

`amplitude_mask_loss` is element by element too, whatever the precision of matrix products:

- a term is a square of a difference with about 8 roundings in it, those of exp and of two divisions
  among them, and the sum a tree: 5e-7, as far as masked mixture and target do not cancel;
- its gradient is that difference by the slope of the sigmoid, 12 roundings: 5e-7.

`softplus_norm` and `softplus_affine` are element by element behind the statistics, which are means
of as many roundings as there are elements, nearly all of which cancel:

- softplus is a polynomial of exp, and what is normalised a difference by the deviation: about 8
  roundings, more by |mean| / deviation where that is above 1: 5e-7;
- the gradient has the roundings of softplus, its slope and a difference of three terms of its own
  size. That of the bias is a sum of what adds up to 0 but for the spread of the slope, so that for
  inputs that spread over the bend of softplus a tenth of its terms is left: 5e-6.

Convolution pairs are one product behind another, of up to 1026 and 750 terms, backward up to three:

- highest: an accumulator rounds once for every 32 terms or so, which is less than the rounding of
  the operands in PyTorch's own: 1e-6;
- high and medium: TF32, twice or thrice, as the STFT: 2e-3.

`overlap_decode` is two products behind each other and a mask, whose shares lose as many digits as
an estimate is smaller than the terms it is the sum of; the bounds are for estimates that are not:

- highest: half the 1e-6 of products, as errors that all sources have in common leave their shares
  alone: 5e-7; backward the slope of the mask, a difference, and up to three products more: 2e-6;
- high and medium: TF32 in two products forward and five backward: 2e-3 and 4e-3.

`linear_soft_mask_loss` is a product, the loss, and for its gradients a product of the slope. An
estimate next to 0 has no digits to keep; where bins are loud or silent and nothing between:

- highest: the product of 50 terms of one sign adds less than a rounding to each estimate, and of
  both the loss keeps the mean: 5e-7 as `soft_mask_loss`; the slope's 5e-7 and two products: 1e-6;
- high and medium: TF32 cuts both operands to 10 bits behind the point, 2^-11 each on average. What
  is common to all sources drops out of their shares, and the loss averages the rest: 1e-3; the
  slope is divided by the estimates and multiplied by one more cut operand, itself cut: 2e-3.

`bilinear_attention` is a product, scores, a softmax and a mean; backward, three products more and a
difference. A weight has the relative error that its score has absolutely, so that the bounds grow
with the scores; they are for scores of about 1:

- highest: two products, and the roundings of exp and of sum and division: 1e-6; the slope of the
  softmax is a difference of terms of its own size, behind the weights' own errors: 2e-6;
- high and medium: TF32 in three products forward and five backward: 2e-3 and 4e-3.

`lstm` is a product a step, behind gates that are 1 at most and slopes of a quarter: an error of a
step fades in the next ones as long as the recurrent weights do not make it grow, and the bounds are
for such weights and a few steps:

- highest: two products and some ten roundings of exp and the cell: 1e-6; backward the slopes, each
  a product of four or five factors, and two products more: 2e-6;
- high and medium: TF32 in the projections and each step: 2e-3, backward 4e-3.

STFT operators are two small matrix products and a twiddle, one transform or two behind each other:

- highest: each product keeps 22 bits or more of its operands and adds up 16 to 64 terms: 1e-6;
- high and medium: TF32 rounds operands to 10 bits behind the point, 2^-11 = 5e-4, twice for a
  transform and four times for two: sqrt(4) 5e-4, with room for magnitudes raised to a power: 2e-3.

At a high overlap they are products of one chunk, sums that slide and a window of three terms:

- highest: a sum of N / hop chunks is a prefix, a suffix and segments between, nothing subtracted,
  16 terms behind each other and far fewer on average: 2e-7 there and back, 1e-6 with room;
- high and medium: TF32 once forward and once back, where the others have it twice: 2e-3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Precision = Literal["highest", "high", "medium"]


class Bound(NamedTuple):
    """What an operator's relative error stays below.

    Attributes:
        forward: of the result.
        backward: of every gradient.
    """

    forward: float
    backward: float


def _bounds(highest: Bound, lower: Bound) -> dict[Precision, Bound]:
    """Of an operator with matrix products, which "high" and "medium" take alike."""
    return {"highest": highest, "high": lower, "medium": lower}


def _same(bound: Bound) -> dict[Precision, Bound]:
    """Of an operator without."""
    return _bounds(bound, bound)


_PRODUCTS = _bounds(Bound(1e-6, 1e-6), Bound(2e-3, 2e-3))

#: Operator -> what `torch.get_float32_matmul_precision()` says -> bound, for float32 inputs.
ACCURACY: dict[str, dict[Precision, Bound]] = {
    "amplitude_mask_loss": _same(Bound(5e-7, 5e-7)),
    "bilinear_attention": _bounds(Bound(1e-6, 2e-6), Bound(2e-3, 4e-3)),
    "conv_pair": _PRODUCTS,
    "deconv_pair": _PRODUCTS,
    "horizontal_deconv": _PRODUCTS,
    "linear_soft_mask_loss": _bounds(Bound(5e-7, 1e-6), Bound(1e-3, 2e-3)),
    "lstm": _bounds(Bound(1e-6, 2e-6), Bound(2e-3, 4e-3)),
    "overlap_decode": _bounds(Bound(5e-7, 2e-6), Bound(2e-3, 4e-3)),
    "soft_mask": _same(Bound(2e-7, 5e-7)),
    "soft_mask_loss": _same(Bound(5e-7, 5e-7)),
    "softplus_affine": _same(Bound(5e-7, 5e-7)),
    "softplus_norm": _same(Bound(5e-7, 5e-6)),
    "stft": _PRODUCTS,
    "istft": _PRODUCTS,
    "stft_magnitude": _PRODUCTS,
    "masked_istft": _PRODUCTS,
}


def relative_error(out: Tensor, true: Tensor) -> float:
    """|out - true| / |true|, in float64 but for large float32; infinite where shapes differ.

    Args:
        out: of any device and type.
        true: likewise; the norms are taken on its device. Where it is 0, |out| itself is given.
    """
    if out.shape != true.shape:
        return float("inf")
    out, true = out.detach().to(true.device), true.detach()
    if out.dtype != torch.float32 or out.numel() < 2**20:
        out, true = out.double(), true.double()
    distance, scale = float((out - true).norm()), float(true.norm())
    return distance / scale if scale else distance


def largest(errors: Iterable[float]) -> float:
    """The largest of errors, 0 of none; NaN is above all, where `max` would let it pass.

    >>> largest([1e-7, float("nan"), 1e-8])
    nan
    """
    return max(errors, key=lambda error: (math.isnan(error), error), default=0.0)
