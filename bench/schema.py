"""Whether a value is what `schema.json` says that a results file holds.

The file is JSON Schema, draft 2020-12, for whoever reads results with other programs. Of its
keywords this module knows those that the file uses, so that reading results takes no package; a
test holds both to the package `jsonschema`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

#: The schema's file.
SCHEMA_FILE = Path(__file__).with_name("schema.json")

_Schema = Mapping[str, Any]

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda x: isinstance(x, dict),
    "array": lambda x: isinstance(x, list),
    "string": lambda x: isinstance(x, str),
    "boolean": lambda x: isinstance(x, bool),
    "null": lambda x: x is None,
    # JSON has no others; Python reads more.
    "number": lambda x: isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < inf,
    "integer": lambda x: _TYPES["number"](x) and x % 1 == 0,
}


@lru_cache(maxsize=1)
def schema() -> _Schema:
    """The schema, read once."""
    found: _Schema = json.loads(SCHEMA_FILE.read_text())
    return found


def fault(value: Any) -> str | None:
    """The first thing that is wrong with a results file's value, None where nothing is.

    Args:
        value: as `json.loads` gives it.

    Returns:
        Where it is, what came and what is taken, such as
        `rows[3].p50_ms: got -1, takes a number above 0`.
    """
    return next(_faults(value, schema(), ""), None)


def _faults(value: Any, rule: _Schema, where: str) -> Iterator[str]:
    if "$ref" in rule:
        yield from _faults(value, _named(rule["$ref"]), where)
    if not _fits(value, rule):
        yield f"{where or 'the file'}: got {_short(value)}, takes {_taken(rule)}"
    elif "oneOf" in rule:
        yield from _one_of(value, rule["oneOf"], where)
    elif isinstance(value, dict):
        yield from _object_faults(value, rule, where)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _faults(each, rule.get("items", {}), f"{where}[{index}]")


def _named(reference: str) -> _Schema:
    found: _Schema = schema()["$defs"][reference.removeprefix("#/$defs/")]
    return found


def _fits(value: Any, rule: _Schema) -> bool:
    """Whether a value is of the type and within the limits; not what is in it."""
    types = rule.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_TYPES[name](value) for name in types):
        return False
    if "const" in rule and not _same(value, rule["const"]):
        return False
    if "enum" in rule and not any(_same(value, each) for each in rule["enum"]):
        return False
    if _TYPES["number"](value):
        above = value > rule.get("exclusiveMinimum", -inf)
        return bool(above and value >= rule.get("minimum", -inf))
    if isinstance(value, str | list):
        least = rule.get("minLength" if isinstance(value, str) else "minItems", 0)
        return bool(least <= len(value) <= rule.get("maxItems", len(value)))
    return True


def _same(value: Any, other: Any) -> bool:
    """Equal, and not 1 where true is."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _one_of(value: Any, rules: list[_Schema], where: str) -> Iterator[str]:
    """What is wrong by the rule that has the least against a value, where not one rule fits."""
    found = [list(_faults(value, rule, where)) for rule in rules]
    if sum(not each for each in found) != 1:
        yield from min(found, key=len)[:1] or [f"{where}: fits more than one of the rules"]


def _object_faults(value: dict[str, Any], rule: _Schema, where: str) -> Iterator[str]:
    prefix = f"{where}." if where else ""
    for name in rule.get("required", []):
        if name not in value:
            yield f"{where or 'the file'}: has no {name!r}"
    known, other = rule.get("properties", {}), rule.get("additionalProperties", True)
    for name, each in value.items():
        if name not in known and other is False:
            yield f"{where or 'the file'}: has {name!r}, which is not known"
        elif name in known or isinstance(other, dict):
            yield from _faults(each, known.get(name, other), f"{prefix}{name}")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _taken(rule: _Schema) -> str:
    """What a rule takes, in words."""
    if "const" in rule:
        return json.dumps(rule["const"])
    if "enum" in rule:
        return ", ".join(map(json.dumps, rule["enum"]))
    types = rule.get("type", [])
    words = [types] if isinstance(types, str) else types
    parts = [" or ".join(_article(word) for word in words)]
    if "exclusiveMinimum" in rule:
        parts.append(f"above {rule['exclusiveMinimum']}")
    if "minimum" in rule:
        parts.append(f"from {rule['minimum']}")
    least = rule.get("minLength", rule.get("minItems"))
    if least is not None:
        parts.append(f"of length {least}" + " or more" * (rule.get("maxItems") != least))
    return " ".join(parts)


def _article(word: str) -> str:
    if word == "null":
        return word
    return f"an {word}" if word[0] in "aio" else f"a {word}"
