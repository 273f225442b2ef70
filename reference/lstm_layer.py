"""The layer `LSTM`: `torch.nn.LSTM` with lengths and peepholes, by the mathematics of `lstm`.

It has the names of `nn.LSTM`'s parameters, but is no subclass: inside a model, `torch.compile`
stops its graph in front of whatever is an `nn.LSTM`, and the flat buffer that one keeps beside its
parameters has no place for peepholes.
"""

from __future__ import annotations

import warnings
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from sepfast.errors import InputError
from sepfast.reference.lengths import check_lengths
from sepfast.reference.lstm import lstm
from sepfast.reference.lstm_layouts import LSTMWeights, from_torch

States = tuple[Tensor, Tensor]


class LSTM(nn.Module):
    """Stacked recurrent layers: `torch.nn.LSTM`, with lengths and peepholes.

    A `state_dict` of `nn.LSTM` loads where there are no peepholes. Peepholes of layer k are
    `weight_ph_l{k}` and `weight_ph_l{k}_reverse`, (3, H) for i, f and o.

    Args:
        input_size: I, features of a step that comes in.
        hidden_size: H, features of a step that goes out, in each direction.
        num_layers: how many are stacked.
        bias: whether they have biases.
        batch_first: whether tensors are (B, T, ...), not (T, B, ...).
        dropout: the share of each layer's output but the last's that is dropped in training.
        bidirectional: whether each layer has a second direction, from the last step to the first.
        proj_size: 0; there are no projections.
        device: of the parameters.
        dtype: likewise.
        peephole: whether gates see the cell.
        recompute: whether the fused layer's gradient takes the gates again instead of keeping
            them, for two thirds less memory.

    Raises:
        InputError: for sizes below 1, projections, or a dropout that is no share.

    Example:
        >>> import torch, sepfast
        >>> encoder = sepfast.reference.LSTM(5, 4, bidirectional=True, batch_first=True)
        >>> output, (hidden, cell) = encoder(torch.rand(2, 7, 5), lengths=torch.tensor([7, 3]))
        >>> output.shape, hidden.shape
        (torch.Size([2, 7, 8]), torch.Size([2, 2, 4]))
        >>> bool(output[1, 3:].any())
        False
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        peephole: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise InputError(f"{name}: got {size}, takes 1 or more")
        if proj_size:
            raise InputError(f"proj_size: got {proj_size}, takes 0")
        if not 0 <= dropout <= 1:
            raise InputError(f"dropout: got {dropout}, takes 0 to 1")
        if dropout and num_layers == 1:
            warnings.warn("dropout: it is between layers, and there is one", stacklevel=2)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size, self.peephole = bidirectional, 0, peephole
        self.recompute = recompute
        for layer in range(num_layers):
            for name, shape in self._shapes(layer).items():
                made = torch.empty(shape, device=device, dtype=dtype)
                self.register_parameter(name, nn.Parameter(made))
        self.reset_parameters()

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """The names and shapes of a layer's parameters, in `nn.LSTM`'s order."""
        size = self.hidden_size
        features = self._directions * size if layer else self.input_size
        shapes: dict[str, tuple[int, ...]] = {}
        for suffix in ("", "_reverse")[: self._directions]:
            shapes[f"weight_ih_l{layer}{suffix}"] = 4 * size, features
            shapes[f"weight_hh_l{layer}{suffix}"] = 4 * size, size
            if self.bias:
                shapes[f"bias_ih_l{layer}{suffix}"] = (4 * size,)
                shapes[f"bias_hh_l{layer}{suffix}"] = (4 * size,)
            if self.peephole:
                shapes[f"weight_ph_l{layer}{suffix}"] = 3, size
        return shapes

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction, as `nn.LSTM` lists them."""
        layers = [list(self._shapes(layer)) for layer in range(self.num_layers)]
        each = [len(names) // self._directions for names in layers]
        return [
            [getattr(self, name) for name in names[start : start + size]]
            for names, size in zip(layers, each, strict=True)
            for start in range(0, len(names), size)
        ]

    def reset_parameters(self) -> None:
        """Draw all parameters evenly from -1/sqrt(H) to 1/sqrt(H), as `nn.LSTM` does."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: what `nn.LSTM` needs this for, a buffer of cuDNN's, is not used."""

    def extra_repr(self) -> str:
        """Its options, for printing."""
        options = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        options |= {"bidirectional": False, "peephole": False}
        values = ((name, getattr(self, name), usual) for name, usual in options.items())
        changed = (f"{name}={value}" for name, value, usual in values if value != usual)
        return ", ".join((str(self.input_size), str(self.hidden_size), *changed))

    def weights(self, layer: int) -> LSTMWeights:
        """The parameters of one of the layers, as `lstm` takes them."""
        return from_torch(self, layer)

    def layer(
        self,
        index: int,
        input: Tensor,
        lengths: Tensor | None,
        hidden: Tensor | None,
        cell: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One of the layers; what a fused one overrides.

        Args:
            index: which.
            input: (B, T, its features).
            lengths: (B,) integers or None.
            hidden: (D, B, H) or None.
            cell: (D, B, H) or None.

        Returns:
            What `lstm` gives.
        """
        return lstm(input, *self.weights(index), lengths, hidden, cell)

    @overload
    def forward(
        self, input: Tensor, hx: States | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]: ...

    @overload
    def forward(
        self, input: PackedSequence, hx: States | None = None, lengths: None = None
    ) -> tuple[PackedSequence, States]: ...

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: States | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, States]:
        """Walk through sequences.

        Args:
            input: (T, B, I), with `batch_first` (B, T, I), without batch (T, I), or packed.
            hx: the initial output and cell, (layers D, B, H), without batch (layers D, H); None
                for 0.
            lengths: (B,) integers, steps that count, instead of packing, which costs a copy and a
                wait for the device; below 0 is 0, above T is T, None all.

        Returns:
            The output, in the form of the input, with D H features and 0 behind the lengths; and
            the output and cell behind each sequence's own last step, in the form of `hx`. The cell
            of half types is float32.

        Raises:
            InputError: for what does not fit the layer.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise InputError("lengths: got a tensor, takes None for packed sequences")
            return self._packed(input, hx)
        if input.ndim not in (2, 3):
            raise InputError(
                f"input: got {input.ndim} axes, takes 3, 2 without batch, or packed sequences"
            )
        if input.ndim == 2:
            if lengths is not None:
                raise InputError("lengths: got a tensor, takes None for an input without batch")
            for name, state in _named(hx):
                if state.ndim != 2:
                    raise InputError(f"{name}: got {state.ndim} axes, takes 2 as the input has")
            batched = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
            output, (h, c) = self._stacked(input[None], batched, None)
            return output[0], (h[:, 0], c[:, 0])
        if self.batch_first:
            return self._stacked(input, hx, lengths)
        output, states = self._stacked(input.transpose(0, 1), hx, lengths)
        return output.transpose(0, 1), states

    def _packed(self, input: PackedSequence, hx: States | None) -> tuple[PackedSequence, States]:
        """Through sequences in the order in which they are packed, the longest first."""
        data, sizes, there, back = input
        padded, lengths = pad_packed_sequence(PackedSequence(data, sizes), batch_first=True)
        if hx is not None and there is not None:
            hx = hx[0].index_select(1, there), hx[1].index_select(1, there)
        output, (h, c) = self._stacked(padded, hx, lengths)
        if back is not None:
            h, c = h.index_select(1, back), c.index_select(1, back)
        packed = pack_padded_sequence(output, lengths, batch_first=True).data
        return PackedSequence(packed, sizes, there, back), (h, c)

    def _stacked(
        self, input: Tensor, hx: States | None, lengths: Tensor | None
    ) -> tuple[Tensor, States]:
        """Layer by layer, (B, T, I) to (B, T, D H)."""
        self._check(input, hx, lengths)
        hidden, cell = (None, None) if hx is None else hx
        lengths = None if lengths is None else lengths.to(input.device)
        size, last = self._directions, []
        for index in range(self.num_layers):
            if index and self.dropout:
                input = F.dropout(input, self.dropout, self.training)
            own = slice(index * size, (index + 1) * size)
            states = (None if x is None else x[own] for x in (hidden, cell))
            input, *ends = self.layer(index, input, lengths, *states)
            last.append(ends)
        h, c = (torch.cat(x) for x in zip(*last, strict=True))
        return input, (h, c)

    def _check(self, input: Tensor, hx: States | None, lengths: Tensor | None) -> None:
        """Raise `InputError` for what does not fit."""
        batch, features = input.shape[0], input.shape[2]
        if features != self.input_size:
            raise InputError(f"input: got {features} features a step, takes {self.input_size}")
        dtype = self.weight_hh_l0.dtype
        if input.dtype != dtype and not torch.is_autocast_enabled(input.device.type):
            raise InputError(f"input: got {input.dtype}, takes {dtype} as the parameters are")
        shape = (self._directions * self.num_layers, batch, self.hidden_size)
        for name, state in _named(hx):
            if tuple(state.shape) != shape:
                raise InputError(f"{name}: got shape {tuple(state.shape)}, takes {shape}")
        if lengths is not None:
            check_lengths("lengths", lengths, batch)


def _named(hx: States | None) -> tuple[tuple[str, Tensor], ...]:
    """The initial states with what errors call them."""
    return () if hx is None else (("hx[0]", hx[0]), ("hx[1]", hx[1]))
