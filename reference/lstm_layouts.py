"""Where other libraries keep an LSTM's gates, and what brings them into the layout of `lstm`.

I features of a step that comes in, H hidden size, D directions. `GATES` is the one place that
knows the orders. Forget biases: PyTorch and ONNX keep what is added, TensorFlow's cells add theirs,
1 by default, when they run, so that it is added to the bias here.

Sources: the equations of `torch.nn.LSTM`; of TensorFlow's `LSTMCell` and `LSTMBlockCell`, whose
gates are "icfo"; and of ONNX's operator `LSTM`, whose gates are "iofc".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from sepfast.errors import InputError

Array: TypeAlias = Tensor | np.ndarray[Any, Any]

#: The order of the gates: i input, f forget, g what is proposed for the cell (others call it c or
#: j), o output. Peepholes stand in the same order without g, which has none.
GATES = {"torch": "ifgo", "tensorflow": "igfo", "onnx": "iofg"}

#: What `torch.nn.LSTM` calls its parameters, and peepholes as it would.
_NAMES = {
    "weight": "weight_ih",
    "recurrent": "weight_hh",
    "bias": "bias_ih",
    "second": "bias_hh",
    "peephole": "weight_ph",
}


class LSTMWeights(NamedTuple):
    """What `lstm` takes behind its input.

    Attributes:
        weight: (D, 4 H, I).
        recurrent: (D, 4 H, H).
        bias: (D, 4 H) or None.
        peephole: (D, 3, H) or None.
    """

    weight: Tensor
    recurrent: Tensor
    bias: Tensor | None
    peephole: Tensor | None


def from_torch(source: nn.Module | Mapping[str, Any], layer: int = 0) -> LSTMWeights:
    """Of a layer with the parameter names of `torch.nn.LSTM`.

    Args:
        source: an `nn.LSTM`, a `sepfast.reference.LSTM`, or the `state_dict` of one.
        layer: which of the stacked ones.

    Returns:
        Both directions where there are two. Gradients reach the parameters of a module.

    Raises:
        InputError: for a layer that is not there, or one with projections.
    """

    def gathered(name: str) -> Tensor | None:
        both = (_parameter(source, f"{name}_l{layer}{suffix}") for suffix in ("", "_reverse"))
        there = [x for x in both if x is not None]
        return torch.stack(there) if there else None

    weight, recurrent, bias, second, peephole = map(gathered, _NAMES.values())
    if weight is None or recurrent is None:
        raise InputError(f"layer: got {layer}, takes one that the source has weights of")
    if gathered("weight_hr") is not None:
        raise InputError("source: got an LSTM with projections, takes one without")
    if bias is not None and second is not None:
        bias = bias + second
    return LSTMWeights(weight, recurrent, bias, peephole)


def from_tensorflow(
    kernel: Array,
    bias: Array,
    peepholes: Sequence[Array] | None = None,
    forget_bias: float = 1.0,
) -> LSTMWeights:
    """Of one direction by TensorFlow's `LSTMCell` or `LSTMBlockCell`.

    Args:
        kernel: (I + H, 4 H).
        bias: (4 H,).
        peepholes: `w_i_diag`, `w_f_diag` and `w_o_diag`, (H,) each; None for a cell without.
        forget_bias: what the cell adds to the forget gate when it runs.

    Returns:
        One direction; `bidirectional` puts two side by side.

    Raises:
        InputError: for arrays that do not fit together.
    """
    both, flat = torch.as_tensor(kernel), torch.as_tensor(bias)
    size = _hidden_size("kernel", both, "(I + H, 4 H)", 1)
    features = len(both) - size
    if features < 1:
        raise InputError(f"kernel: got shape {tuple(both.shape)}, takes (I + H, 4 H)")
    _takes("bias", flat, (4 * size,))
    kept = None
    if peepholes is not None:
        vectors = [torch.as_tensor(x) for x in peepholes]
        if len(vectors) != 3:
            raise InputError(f"peepholes: got {len(vectors)}, takes 3, of i, f and o")
        for vector in vectors:
            _takes("peepholes", vector, (size,))
        kept = torch.stack(vectors)[None]
    weight, recurrent = _in_order(both.mT, GATES["tensorflow"]).split((features, size), 1)
    i, f, g, o = _in_order(flat, GATES["tensorflow"]).chunk(4)
    return LSTMWeights(
        weight[None].contiguous(),
        recurrent[None].contiguous(),
        torch.cat((i, f + forget_bias, g, o))[None],
        kept,
    )


def from_onnx(W: Array, R: Array, B: Array | None = None, P: Array | None = None) -> LSTMWeights:
    """Of ONNX's operator `LSTM`, with its own names.

    It is that operator with its own activations, without clip and with `input_forget` 0; D is 2
    for direction "bidirectional". For direction "reverse" alone there is no layer here.

    Args:
        W: (D, 4 H, I).
        R: (D, 4 H, H).
        B: (D, 8 H), that of W, then that of R; None for 0.
        P: (D, 3 H), peepholes; None for 0.

    Raises:
        InputError: for arrays that do not fit together.
    """
    weight, recurrent = torch.as_tensor(W), torch.as_tensor(R)
    order, size = GATES["onnx"], _hidden_size("W", weight, "(D, 4 H, I)", 1)
    directions = len(weight)
    _takes("R", recurrent, (directions, 4 * size, size))
    bias = peephole = None
    if B is not None:
        bias = torch.as_tensor(B)
        _takes("B", bias, (directions, 8 * size))
        bias = _in_order(bias[:, : 4 * size] + bias[:, 4 * size :], order, 1)
    if P is not None:
        peephole = torch.as_tensor(P)
        _takes("P", peephole, (directions, 3 * size))
        peephole = _in_order(peephole, order.replace("g", ""), 1).unflatten(1, (3, size))
    return LSTMWeights(_in_order(weight, order, 1), _in_order(recurrent, order, 1), bias, peephole)


def bidirectional(first: LSTMWeights, second: LSTMWeights) -> LSTMWeights:
    """Two directions side by side, of one direction each.

    Args:
        first: of the direction from the first step on.
        second: of the direction from the last step on.

    Raises:
        InputError: where one has a bias or peepholes and the other has none.
    """
    joined: list[Tensor | None] = []
    for name, x, y in zip(LSTMWeights._fields, first, second, strict=True):
        if (x is None) != (y is None):
            raise InputError(f"second: got {_presence(y)} {name}, takes {_presence(x)}")
        joined.append(None if x is None or y is None else torch.cat((x, y)))
    return LSTMWeights(*joined)  # type: ignore[arg-type]


@torch.no_grad()
def load_layer(module: nn.Module, weights: LSTMWeights, layer: int = 0) -> None:
    """Put weights into a layer of an LSTM; its second bias becomes 0.

    Args:
        module: an `nn.LSTM` or a `sepfast.reference.LSTM`; it has biases or peepholes where
            `weights` have them. Where only it has them, they become 0.
        weights: of as many directions as it has.
        layer: which of the stacked ones.

    Raises:
        InputError: for weights that do not fit; then nothing is changed.
    """
    own = from_torch(module, layer)
    values = {}
    for name, new, old in zip(LSTMWeights._fields, weights, own, strict=True):
        if old is None and new is None:
            continue
        if old is None:
            raise InputError(f"weights: got a {name}, takes None for a layer without")
        assert new is not None or name in ("bias", "peephole")
        values[name] = torch.zeros_like(old) if new is None else new
        _takes(f"weights: {name}", values[name], tuple(old.shape))
    if "bias" in values:
        values["second"] = torch.zeros_like(values["bias"])
    for name, value in values.items():
        for suffix, one in zip(("", "_reverse"), value, strict=False):
            getattr(module, f"{_NAMES[name]}_l{layer}{suffix}").copy_(one)


def _in_order(x: Tensor, order: str, dim: int = 0) -> Tensor:
    """Gates, or peepholes, that stand behind each other along an axis, in the order of `lstm`."""
    parts = dict(zip(order, x.chunk(len(order), dim), strict=True))
    return torch.cat([parts[gate] for gate in GATES["torch"] if gate in parts], dim)


def _hidden_size(name: str, array: Tensor, shape: str, axis: int) -> int:
    """H, from an array whose axis has the four gates."""
    size = array.shape[axis] // 4 if array.ndim == shape.count(",") + 1 else 0
    if not size or array.shape[axis] != 4 * size:
        raise InputError(f"{name}: got shape {tuple(array.shape)}, takes {shape}")
    return size


def _takes(name: str, array: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape."""
    if tuple(array.shape) != shape:
        raise InputError(f"{name}: got shape {tuple(array.shape)}, takes {shape}")


def _presence(x: Tensor | None) -> str:
    return "no" if x is None else "a"


def _parameter(source: nn.Module | Mapping[str, Any], name: str) -> Tensor | None:
    """A parameter by its name, None where there is none."""
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
