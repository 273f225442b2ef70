"""A report as one page that holds its pictures and sounds, and can be sent as it is."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from sepfast.files import PathLike, atomic

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } thead th { background: var(--soft); }
td audio { height: 2.2rem; width: 100%; min-width: 12rem; vertical-align: middle; }
figure { margin: 1rem 0; } img { width: 100%; background: #fff; border-radius: 4px; }
figcaption, .note { font-size: .9rem; opacity: .8; }
.wide { overflow-x: auto; } .wide tbody th { position: sticky; left: 0; background: Canvas; }
pre { background: var(--soft); padding: .7rem; border-radius: 4px; }
tbody th { font-weight: inherit; } caption { text-align: left; padding: .4rem 0; font-weight: 600; }
.dense { font-size: .85rem; } .dense th, .dense td { padding: .35rem .45rem; }
@media (max-width: 44rem) {
  .wide img { width: 44rem; max-width: none; }
  .dense tbody th { overflow-wrap: anywhere; min-width: 8.5rem; }
}
"""


_MANY = 6  # columns: more are set in smaller letters


@dataclass(frozen=True)
class Sound:
    """A waveform, (channels, samples), to be played at `sample_rate`."""

    waveform: np.ndarray
    sample_rate: int


@dataclass(frozen=True)
class Picture:
    """A PNG file, what it shows, and in words what a reader who does not see it should know."""

    path: Path
    caption: str
    words: str = ""


Cell = str | Sound


@dataclass(frozen=True)
class Table:
    """Rows of text and sounds below a header; the first cell names its row."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Listing:
    """Sentences, each with a bullet."""

    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Lines to be copied, as they are."""

    text: str


Part = str | Table | Picture | Listing | Code


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables and pictures below it."""

    heading: str
    parts: Sequence[Part]


def write_page(path: PathLike, title: str, summary: str, sections: Sequence[Section]) -> None:
    """Write a page, in one step.

    Args:
        path: the HTML file.
        title: its heading.
        summary: what a reader in a hurry should know.
        sections: the rest.
    """
    body = "\n".join(_section(section) for section in sections)
    page = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"<h1>{escape(title)}</h1>\n<p>{escape(summary)}</p>\n{body}\n</html>\n"
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _section(section: Section) -> str:
    return f"<h2>{escape(section.heading)}</h2>\n" + "\n".join(map(_part, section.parts))


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f'<p class="note">{escape(part)}</p>'
    if isinstance(part, Listing):
        return "<ul>" + "\n".join(f"<li>{escape(item)}</li>" for item in part.items) + "</ul>"
    if isinstance(part, Code):
        return f'<div class="wide" tabindex="0"><pre><code>{escape(part.text)}</code></pre></div>'
    if isinstance(part, Picture):
        caption = escape(part.caption)
        image = _data("image/png", part.path.read_bytes())
        image_tag = f'<img src="{image}" alt="{escape(part.words) or caption}">'
        told = f"<figcaption>{caption}</figcaption>"
        return f'<figure><div class="wide" tabindex="0">{image_tag}</div>{told}</figure>'
    return f'<div class="wide" tabindex="0">{_table(part)}</div>'


def _table(table: Table) -> str:
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = "\n".join(
        f'<tr><th scope="row">{_cell(first)}</th>'
        + "".join(f"<td>{_cell(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in table.rows
    )
    start = '<table class="dense">' if len(table.header) > _MANY else "<table>"
    return f"{start}{caption}<thead><tr>{header}</tr></thead>\n<tbody>{rows}</tbody></table>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    return f'<audio controls preload="metadata" src="{_data("audio/flac", _flac(cell))}"></audio>'


def _flac(sound: Sound) -> bytes:
    """16-bit FLAC, which every browser plays; what is beyond full scale is cut off."""
    import soundfile

    buffer = io.BytesIO()
    samples = np.clip(sound.waveform.T, -1, 1)
    soundfile.write(buffer, samples, sound.sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
