"""Where the program speaks: columns in a log, a table on a terminal, cells as they are."""

import pytest
from rich.console import Console

from sepfast.cli import console as console_module
from sepfast.cli.console import columns, show_columns

HEADER = ("name", "size")
ROWS = [("[red]a", "1"), (":star:", "1000000")]


@pytest.mark.parametrize("terminal", [False, True])
def test_columns_are_plain_in_a_log_and_a_table_on_a_terminal(terminal, monkeypatch, capsys):
    made = Console(force_terminal=terminal, soft_wrap=True, width=40, color_system=None)
    monkeypatch.setattr(console_module, "console", made)
    show_columns(HEADER, ROWS, style=lambda row: "bold")
    shown = capsys.readouterr().out
    assert all(cell in shown for row in (HEADER, *ROWS) for cell in row)
    assert (shown.splitlines() == ["name    size", "[red]a  1", ":star:  1000000"]) != terminal


def test_each_column_is_as_wide_as_its_widest_cell():
    assert list(columns([("a", "b"), ("long", "")])) == ["a     b", "long"]
