"""Swapping the layers of a model for fused ones, in place, and back.

A fused layer is a subclass of the plain one without state of its own, so that setting the class
of an instance is all there is to it: parameters, buffers, hooks, `state_dict` and whatever refers
to them, an optimizer or DDP, stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sepfast.errors import InputError
from sepfast.modules.registry import RULES
from sepfast.modules.rule import Rule

_NAMED = 3  # layers that the error of `strict` names


@dataclass(frozen=True)
class Replaced:
    """A layer that runs fused now.

    Attributes:
        name: its name in the model, as `named_modules` has it; empty for the model itself.
        layer: the name of its class before.
        operator: the operator that it calls, `torch.ops.sepfast.<operator>`; where there are
            several, with commas between.
    """

    name: str
    layer: str
    operator: str


@dataclass(frozen=True)
class Skipped:
    """A layer of a kind that can be fused, and stays as it is, or a part of it does.

    Attributes:
        name: its name in the model, as `named_modules` has it; empty for the model itself.
        layer: the name of its class.
        reason: why, a clause such as "its forward was replaced on the instance".
    """

    name: str
    layer: str
    reason: str


@dataclass(frozen=True)
class FuseReport:
    """What `fuse` has done, layer by layer; printed, it is a list to read.

    Layers that were fused before, and layers that sepfast knows nothing of, are not in it.

    Attributes:
        replaced: the layers that run fused now.
        skipped: those that do not, with the reason.
    """

    replaced: tuple[Replaced, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} replaced, {len(self.skipped)} skipped"]
        lines += [f"  {shown(e.name)} ({e.layer}): runs {e.operator}" for e in self.replaced]
        lines += [f"  {shown(e.name)} ({e.layer}): stays, {e.reason}" for e in self.skipped]
        return "\n".join(lines)


def fuse(model: nn.Module, *, strict: bool = False) -> FuseReport:
    """Let a model's layers run fused kernels, in place.

    Layers of `sepfast.reference`, and an `nn.Sequential` with convolution pairs of DeepConvSep or
    normalised blocks of `ConvSoftplusNorm` in it, become those of `sepfast.modules`: the same
    parameters, hooks and `state_dict`, and on a GPU a kernel. Only the instances of this model are
    changed, and what is fused already stays so. Works before or behind `torch.compile`, DDP and an
    optimizer.

    Args:
        model: any module, of sepfast or of your own.
        strict: raise where a layer would be skipped; nothing is changed then.

    Returns:
        What was replaced, and what was not and why.

    Raises:
        InputError: for something that is no module, and with `strict` for skipped layers.

    Example:
        >>> import sepfast
        >>> from torch import nn
        >>> encoder = nn.Sequential(nn.Conv2d(2, 50, (1, 513)), nn.Conv2d(50, 30, (15, 1)))
        >>> report = sepfast.fuse(nn.ModuleDict({"encoder": encoder}))
        >>> report.replaced
        (Replaced(name='encoder', layer='Sequential', operator='conv_pair'),)
    """
    _check_module(model)
    swaps, skipped = _plan(model)
    if strict and skipped:
        raise InputError(_refusal(skipped))
    replaced = []
    for name, layer, rule in swaps:
        replaced.append(Replaced(name, type(layer).__name__, rule.operator_of(layer)))
        layer.__class__ = rule.fused
    return FuseReport(tuple(replaced), skipped)


def unfuse(model: nn.Module) -> None:
    """Set every fused layer back to the plain one, in place.

    Args:
        model: any module; without fused layers nothing happens.

    Raises:
        InputError: for something that is no module.

    Example:
        >>> import sepfast
        >>> model = sepfast.create_model("deepconvsep")
        >>> report = sepfast.fuse(model)
        >>> sepfast.unfuse(model)
        >>> type(model.mask) is sepfast.reference.SoftMask
        True
    """
    _check_module(model)
    plain = {rule.fused: rule.layer for rule in RULES}
    for layer in model.modules():
        if type(layer) in plain:
            layer.__class__ = plain[type(layer)]


def shown(name: str) -> str:
    """The name of a layer for people; the model itself has none."""
    return name or "the model itself"


def _check_module(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"model: got a {type(model).__name__}, takes a torch.nn.Module")


def _plan(
    model: nn.Module,
) -> tuple[list[tuple[str, nn.Module, Rule]], tuple[Skipped, ...]]:
    """What is to be swapped and what is not, before anything is changed; each layer once."""
    swaps, skipped = [], []
    for name, layer in model.named_modules():
        verdict = _verdict(layer)
        if isinstance(verdict, Rule):
            swaps.append((name, layer, verdict))
            verdict = verdict.remainder(layer)
        if verdict:
            skipped.append(Skipped(name, _class_name(layer), verdict))
    return swaps, tuple(skipped)


def _verdict(layer: nn.Module) -> Rule | str | None:
    """The rule that swaps a layer, or why none does; None for a layer of no interest."""
    if isinstance(layer, torch.jit.ScriptModule):
        known = (rule for rule in RULES if rule.layer.__name__ == _class_name(layer))
        concerned = any(rule.concerns(layer) for rule in known)
        return "is TorchScript, fuse before scripting" if concerned else None
    if isinstance(layer, tuple(rule.fused for rule in RULES)):
        return None
    for base in type(layer).__mro__:  # the nearest class decides
        for rule in RULES:
            if rule.layer is base and rule.concerns(layer):
                return _obstacle(layer, rule) or rule
    return None


def _obstacle(layer: nn.Module, rule: Rule) -> str | None:
    """Why a rule that concerns a layer cannot be carried out."""
    if type(layer).forward is not rule.layer.forward:
        return f"its class overrides the forward of {rule.layer.__name__}"
    if type(layer) is not rule.layer:
        return f"is of a subclass of {rule.layer.__name__}, which would be lost"
    if "forward" in vars(layer):
        return "its forward was replaced on the instance"
    return rule.obstacle(layer)


def _class_name(layer: nn.Module) -> str:
    """The name of a layer's class, of a TorchScript layer that of the class it was made of."""
    if isinstance(layer, torch.jit.ScriptModule):
        return str(getattr(layer, "original_name", type(layer).__name__))
    return type(layer).__name__


def _refusal(skipped: tuple[Skipped, ...]) -> str:
    named = ", ".join(f"{shown(s.name)} ({s.layer}: {s.reason})" for s in skipped[:_NAMED])
    more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    return f"model: strict, and these would not be fused: {named}{more}"
