"""The fused `LSTM`."""

from __future__ import annotations

from torch import Tensor

from sepfast import ops, reference
from sepfast.modules.rule import Rule


class LSTM(reference.LSTM):
    """`sepfast.reference.LSTM` by the operator `lstm`, layer by layer.

    `nn.LSTM` itself is not swapped: cuDNN runs it, and the operator has not been measured to be
    faster. Where peepholes, lengths or `torch.compile` are wanted, this is the layer to build.

    Example:
        >>> import torch, sepfast
        >>> layer = sepfast.modules.LSTM(136, 250, num_layers=2, bidirectional=True, peephole=True,
        ...                              batch_first=True)
        >>> output, (hidden, cell) = layer(torch.rand(2, 7, 136), lengths=torch.tensor([7, 3]))
        >>> output.shape
        torch.Size([2, 7, 500])
    """

    def layer(
        self,
        index: int,
        input: Tensor,
        lengths: Tensor | None,
        hidden: Tensor | None,
        cell: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One of the layers, see `sepfast.reference.LSTM`."""
        states = lengths, hidden, cell
        return ops.lstm(input, *self.weights(index), *states, recompute=self.recompute)


RULES = (Rule(reference.LSTM, LSTM, "lstm"),)
