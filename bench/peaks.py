"""Memory that a call takes at its peak, as PyTorch's own allocator counts it.

On a GPU the allocator keeps the count. On a CPU it tells each allocation to the profiler, those
within an operator too; what libraries take by themselves (MKL's buffers, numpy's arrays) is not
seen, nor is a block freed that was there before the profiler was. Neither is part of a timing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile, record_function

from sepfast.muted import muted

_MARK, _MEMORY = "sepfast peak", "[memory]"


def peak_of(
    call: Callable[[], Any], device: torch.device, before: Callable[[], Any] | None = None
) -> int:
    """Bytes that a call holds at most, beyond what was there when it began.

    Args:
        call: the call.
        device: where it runs.
        before: called ahead of it; what this allocates and the call frees is then known of, as the
            gradients of one training step that the next one replaces.
    """
    return (_on_gpu if device.type == "cuda" else _on_cpu)(call, device, before or (lambda: None))


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors take, those of a memory that several share once."""
    storages = [x.untyped_storage() for x in tensors]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def alive(device: torch.device) -> int:
    """Bytes of all tensors that there are on a device; on a CPU those that Python can reach.

    What is in cycles is there until it is collected.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    # By type: to ask an object for its class makes some of them warn.
    found: list[Tensor] = [x for x in gc.get_objects() if type(x) in (Tensor, nn.Parameter)]
    found += [x.grad for x in found if x.is_leaf and x.grad is not None]
    return held(x for x in found if x.device.type == "cpu" and x.layout == torch.strided)


def _on_gpu(call: Callable[[], Any], device: torch.device, before: Callable[[], Any]) -> int:
    before()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    there = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - there


def _on_cpu(call: Callable[[], Any], device: torch.device, before: Callable[[], Any]) -> int:
    with muted(), profile(use_cpu=True, profile_memory=True) as profiler:
        before()
        with record_function(_MARK):
            call()
    results = profiler.kineto_results
    assert results is not None
    events = sorted(results.events(), key=lambda event: event.start_ns())
    start = next(event.start_ns() for event in events if event.name() == _MARK)
    now = there = peak = 0
    for event in events:
        if event.name() != _MEMORY:
            continue
        now += event.nbytes()
        if event.start_ns() < start:
            there = now
        peak = max(peak, now - there)
    return peak
