"""What a run was made with, for whoever finds its folder later: `run.json`.

    model, model_options, seed, data    of the run
    sessions                            one for each time that it was begun or gone on with: when,
                                        from which epoch, with which options, command, versions,
                                        device, number of processes and commit

Nothing is read from it but the sessions before. Nothing of the environment is written.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sepfast.files import PathLike, atomic
from sepfast.reference import Model
from sepfast.surroundings import commit_of, version
from sepfast.training.options import TrainingOptions

_PACKAGES = ("torch", "numpy", "triton")


def write_record(
    path: Path,
    model: Model,
    options: TrainingOptions,
    data: PathLike | None,
    first: int,
    note: Callable[[str], None],
    *,
    resumed: bool,
    processes: int = 1,
) -> None:
    """Write `run.json`, or one session more; replaced in one step.

    Args:
        path: the file.
        model: on the device where it is trained.
        options: of this session.
        data: what was learnt from, as it was given; None where that has no path.
        first: the epoch that the session begins with.
        note: is told of a file before that is broken, and is replaced.
        resumed: whether the sessions before are of this run.
        processes: how many train.

    Raises:
        InputError: for a file that cannot be written.
    """
    record = {
        "model": model.model_name,
        "model_options": model.model_options,
        "seed": options.seed,
        "data": None if data is None else str(data),
        "sessions": [
            *(_sessions(path, note) if resumed else []),
            {**_session(model, options, first), "processes": processes},
        ],
    }
    with atomic(path) as temporary:
        text = json.dumps(record, indent=2, default=str, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _sessions(path: Path, note: Callable[[str], None]) -> list[Any]:
    """Those before this one."""
    if not path.exists():
        return []
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
        if not isinstance(sessions, list):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        note(f"{path}: is broken, its sessions are not known any more")
        return []
    return sessions


def _session(model: Model, options: TrainingOptions, first: int) -> dict[str, Any]:
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "first_epoch": first,
        "options": asdict(options),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": _versions(),
        "device": name,
        "commit": commit_of(Path(__file__)),
    }


def _versions() -> dict[str, str | None]:
    from sepfast import __version__

    found = {"sepfast": __version__, **{name: version(name) for name in _PACKAGES}}
    return {**found, "python": platform.python_version(), "platform": platform.platform()}
