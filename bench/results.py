"""What was measured, as rows, a file and a table."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from sepfast.bench.schema import fault
from sepfast.errors import InputError
from sepfast.files import atomic
from sepfast.surroundings import commit_of, processor, version

#: Changes with what the file means; `schema.json` says what it holds.
SCHEMA = 3


@dataclass(frozen=True)
class Row:
    """One side of one case.

    Attributes:
        case: its name, `workload/operator`.
        operator: the operator, "chain", or what kind of system.
        side: "ours", "eager" (the reference), "compiled" (the same by `torch.compile`), "cufft"
            (`torch.stft` and `torch.istft`), "batched" (all contexts at once; where there is this
            side, it is what is compiled), "sdpa" (`scaled_dot_product_attention`), "cudnn"
            (PyTorch's own layer; "cudnn without peepholes" computes less than the others), "graph"
            (ours in a CUDA graph) or "published" (the published program's method).
        precision: what PyTorch's knob said.
        gradient: whether the gradient was timed too.
        shapes: of the inputs, by name.
        path: what ran: "triton", "pytorch" or "triton and pytorch".
        kernels: our kernels that ran.
        rounds: how often it was timed.
        p20_ms, p50_ms, p80_ms: times on the device.
        host_ms: the median until Python had control again.
        least_bytes, moved_bytes, requested_bytes: of `work.py`; the latter two are ours.
        operations: that are needed.
        bound: what bounds it by the ceilings, "memory" or "arithmetic".
        ceiling_percent: the time that it takes at least, of the median.
        peak_bytes: memory at its peak, inputs included; None where it is not known. On a CPU what
            tensors take, as PyTorch's allocator counts it (`peaks.py`).
        error, gradient_error: |out - ref64| / |ref64| on a small shape; None for "compiled" and an
            operator's "graph", which are held to "eager" and "ours" instead. Of a system, against
            "eager" in float32, whatever the precision; the latter of gradients and of the weights'
            update.
        ratio_to_eager: eager's median over this one's: above 1 is faster; None where eager failed.
        scale: lines and samples over those of the workload at its own size, which is 1 and what
            a GPU takes; a CPU takes less of it. Of a system 1.
    """

    case: str
    operator: str
    side: str
    precision: str
    gradient: bool
    shapes: dict[str, list[int]]
    path: str
    kernels: list[str]
    rounds: int
    p20_ms: float
    p50_ms: float
    p80_ms: float
    host_ms: float
    least_bytes: int
    moved_bytes: int
    requested_bytes: int
    operations: int
    bound: str
    ceiling_percent: float
    peak_bytes: int | None
    error: float | None
    gradient_error: float | None
    ratio_to_eager: float | None
    scale: float = 1.0


@dataclass
class Report:
    """All of a run; written whenever a piece of it is done.

    Attributes:
        environment: device, versions and commit.
        settings: what the command was given.
        ceilings: bytes and operations a second, measured.
        verification: a `Checked` for each case, or its error.
        gpu_tests: how `pytest -m gpu` ended.
        rows: the rows.
        sweeps: rows of a case of each family of operators at several scales.
        tuning: what each key's sweep found.
        skipped: piece -> why it was left out.
        complete: whether nothing was left out for want of time.
    """

    environment: dict[str, Any]
    settings: dict[str, Any]
    ceilings: dict[str, Any] = field(default_factory=dict)
    verification: list[dict[str, Any]] = field(default_factory=list)
    gpu_tests: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    sweeps: list[Row] = field(default_factory=list)
    tuning: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether it was made on a GPU; elsewhere only ratios within the run mean anything."""
        return bool(self.environment["kind"] == "cuda")

    def digest(self) -> str:
        """Of all that it holds, which tells it from any other."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all; an infinite time, which JSON has not, as null."""
        tuning = [
            {name: None if value == float("inf") else value for name, value in each.items()}
            for each in self.tuning
        ]
        value = {"schema": SCHEMA, **asdict(replace(self, tuning=tuning))}
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
        with atomic(path) as temporary:
            temporary.write_text(text)


def read_report(path: Path) -> Report:
    """Read a results file.

    Args:
        path: what `Report.write` wrote.

    Returns:
        The report.

    Raises:
        InputError: where there is no such file, what it holds is not what `schema.json` says, or
            percentiles or counts of bytes are out of order.
    """
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # neither text nor JSON
        raise InputError(f"{path}: is not JSON, takes results of sepfast bench") from error
    found = value.get("schema") if isinstance(value, dict) else None
    if found != SCHEMA:
        raise InputError(
            f"{path}: got results of schema {found}, takes schema {SCHEMA}, as sepfast bench now "
            "writes them"
        )
    wrong = fault(value) or _unordered(value)
    if wrong:
        raise InputError(f"{path}: is not a results file: {wrong}")
    given = {each.name: value[each.name] for each in fields(Report)}
    for name in ("rows", "sweeps"):
        given[name] = [Row(**row) for row in given[name]]
    return Report(**given)


def _unordered(value: Mapping[str, Any]) -> str | None:
    """The first row whose percentiles or bytes do not ascend, which a schema cannot say."""
    for name in ("rows", "sweeps"):
        for index, row in enumerate(value[name]):
            for lower, upper in _ASCENDING:
                if row[lower] > row[upper]:
                    return f"{name}[{index}]: {lower} is above {upper}"
    return None


_ASCENDING = (
    ("p20_ms", "p50_ms"),
    ("p50_ms", "p80_ms"),
    ("least_bytes", "moved_bytes"),
    ("moved_bytes", "requested_bytes"),
)


def environment(device: torch.device) -> dict[str, Any]:
    """What a number is worth nothing without."""
    packages = {name: version(name) for name in ("triton", "numpy", "sepfast")}
    about: dict[str, Any] = {
        "kind": device.type,
        "device": processor(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            **packages,
        },
        "commit": commit_of(Path(__file__)),
    }
    if device.type == "cuda":
        of_gpu = torch.cuda.get_device_properties(device)
        about["device"] = of_gpu.name
        about["capability"] = list(torch.cuda.get_device_capability(device))
        about["memory_bytes"] = of_gpu.total_memory
        about["versions"]["cuda"] = torch.version.cuda
        about["versions"]["hip"] = torch.version.hip
    return about


#: Ours, as it is and captured.
OURS = ("ours", "graph")

_COLUMNS = (
    ("case", "{:39}"), ("precision", "{:9}"), ("side", "{:23}"), ("path", "{:18}"),
    ("p50 ms", "{:>9}"), ("least MB", "{:>9}"), ("moved", "{:>6}"), ("% ceiling", "{:>9}"),
    ("error", "{:>8}"), ("peak MB", "{:>8}"), ("x eager", "{:>8}"),
)  # fmt: skip


def heading() -> str:
    """The table's first line."""
    return _joined(dict(_COLUMNS))


def line(row: Row) -> str:
    """A row of the table; `moved` is over the least, for ours."""
    error = "" if row.error is None else f"{max(row.error, row.gradient_error or 0):.1e}"
    return _joined(
        (
            row.case,
            row.precision,
            row.side,
            row.path,
            f"{row.p50_ms:.3f}",
            f"{row.least_bytes / 1e6:.1f}",
            f"{row.moved_bytes / row.least_bytes:.2f}" if row.side in OURS else "",
            f"{row.ceiling_percent:.0f}",
            error,
            "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
            "" if row.ratio_to_eager is None else f"{row.ratio_to_eager:.2f}",
        )
    )


def _joined(values: Iterable[str]) -> str:
    pairs = zip(_COLUMNS, values, strict=True)
    return " ".join(form.format(value) for (_, form), value in pairs).rstrip()


def losses(rows: Iterable[Row], scaled: bool = False) -> list[str]:
    """A sentence for each case in which another side is faster than ours, with its scale or not."""
    cases: dict[tuple[str, str, float], dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((row.case, row.precision, row.scale), {})[row.side] = row
    return [text for sides in cases.values() if (text := _loss(sides, scaled))]


def _loss(sides: Mapping[str, Row], scaled: bool) -> str:
    ours = min((sides[name] for name in OURS if name in sides), key=lambda row: row.p50_ms)
    best = min(sides.values(), key=lambda row: row.p50_ms)
    if best is ours:
        return ""
    close = ", within its spread" if best.p80_ms >= ours.p20_ms else ""
    name = f"{ours.case}, scale {ours.scale:.3g}" if scaled else ours.case
    return (
        f"ours ({ours.path}) loses: {name}, {ours.precision}: {ours.p50_ms:.3f} ms against "
        f"{best.p50_ms:.3f} of {best.side}, {ours.p50_ms / best.p50_ms:.2f} times{close}"
    )
