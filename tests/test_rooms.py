"""One name, five rooms: no operator without a room, no kernel without data, no rule unknown."""

from pathlib import Path

from rooms import missing, operators

from sepfast.ops.accuracy import ACCURACY

ROOT = Path(__file__).parents[1]


def test_no_operator_lacks_a_room():
    assert missing(ROOT) == []


def test_the_operators_are_found():
    assert set(operators(ROOT)) == set(ACCURACY)
