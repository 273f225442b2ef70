"""The decoders of DeepConvSep over a whole track: deconvolutions, soft masks and cross-fade.

K contexts of T frames, `step` frames apart, S sources, N1 vertical and N2 horizontal filters, t2
frames a horizontal filter spans, T' = T - t2 + 1, C channels, F bins; L = (K - 1) step + T frames,
0 for no context.

    u[k, s, t, n1] = b1[s, n1] + sum_{n2, tau} z[k, s, n2, t - tau] W2[s, n2, n1, tau]
    y[k, s, c, t, f] = relu(b2[s, c] + sum_n1 u[k, s, t, n1] W1[s, n1, c, f])
    m = y / sum_s y, 1/S at silence
    out[s, c, i, f] = sum_{k: 0 <= i - k step < T} fades[k, i - k step] m[k, s, c, i - k step, f]

Estimates of many contexts would fill the memory; they are taken in batches that stay in the cache.
Backward, with g the incoming gradient in the windows of the contexts, times the fades:

    dy_s = (g_s - sum_r g_r m_r) / sum_r y_r where y_s > 0, else 0
    du = W1 dy,  dW1 = u dy,  db2 = sum dy,  dz = W2 du,  dW2 = z du,  db1 = sum du

Source: A and B, "inference".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sepfast.reference.half_types import widened

#: Contexts decoded at once: their estimates, 8 * 30 * 513 floats each, stay in the cache.
_BATCH = 8

#: Stands for 0 in the estimates, so that where all are silent the shares are equal, not 0 / 0.
_SILENCE = 1e-30


class OverlapDecodeGrads(NamedTuple):
    """The gradients of `overlap_decode`, each shaped as what it is of.

    Attributes:
        codes: (K, S, N2, T').
        horizontal: (S, N2, N1, t2).
        horizontal_bias: (S, N1), also where there is none.
        vertical: (S, N1, C, F).
        vertical_bias: (S, C), likewise.
    """

    codes: Tensor
    horizontal: Tensor
    horizontal_bias: Tensor
    vertical: Tensor
    vertical_bias: Tensor


def overlap_decode(
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    fades: Tensor,
    step: int,
    compact: bool = False,
) -> Tensor:
    """Cross-faded shares of the sources, from the codes of overlapping contexts.

    Args:
        codes: (K, S, N2, T').
        horizontal: (S, N2, N1, t2).
        horizontal_bias: (S, N1), or None.
        vertical: (S, N1, C, F).
        vertical_bias: (S, C), or None.
        fades: (K, T), the weights of a context's frames.
        step: frames from one context to the next, 1 to T.
        compact: give float16.

    Returns:
        (S, C, L, F), float16 or in the type of `codes`.
    """
    decoder = _Decoder(horizontal, horizontal_bias, vertical, vertical_bias)
    contexts, length = fades.shape
    frames = (contexts - 1) * step + length if contexts else 0
    sources, _, channels, bins = vertical.shape
    line = decoder.vertical.new_empty(sources, channels, frames, bins)
    reached = 0
    for batch in _batches(contexts):
        count, first = batch.stop - batch.start, batch.start * step
        stop = first + (count - 1) * step + length
        line[:, :, reached:stop] = 0  # here, where it comes into the cache, not all in front
        reached = stop
        masks = decoder.estimates(decoder.features(codes[batch]))  # (S, C, k, T, F)
        masks *= widened(fades[batch, :, None]) / masks.sum(0)
        for begin in range(0, length, step):
            piece = masks[..., begin : begin + step, :]
            _windows(line, first + begin, piece.shape[3], step, count).add_(piece)
    return line.to(torch.float16 if compact else codes.dtype)


def overlap_decode_backward(
    grad: Tensor,
    codes: Tensor,
    horizontal: Tensor,
    horizontal_bias: Tensor | None,
    vertical: Tensor,
    vertical_bias: Tensor | None,
    fades: Tensor,
    step: int,
) -> OverlapDecodeGrads:
    """The gradients of `overlap_decode` with respect to all but the fades.

    Args:
        grad: (S, C, L, F), the gradient of the shares.
        codes: as in the forward, and so are the others.
        horizontal: (S, N2, N1, t2).
        horizontal_bias: (S, N1), or None.
        vertical: (S, N1, C, F).
        vertical_bias: (S, C), or None.
        fades: (K, T).
        step: as in the forward.

    Returns:
        Gradients in the type of `codes`.
    """
    decoder = _Decoder(horizontal, horizontal_bias, vertical, vertical_bias)
    contexts, length = fades.shape
    of_codes = torch.empty_like(codes, memory_format=torch.contiguous_format)
    of_vertical = torch.zeros_like(decoder.vertical)
    of_horizontal = torch.zeros_like(widened(horizontal), memory_format=torch.contiguous_format)
    of_bias = of_horizontal.new_zeros(horizontal.shape[0], horizontal.shape[2])
    for batch in _batches(contexts):
        count = batch.stop - batch.start
        features = decoder.features(codes[batch])  # (S, k, T, N1 + 1)
        windows = _windows(grad, batch.start * step, length, step, count)
        slope = _mask_slope(
            decoder.estimates(features), widened(windows) * widened(fades[batch, :, None])
        ).flatten(2, 3)  # (S, C, k T, F)
        of_vertical += features.flatten(1, 2).mT[:, None] @ slope
        of_features = (slope @ decoder.vertical[:, :, :-1].mT).sum(1)  # (S, k T, N1)
        of_features = of_features.unflatten(1, (count, length))
        # A window for each frame of the filters: (S, k, t2, N1, T').
        late = of_features.unfold(2, codes.shape[-1], 1)
        of_codes[batch] = torch.einsum("skanp,sgna->ksgp", late, decoder.horizontal)
        of_horizontal += torch.einsum("skanp,ksgp->sgna", late, widened(codes[batch]))
        of_bias += of_features.sum((1, 2))
    gradients = (
        of_codes,
        of_horizontal,
        of_bias,
        of_vertical[:, :, :-1].transpose(1, 2),
        of_vertical[:, :, -1].sum(-1),
    )
    return OverlapDecodeGrads(*(x.to(codes.dtype) for x in gradients))


class _Decoder:
    """All sources' deconvolutions of a batch of contexts, as one layer and one matrix product."""

    def __init__(
        self,
        horizontal: Tensor,
        horizontal_bias: Tensor | None,
        vertical: Tensor,
        vertical_bias: Tensor | None,
    ) -> None:
        sources, _, channels, bins = vertical.shape
        self.horizontal = widened(horizontal)
        self.bias = None if horizontal_bias is None else widened(horizontal_bias).flatten()
        weights = widened(vertical).transpose(1, 2)  # (S, C, N1, F)
        if vertical_bias is None:
            vertical_bias = vertical.new_zeros(sources, channels)
        bias = widened(vertical_bias)[:, :, None, None].expand(-1, -1, 1, bins)
        # A feature that is always one carries the bias through the product.
        self.vertical = torch.cat([weights, bias], dim=2)  # (S, C, N1 + 1, F)

    def features(self, codes: Tensor) -> Tensor:
        """Features of contexts (k, S, N2, T'): (S, k, T, N1 + 1), the last always one."""
        sources = codes.shape[1]
        wide = F.conv_transpose1d(
            widened(codes).flatten(1, 2), self.horizontal.flatten(0, 1), self.bias, groups=sources
        )
        # Frames before filters, as the product reads them.
        return F.pad(wide.unflatten(1, (sources, -1)).permute(1, 0, 3, 2), (0, 1), value=1)

    def estimates(self, features: Tensor) -> Tensor:
        """Estimates of features (S, k, T, N1 + 1): (S, C, k, T, F), `_SILENCE` for 0."""
        rows = features.flatten(1, 2)[:, None].expand(-1, self.vertical.shape[1], -1, -1)
        estimates = torch.bmm(rows.flatten(0, 1), self.vertical.flatten(0, 1)).clamp_min_(_SILENCE)
        return estimates.view(*self.vertical.shape[:2], *features.shape[1:3], -1)


def _mask_slope(estimates: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the estimates (S, ...) from that of their shares, in place in `grad`."""
    total = estimates.sum(0)
    grad -= (grad * estimates).sum(0) / total
    grad /= total
    return grad.masked_fill_(estimates <= _SILENCE, 0)


def _windows(line: Tensor, begin: int, width: int, step: int, count: int) -> Tensor:
    """Views of a line (S, C, frames, F), `width` frames each: (S, C, count, width, F)."""
    reached = line[:, :, begin : begin + (count - 1) * step + width]
    return reached.unfold(2, width, step).transpose(-1, -2)


def _batches(contexts: int) -> Iterator[slice]:
    for first in range(0, contexts, _BATCH):
        yield slice(first, min(first + _BATCH, contexts))
