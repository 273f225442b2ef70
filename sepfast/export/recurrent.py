"""Recurrent layers as one node of a graph, in place of one for every step.

Traced, an `nn.LSTM` is for the number of steps that it was traced with, and a layer with peepholes
is as many nodes as it takes steps. The operator `lstm` is one node for any number of steps, and
ONNX has the very same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sepfast import modules, reference
from sepfast.reference.lstm_layouts import GATES


class _BLSTM(modules.LSTM):
    """`sepfast.reference.BLSTM` by the operator; of sequences that are all as long."""

    def forward(  # type: ignore[override]
        self, sequences: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        return super().forward(sequences, None, lengths)[0]


def steps_are_traced(network: nn.Module) -> bool:
    """Whether a network has layers that are traced step by step."""
    plain = nn.LSTM, reference.LSTM
    layers = (layer for layer in network.modules() if isinstance(layer, plain))
    return not all(isinstance(layer, modules.LSTM) for layer in layers)


def as_one_node(network: nn.Module) -> None:
    """Let all recurrent layers run the operator `lstm`, in place; the same parameters."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.LSTM):
                setattr(parent, name, _swapped(layer))
            elif type(layer) is reference.LSTM:
                layer.__class__ = modules.LSTM


def _swapped(layer: nn.LSTM) -> modules.LSTM:
    made = (_BLSTM if isinstance(layer, reference.BLSTM) else modules.LSTM)(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        layer.bias,
        layer.batch_first,
        bidirectional=layer.bidirectional,
    )
    made.load_state_dict(layer.state_dict())
    weight = next(layer.parameters())
    return made.to(weight.device, weight.dtype).eval().requires_grad_(False)


def onnx_translations() -> dict[Any, Any]:
    """What ONNX's exporter makes of the operator `lstm`: its own `LSTM`."""
    from onnxscript import opset18

    op: Any = opset18  # its types are those of tensors, not of the graph's values
    gates = [GATES["torch"].index(gate) for gate in GATES["onnx"]]
    peepholes = [GATES["torch"].replace("g", "").index(gate) for gate in "iof"]

    def ordered(x: Any, order: list[int], *axes: int) -> Any:
        """Gates (D, 4 H, ...) in ONNX's order."""
        apart = op.Reshape(x, op.Constant(value_ints=[0, len(order), -1, *axes]))
        taken = op.Gather(apart, op.Constant(value_ints=order), axis=1)
        return op.Reshape(taken, op.Constant(value_ints=[0, -1, *axes]))

    def lstm(
        input: Any, weight: Any, recurrent: Any, bias: Any = None, peephole: Any = None,
        lengths: Any = None, hidden: Any = None, cell: Any = None, recompute: bool = False,
    ) -> tuple[Any, ...]:  # fmt: skip
        assert lengths is None
        directions, _, size = recurrent.shape
        if bias is not None:
            own = ordered(bias, gates)
            bias = op.Concat(own, op.Sub(own, own), axis=1)  # ONNX adds two
        if peephole is not None:
            peephole = ordered(peephole, peepholes)
        steps, last, cells = op.LSTM(
            op.Transpose(input, perm=[1, 0, 2]),
            ordered(weight, gates, weight.shape[2]),
            ordered(recurrent, gates, size),
            bias,
            None,
            hidden,
            cell,
            peephole,
            hidden_size=size,
            direction="bidirectional" if directions == 2 else "forward",
        )  # steps (T, D, B, H)
        output = op.Reshape(
            op.Transpose(steps, perm=[2, 0, 1, 3]), op.Constant(value_ints=[0, 0, -1])
        )
        # The operator's last two are for its gradient: nothing reads them here.
        return output, last, cells, op.Identity(cells), op.Identity(cells)

    return {torch.ops.sepfast.lstm.default: lstm}
