"""How scores are written to files and read again: JSON and CSV, NaN and infinities included."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sepfast.errors import InputError
from sepfast.files import PathLike, atomic

Read = TypeVar("Read")


def write_json(path: PathLike, content: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Write nested values; NaN as null, infinities as "inf" and "-inf".

    Raises:
        InputError: where the file cannot be written.
    """
    with atomic(path) as temporary:
        text = json.dumps(plain(content), indent=indent, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(
    path: PathLike, form: str, make: Callable[[Mapping[str, Any]], Read], what: str
) -> Read:
    """Read what `write_json` wrote.

    Args:
        path: the file.
        form: what stands under "format" in it.
        make: makes something of the content; KeyError, TypeError, ValueError and AttributeError
            say that it is something else.
        what: which scores, for the error.

    Raises:
        InputError: for a file that is missing or something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != form:
            raise KeyError("format")
        return make(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: holds no {what} that sepfast wrote") from error


def write_csv(path: PathLike, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; cells that are NaN are empty.

    Raises:
        InputError: where the file cannot be written.
    """
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def plain(value: Any) -> Any:
    """Nested values as JSON takes them: NaN as None, infinities as "inf" and "-inf"."""
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(float(value))
    return float(value) if isinstance(value, np.floating) else value


def number(value: float | str | None) -> float:
    """A number as `plain` gave it."""
    return math.nan if value is None else float(value)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
