"""What all pictures of a benchmark share: sides' colours and shapes, title and footer."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sepfast.bench.case import OWN_LAYER
from sepfast.bench.report.standing import LESS, Verdict, commit, device, machine, precisions
from sepfast.bench.results import Report
from sepfast.evaluation.style import INK, WIDTH, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 6.5  # points
_TITLE, _LINE, _PAD = 0.28, 0.145, 0.055  # inches of a title, a line of small letters, an edge
_TITLE_LETTERS, _FOOT_LETTERS = 74, 140  # that a line has room for
GREY = "#777777"
TIMES = "\u00d7"  # the sign of multiplication
WORDS = "#A84300"  # of what is lost: the orange, dark enough to be read

# Okabe and Ito's palette, which stays apart under every common kind of colour blindness; shapes
# tell sides apart where there is no colour at all.
VERDICTS: dict[Verdict, str] = {"wins": "#0072B2", "level": "#A0A0A0", "loses": "#D55E00"}
VERDICT_WORDS: dict[Verdict, str] = {
    "wins": "faster than every other side",
    "level": "level: within the spread of the fastest other side",
    "loses": "loses to another side",
}


class Look(NamedTuple):
    """A side's colour and marker."""

    colour: str
    marker: str


_LOOKS = {
    "ours": Look("#0072B2", "o"),
    "graph": Look("#56B4E9", "D"),
    "eager": Look(GREY, "o"),
    "compiled": Look("#E69F00", "s"),
    "cufft": Look("#009E73", "^"),
    OWN_LAYER: Look("#CC79A7", "v"),
    "sdpa": Look("#882255", "P"),
    "batched": Look("#332288", "X"),
    "published": Look(INK, "*"),
}


def look(side: str) -> Look:
    """Of a side; what computes less than another one looks like that one."""
    return _LOOKS.get(side.split(LESS)[0], Look(INK, "d"))


def marker_style(side: str) -> dict[str, Any]:
    """How a side's marker is drawn: hollow where it computes less than the others."""
    colour, marker = look(side)
    return {
        "marker": marker,
        "markersize": 6.5 if marker == "*" else 4.5,
        "markerfacecolor": "white" if LESS in side else colour,
        "markeredgecolor": colour if LESS in side else "white",
        "markeredgewidth": 0.9 if LESS in side else 0.5,
        "linestyle": "",
    }


def in_order(sides: Iterable[str]) -> list[str]:
    """Sides in the order of legends."""
    known = list(_LOOKS)
    plain = {side: side.split(LESS)[0] for side in sides}
    places = {side: [*known, name].index(name) for side, name in plain.items()}
    return sorted(places, key=lambda side: (places[side], side))


@contextmanager
def drawing(
    report: Report, path: Path, height: float, title: str, handles: Sequence[Any], columns: int
) -> Iterator[Figure]:
    """A picture with its title and legend, and below it where the numbers are from.

    Args:
        report: that they are from.
        path: the PNG file, 1400 pixels wide, 200 an inch high.
        height: of the axes with all that is written around them, in inches.
        title: what it is about.
        handles: of the legend.
        columns: that it takes at most.
    """
    from matplotlib import rc_context

    columns = min(columns, len(handles))
    head = _TITLE + _LINE * -(-len(handles) // columns) + _PAD
    told = textwrap.wrap(footer(report), _FOOT_LETTERS)
    foot = _LINE * len(told) + _PAD
    whole = height + head + foot
    # A name with dollars is a name, and no formula.
    with picture(path, whole, report.digest()) as figure, rc_context({"text.parse_math": False}):
        left = _PAD / WIDTH
        figure.set_layout_engine("constrained", rect=(0, foot / whole, 1, height / whole))
        figure.text(left, 1 - _PAD / whole, title, va="top", fontsize=10, weight="bold", color=INK)
        figure.text(left, _PAD / whole, "\n".join(told), fontsize=SMALL, color="#595959")
        figure.legend(
            handles=handles, ncols=columns, fontsize=SMALL, loc="upper left", borderpad=0,
            borderaxespad=0, bbox_to_anchor=(left, 1 - (_TITLE + _PAD / 2) / whole),
            columnspacing=1.6, handletextpad=0.5, labelspacing=0.35,
        )  # fmt: skip
        yield figure


def heading(report: Report, subject: str, precision: str = "") -> str:
    """A title: the subject, the device and, where a report has several, the precision.

    A device whose name is too long for that stands in the footer alone.
    """
    several = precision and len(precisions(report)) > 1
    at = f", float32 at {precision!r}" if several else ""
    whole = f"{subject}, {device(report)}{at}"
    return whole if len(whole) <= _TITLE_LETTERS else subject + at


def footer(report: Report) -> str:
    """Device, versions, commit and size in a line, and on a CPU what numbers are."""
    versions = report.environment["versions"]
    named = [f"{name} {versions[name]}" for name in ("sepfast", "torch", "triton", "cuda", "hip")
             if versions.get(name)]  # fmt: skip
    parts = [machine(report), *named, commit(report)]
    size = report.settings["size"]
    parts += [f"{size} sizes"] * (size != "full")
    line = ", ".join(parts)
    return line if report.on_gpu else f"{line}; ratios within one run"


def multiples(value: float) -> str:
    """A ratio in few letters.

    >>> [multiples(x) for x in (0.0123, 0.5, 1.0, 12.34, 1234.5)]
    ['0.012', '0.50', '1.00', '12.3', '1,234']
    """
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def shown(side: str) -> str:
    """A side's name as it is shown: results have PyTorch's own by what runs it on a GPU alone.

    >>> shown("cufft"), shown("cudnn without peepholes"), shown("sdpa")
    ('torch.stft', 'torch.nn without peepholes', 'sdpa')
    """
    name, less, what = side.partition(LESS)
    return {"cufft": "torch.stft", OWN_LAYER: "torch.nn"}.get(name, name) + less + what


def short(side: str) -> str:
    """A side's name in short, with a star where it computes less than the others.

    >>> short("cudnn without peepholes")
    'torch.nn*'
    """
    return shown(side).split(LESS)[0] + "*" * (LESS in side)


def log_ticks(axis: Any, low: float, high: float, suffix: str = "") -> None:
    """Ticks at 1, 2 and 5 of each decade, or at 1 alone where these are many."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    subs = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [m * 10.0**e for e in range(-9, 16) for m in subs if low <= m * 10.0**e <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}{suffix}"))
