"""Options that a person wrote: a known name with a value of its type, or refused.

A refusal is one sentence, which names the nearest that would be taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from sepfast.errors import InputError

_READ: Mapping[type, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: float,
    str: str,
}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Taken:
    """What an option takes.

    Attributes:
        kind: bool, int, float or str.
        least: the smallest number.
        most: the largest number.
        words: the only texts; none for any.
        many: whether it takes a list of these, which becomes a tuple.
    """

    kind: type
    least: float = -math.inf
    most: float = math.inf
    words: tuple[str, ...] = ()
    many: bool = False

    def __str__(self) -> str:
        if self.many:
            return f"a list, each {replace(self, many=False)}"
        if self.words:
            return "one of " + ", ".join(self.words)
        if self.most < math.inf:
            return f"{_NAMES[self.kind]}, {self.least:g} to {self.most:g}"
        return f"{_NAMES[self.kind]}{f', {self.least:g} or more' * (self.least > -math.inf)}"

    def fitted(self, name: str, value: Any) -> Any:
        """A value in the option's type.

        Args:
            name: what the option is called in an error.
            value: as TOML has it: bool, int, float, str or list.

        Raises:
            InputError: for a value that is not taken; where another is near, it is named.
        """
        if self.many and isinstance(value, (list, tuple)):
            one = replace(self, many=False)
            return tuple(one.fitted(name, item) for item in value)
        if self.many or not self._right(value):
            raise InputError(f"{name}: got {value!r}, takes {self}{self._hint(value)}")
        return float(value) if self.kind is float else value

    def parsed(self, name: str, text: str) -> Any:
        """A value in the option's type, from text such as "3", "true" or "60,120".

        Args:
            name: what the option is called in an error.
            text: what was written.

        Raises:
            InputError: as `fitted` does.
        """
        if self.many:
            one = replace(self, many=False)
            return tuple(one.parsed(name, item) for item in text.split(",") if text)
        try:
            value = _READ[self.kind](text)
        except (KeyError, ValueError):
            value = text
        return self.fitted(name, value)

    def _right(self, value: Any) -> bool:
        if isinstance(value, bool) != (self.kind is bool):  # in Python, True is a number
            return False
        if not isinstance(value, (int, float) if self.kind is float else self.kind):
            return False
        if isinstance(value, (int, float)):
            return math.isfinite(value) and self.least <= value <= self.most
        return not self.words or value in self.words

    def _hint(self, value: Any) -> str:
        """The nearest that is taken, where there is one."""
        if self.many or self.kind is bool or isinstance(value, bool):
            return ""
        if self.words and isinstance(value, str):
            near: Any = nearest(value, self.words)
        elif self.kind in (int, float) and isinstance(value, (int, float)):
            near = min(max(value, self.least), self.most)
            near = self.kind(near) if math.isfinite(near) else None
        else:
            near = None
        return "" if near is None else f"; the nearest is {near!r}"


def taken(hint: Any, least: float = -math.inf, most: float = math.inf) -> Taken:
    """What an option of a type hint takes: a type, a `Literal`, a tuple or sequence of either."""
    if get_origin(hint) is Literal:
        return Taken(str, words=get_args(hint))
    if get_origin(hint) in (tuple, Sequence):
        return replace(taken(get_args(hint)[0], least, most), many=True)
    return Taken(hint, least, most)


def check_names(where: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise for the first name that is not known.

    Args:
        where: what an error is to begin with.
        given: names that a person wrote.
        known: the names there are; of a mapping to `Taken`, an error says what the name takes.

    Raises:
        InputError: it names the nearest, or where none is near all there are.
    """
    for name in given:
        if name in known:
            continue
        near = nearest(name, known)
        if near is None:
            raise InputError(f"{where}: got {name!r}, takes {', '.join(known)}")
        what = known[near] if isinstance(known, Mapping) else None
        whose = f", which takes {what}" if isinstance(what, Taken) else ""
        raise InputError(f"{where}: got {name!r}, the nearest is {near!r}{whose}")


def fitted(where: str, given: Mapping[str, Any], known: Mapping[str, Taken]) -> dict[str, Any]:
    """A table of options, each known and in its type.

    Args:
        where: the table, as an error is to call it.
        given: name -> value, as TOML has it.
        known: name -> what it takes.

    Raises:
        InputError: for a name that is not known, or a value that is not taken.
    """
    check_names(where, given, known)
    return {name: known[name].fitted(f"{where}, {name}", each) for name, each in given.items()}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of some names that is spelt most like one; none where none is like it."""
    lower = {each.lower(): each for each in known}
    found = get_close_matches(name.lower(), lower, 1, 0.5)
    return lower[found[0]] if found else None
