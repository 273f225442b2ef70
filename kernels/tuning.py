"""Which configuration a kernel is launched with: looked up in data, never searched at run time.

`tuned/<kernel>.json` is a list of {"device", "key", "config"}: `device` is "any", "cuda", or a
target of the compile gate such as "cuda:90"; `key` what the choice depends on; `config` the
kernel's block sizes with num_warps and num_stages. A search at run time would stall on every new
length and break the capture of a graph.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

Config = Mapping[str, int]

_FOLDER = Path(__file__).parent / "tuned"

#: A number of the key that is further off than this factor is worth a warning.
_NEAR = 2.0


def lookup(kernel: str, device: torch.device, **key: Any) -> Config:
    """The configuration that was shipped for the nearest key.

    Args:
        kernel: its name.
        device: where it will run; entries for that GPU come before those for any.
        **key: numbers are compared by their ratio, anything else must be equal.

    Raises:
        KeyError: where no entry has equal words.
    """
    return _lookup(kernel, _device_name(device), tuple(sorted(key.items())))


def has_config(kernel: str, device: torch.device, **key: Any) -> bool:
    """Whether a kernel is shipped for a device, the words of a key and, exactly, its numbers."""
    name = _device_name(device)
    return any(
        _fits(entry, name) and all(entry["key"].get(k, v) == v for k, v in key.items())
        for entry in _entries(kernel)
    )


def shipped_kernels() -> list[str]:
    """The names of all kernels that configurations are shipped for."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def shipped(kernel: str) -> Iterator[tuple[str, dict[str, Any], Config]]:
    """Every device, key and configuration of a kernel."""
    for entry in _entries(kernel):
        yield entry["device"], entry["key"], entry["config"]


@lru_cache(maxsize=1024)
def walk_length(total: int, lines: int, most: int, processors: int) -> int:
    """Blocks that a program walks along, where it repeats the one before its first.

    Args:
        total: blocks of a line.
        lines: lines, each shared out to programs of its own.
        most: what the configuration allows.
        processors: programs that run at a time.

    Returns:
        What keeps the busiest processor shortest; of equals the longest, which repeats least.
    """

    def busiest(blocks: int) -> int:
        programs = -(-total // blocks) * lines
        return -(-programs // processors) * (blocks + 1)

    return min(range(max(1, min(most, total)), 0, -1), key=busiest)


@lru_cache(maxsize=1024)
def _lookup(kernel: str, device: str, key: tuple[tuple[str, Any], ...]) -> Config:
    wanted = dict(key)
    fitting = [
        (_distance(entry["key"], wanted), entry)
        for entry in _entries(kernel)
        if _fits(entry, device) and _same_words(entry["key"], wanted)
    ]
    if not fitting:
        raise KeyError(f"{kernel}: no configuration for {wanted}")
    near = [pair for pair in fitting if pair[0] <= math.log(_NEAR)]
    if not near:
        warnings.warn(
            f"sepfast: {kernel} has no configuration tuned near {wanted}; it may be slow",
            stacklevel=2,
        )
    # Of what is near, what was chosen for this GPU comes first; then the nearest.
    best = min(near or fitting, key=lambda pair: (pair[1]["device"] != device, pair[0]))
    return best[1]["config"]


@lru_cache(maxsize=64)
def _entries(kernel: str) -> list[dict[str, Any]]:
    return json.loads((_FOLDER / f"{kernel}.json").read_text())


@lru_cache(maxsize=64)
def _device_name(device: torch.device) -> str:
    """A device as the compile gate names it; "cpu" for the interpreter."""
    if device.type != "cuda":
        return "cpu"
    if torch.version.hip:
        return "hip:" + torch.cuda.get_device_properties(device).gcnArchName.split(":")[0]
    return "cuda:{}{}".format(*torch.cuda.get_device_capability(device))


def _fits(entry: Mapping[str, Any], device: str) -> bool:
    """Whether an entry is for a device; the interpreter takes all."""
    return device == "cpu" or entry["device"] in ("any", device.split(":")[0], device)


def _same_words(entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(entry.get(k, v) == v for k, v in wanted.items() if not isinstance(v, int | float))


def _distance(entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """The sum of the logarithms of the ratios of the numbers that both have."""
    pairs = [(entry[k], v) for k, v in wanted.items() if isinstance(v, int | float) and k in entry]
    return sum(abs(math.log(max(a, 1) / max(b, 1))) for a, b in pairs)
