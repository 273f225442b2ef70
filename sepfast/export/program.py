"""A model as a graph, by `torch.export`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from sepfast.errors import InputError
from sepfast.export.networks import Network, network_of
from sepfast.export.recurrent import as_one_node, steps_are_traced
from sepfast.fusion import fuse, unfuse


def export_program(
    model: nn.Module, *, fused: bool = False, frames: int | None = None
) -> ExportedProgram:
    """Trace the network of a model, as `network_of` has it.

    Args:
        model: made by `create_model` or `load`; it stays as it is.
        fused: whether its layers run `torch.ops.sepfast`, recurrent ones too: a process that loads
            the program has to `import sepfast`, and a GPU runs kernels. Else the program is
            plain PyTorch.
        frames: how many a plain program of a recurrent model is to take, system B's denoiser, C
            and D: it is traced step by step. None for all others.

    Returns:
        The program, of the network's inputs and outputs. The axis "batch" is of any size; so are
        "frames" and "steps", but in systems A and B, which have a context, and in plain recurrent
        models.

    Raises:
        InputError: for a model that cannot be exported, and for frames that are missing or are not
            to choose.

    Example:
        >>> import sepfast, torch
        >>> from sepfast.export import export_program
        >>> program = export_program(sepfast.create_model("denoising-vae", hidden=4))
        >>> program.module()(torch.rand(3, 50, 1025)).shape
        torch.Size([3, 50, 1025])
    """
    return traced(prepared(model, fused=fused, one_node=fused), frames)


def prepared(model: nn.Module, *, fused: bool, one_node: bool) -> Network:
    """The network of a model.

    Args:
        model: the model.
        fused: whether its layers are fused.
        one_node: whether recurrent layers are one node of a graph.
    """
    network = network_of(model)
    unfuse(network)
    if fused:
        fuse(network)
    if one_node:
        as_one_node(network)
    return network


def free_axes(network: Network) -> tuple[str, ...]:
    """The axes that may be of any size in a graph of the network."""
    return ("batch",) if steps_are_traced(network) else network.free


def example_of(network: Network, frames: int | None) -> dict[str, int]:
    """The sizes to trace with.

    Raises:
        InputError: for frames that are not to choose, and where they are and are missing.
    """
    sizes = network.sizes
    if steps_are_traced(network):
        if frames is None or frames < 1:
            raise InputError(
                f"frames: got {frames}, takes how many the file is to take, 1 or more, as plain "
                "recurrent layers are traced step by step; fused, or as ONNX, it takes any number"
            )
        return sizes | {"frames": frames}
    if frames is not None:
        reason = "this file takes any number"
        if "frames" not in network.free:
            reason = f"this model takes its context of {sizes['frames']}"
        raise InputError(f"frames: got {frames}, takes None, as {reason}")
    return sizes


def traced(network: Network, frames: int | None) -> ExportedProgram:
    """The graph of a network; see `export_program`."""
    inputs = network.example(**example_of(network, frames))
    dims = {axis: Dim(axis) for axis in free_axes(network)}
    shapes = tuple(
        {at: dims[axis] for at, axis in enumerate(port.axes) if axis in dims}
        for port in network.inputs
    )
    with torch.no_grad(), known_warnings():
        return torch.export.export(network, inputs, dynamic_shapes=shapes)


@contextmanager
def known_warnings() -> Iterator[None]:
    """Without what PyTorch warns of inside: an `nn.LSTM` sets a list of its own parameters again
    while it is traced, and graphs are copied by a name that PyTorch is about to give up."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tensor attributes? .*_flat_weights")
        warnings.filterwarnings("ignore", r"`isinstance\(treespec", FutureWarning)
        yield
