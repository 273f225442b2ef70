"""What the report says in sentences: the summary, losses, what is missing, how to repeat it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from statistics import median

from sepfast.bench.case import OWN_LAYER
from sepfast.bench.report.drawing import in_order, multiples, shown
from sepfast.bench.report.standing import LESS, Standing, device, machine, precisions, standings
from sepfast.bench.results import Report

GLANCE = (
    "Medians over the cases of an operator, their range in brackets; speed above 1 and memory "
    "below 1 is in favour of ours. The error is the one that comes closest to its bound. A case is "
    "lost where another side is faster beyond the spread of both."
)

_SIDES = {
    "ours": "ours: sepfast's operators, or a model after sepfast.fuse",
    "graph": "graph: ours captured in a CUDA graph and replayed",
    "eager": "eager: the same mathematics in plain PyTorch",
    "compiled": "compiled: eager by torch.compile",
    "cufft": "torch.stft: that and torch.istft, cuFFT's on a GPU",
    OWN_LAYER: "torch.nn: PyTorch's own layer, cuDNN's on a GPU",
    "sdpa": "sdpa: by scaled_dot_product_attention",
    "batched": "batched: all contexts of a track in one batch",
    "published": "published: the method of the published program",
}


def summary(report: Report) -> str:
    """A run in one sentence."""
    drawn = standings(report)
    count = {v: sum(s.verdict() == v for s in drawn) for v in ("wins", "level", "loses")}
    parts = [
        f"On {machine(report)}, ours is faster than every other side in {count['wins']} of "
        f"{len(drawn)} cases, level with the fastest one in {count['level']} and loses "
        f"{count['loses']}"
    ]
    if not any("triton" in s.sides["ours"].path for s in drawn):
        parts.append("ours runs PyTorch there, none of its kernels")
    shares = [e.share for s in drawn if (e := s.exactness()) is not None and e.bound]
    if shares:
        parts.append(f"the largest error is {100 * max(shares):.0f} % of its bound")
    lean = [share for s in drawn if (share := s.memory()) is not None]
    if lean:
        parts.append(f"peak memory is at the median {multiples(median(lean))} times eager's")
    wrong = len(_failed(report))
    if wrong:
        parts.append(f"{wrong} were wrong and not timed")
    return "; ".join(parts) + "."


def losses(report: Report) -> tuple[list[str], list[str]]:
    """A sentence for each case in which another side is faster, by how much it is.

    Returns:
        Those beyond the spread of both sides, and those within it.
    """
    behind = [
        (beside.middle, beside.verdict, _loss(report, s))
        for s in standings(report)
        if (beside := s.against_best()) and beside.middle < 1
    ]
    behind.sort()
    return (
        [text for _, verdict, text in behind if verdict == "loses"],
        [text for _, verdict, text in behind if verdict != "loses"],
    )


def _loss(report: Report, standing: Standing) -> str:
    best, ours, beside = standing.best, standing.ours, standing.against_best()
    assert best is not None
    assert beside is not None
    at = f" at {standing.precision!r}" * (len(precisions(report)) > 1)
    side = shown(best.side) + ", which computes less," * (LESS in best.side)
    times = f" ({ours.path}): {best.p50_ms:.3f} ms against {ours.p50_ms:.3f}" * report.on_gpu
    factor = multiples(1 / beside.middle)
    return f"{standing.case}{at}: {side} is {factor} times as fast as ours{times}."


def missing(report: Report) -> list[str]:
    """What a reader may look for and does not find: failures, what was left out, and for what."""
    told = [f"Wrong, and therefore not timed: {text}." for text in _failed(report)]
    tests = report.gpu_tests
    if tests.get("exit"):
        last = (tests.get("tail") or ["no output"])[-1]
        told.append(f"GPU tests failed: {last}.")
    told += [f"{piece}: {why}." for piece, why in report.skipped.items()]
    if not report.on_gpu:
        told.append(
            "Times: on a CPU that others may share they mean nothing by themselves, unlike ratios "
            "and shares of ceilings within one run."
        )
    if all(row.peak_bytes is None for row in report.rows):
        told.append("Peak memory: not measured on this machine.")
    if not report.sweeps:
        told.append("Sizes: the run had no sweep.")
    if not report.complete:
        told.append("The run ended before all was done.")
    return told


def _failed(report: Report) -> list[str]:
    """Each case that computed wrong numbers, and how."""
    return [
        f"{each['case']}, {each['precision']}: {each['failed']}"
        for each in report.verification
        if "failed" in each
    ]


def command(report: Report) -> str:
    """The lines that repeat a run, in a clone of the repository."""
    about = report.environment
    commit = about["commit"] or ""
    lines = [f"git checkout {shlex.quote(commit.removesuffix('-dirty'))}"] if commit else []
    if commit.endswith("-dirty"):
        lines[0] += "  # and changes that were not committed"
    threads = "" if report.on_gpu else f"OMP_NUM_THREADS={about['threads']} "
    return "\n".join([*lines, f"{threads}{call(report)} --out results.json"])


def call(report: Report) -> str:
    """How a run was called: in whole minutes, as a report has what was left of them."""
    given = report.settings
    words = ["sepfast bench", f"--minutes {math.ceil(given['minutes'])}"]
    words += [f"--{flag}" for flag in ("quick", "sweep") if given[flag]]
    words += [f"--only {shlex.quote(given['only'])}"] * bool(given["only"])
    return " ".join([*words, f"--device {report.environment['kind']}"])


def environment(report: Report) -> list[tuple[str, str]]:
    """Name and value of what the numbers depend on."""
    about, most = report.environment, report.ceilings
    rows = [("device", device(report))]
    if report.on_gpu:
        rows += [("memory", f"{about['memory_bytes'] / 1e9:,.0f} GB")] * ("memory_bytes" in about)
        rows += _ceilings(most) if most else []
    else:
        rows.append(("threads", str(about["threads"])))
    rows.append(("system", about["system"]))
    rows += [(name, value) for name, value in about["versions"].items() if value]
    rows.append(("commit", about["commit"] or "not known"))
    rows.append(("sizes", report.settings["size"]))
    tail = report.gpu_tests.get("tail")
    return [*rows, ("GPU tests", tail[-1])] if tail else rows


def _ceilings(most: dict[str, float | None]) -> list[tuple[str, str]]:
    """What the device did at best in the run."""
    units = {"copy": (1e9, "GB/s"), "single": (1e12, "TFLOP/s, TF32 products"),
             "half": (1e12, "TFLOP/s, bf16 products")}  # fmt: skip
    return [
        (f"ceiling: {name}", f"{value / unit:,.0f} {word}")
        for name, (unit, word) in units.items()
        if (value := most.get(name))
    ]


def reading(reports: Iterable[Report]) -> Sequence[str]:
    """How to read the page, for the sides that these reports have."""
    there = {row.side for report in reports for row in report.rows}
    sides = [_SIDES[side] for side in in_order(there) if side in _SIDES]
    less = ["a side named “without …”, or with a star, computes less than the others"]
    return [
        "Sides. " + "; ".join(sides + less * any(LESS in side for side in there)) + ".",
        "Speed is a ratio of medians of one run, whose sides took turns on the same machine; above "
        "1, ours is faster. Two sides are level where their spreads, p20 to p80, overlap.",
        "% of ceiling: the time that the least bytes and operations would take at the copy and "
        "matrix speeds measured in the same run, of the time that was taken. What fits into a "
        "cache can pass 100.",
        "“chain” is stft_magnitude, soft_mask and masked_istft, one behind the other.",
        "Error: ‖out - ref‖ / ‖ref‖, ref in float64 for operators, and eager float32 for systems. "
        "Each operator was verified against its bound before anything was timed; a case that was "
        "wrong has no time.",
        "Peak memory: bytes that a call holds at most, its inputs included.",
        "Path: what ran ours, Triton kernels or PyTorch. On a CPU it is PyTorch: ratios there say "
        "nothing about a GPU.",
    ]
