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

STFT operators are two small matrix products and a twiddle, one transform or two behind each other:

- highest: each product keeps 22 bits or more of its operands and adds up 16 to 64 terms: 1e-6;
- high and medium: TF32 rounds operands to 10 bits behind the point, 2^-11 = 5e-4, twice for a
  transform and four times for two: sqrt(4) 5e-4, with room for magnitudes raised to a power: 2e-3.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Precision = Literal["highest", "high", "medium"]


class Bound(NamedTuple):
    """What an operator's relative error stays below.

    Attributes:
        forward: of the result.
        backward: of every gradient.
    """

    forward: float
    backward: float


def _same(bound: Bound) -> dict[Precision, Bound]:
    return {"highest": bound, "high": bound, "medium": bound}


_STFT: dict[Precision, Bound] = {
    "highest": Bound(1e-6, 1e-6),
    "high": Bound(2e-3, 2e-3),
    "medium": Bound(2e-3, 2e-3),
}

#: Operator -> what `torch.get_float32_matmul_precision()` says -> bound, for float32 inputs.
ACCURACY: dict[str, dict[Precision, Bound]] = {
    "soft_mask": _same(Bound(2e-7, 5e-7)),
    "soft_mask_loss": _same(Bound(5e-7, 5e-7)),
    "stft": _STFT,
    "istft": _STFT,
    "stft_magnitude": _STFT,
    "masked_istft": _STFT,
}
