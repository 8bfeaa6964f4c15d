"""Tables for 80 columns and for pipes: ids whole, states with signs."""

import sys

import click
import pytest

from disinherit.cli.tables import Cell, ago, moment, print_facts, print_table, state_text

Capture = pytest.CaptureFixture[str]
LONG = "forget-6e3ed5ad2c04"
ROWS: list[list[Cell]] = [
    [LONG, state_text("awaiting_approval"), "2026-11-28T13:00:00+00:00", "a reason of many words"],
    ["q", state_text("complete"), "3 min ago", None],
]
TITLES = ("request", "state", "submitted", "reason")


def pretend_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))


@pytest.mark.parametrize("columns", [40, 80])
def test_ids_and_states_are_whole_on_a_terminal(
    columns: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_terminal(monkeypatch, columns)
    print_table(TITLES, ROWS, whole=("request", "state"))
    out = click.unstyle(capsys.readouterr().out)
    assert LONG in out
    assert "… awaiting_approval" in out
    assert "✓ complete" in out
    assert out.count("…") == 1  # the sign only
    if columns == 80:
        assert [line for line in out.splitlines() if len(line) > 80] == []
    for word in ["a", "reason", "of", "many", "words"]:
        assert word in out


def test_a_long_id_widens_a_table_instead_of_being_cut(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_terminal(monkeypatch, 80)
    print_table(("model", "text"), [["m" * 128, "t"]], whole=("model",))
    assert "m" * 128 in capsys.readouterr().out


def test_a_row_is_one_line_in_a_pipe(capsys: Capture) -> None:
    long = "word " * 60
    print_table(TITLES, [*ROWS, [LONG, "x", "", long]], whole=("request",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[3].endswith(long.strip())
    assert all(line == line.rstrip() for line in lines)
    assert lines[1].index("2026") == lines[0].index("submitted")


def test_empty_lists_say_what_to_do(capsys: Capture) -> None:
    print_table(TITLES, [], empty="No requests yet. Submit one.")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "No requests yet. Submit one.\n")


def test_facts_without_a_value_are_left_out(capsys: Capture) -> None:
    print_facts([("id", LONG), ("halted", None), ("plan", ""), ("state", state_text("failed"))])
    assert capsys.readouterr().out == f"id     {LONG}\nstate  ✕ failed\n"


def test_signs_that_cannot_be_written_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr(sys, "stdout", Ascii())
    assert [state_text(one).plain for one in ("complete", "failed", "pending", "exempt")] == [
        *("+ complete", "x failed", ". pending", "- exempt"),
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "now"),
        (59, "59 s ago"),
        (180, "3 min ago"),
        (7200, "2 h ago"),
        (86400, "24 h ago"),
        (29 * 86400, "29 d ago"),
        (-90, "in 1 min"),
        (-30 * 86400, "in 30 d"),
    ],
)
def test_times_as_people_say_them(seconds: int, said: str) -> None:
    now = 1_800_000_000
    assert ago((now - seconds) * 1_000_000, now) == said
    assert moment((now - seconds) * 1_000_000).endswith(" UTC)")
    assert moment(0) == ""
