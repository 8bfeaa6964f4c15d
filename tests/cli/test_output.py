"""Texts of others on a terminal: no markup and no control characters."""

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import disinherit.cli
from disinherit.cli.output import (
    print_json,
    print_json_line,
    print_line,
    print_rich,
    progress,
    warn_line,
)

HOSTILE = {
    "escape": "harmless\x1b[2J\x1b[1;1Hid q APPROVED BY LEGAL",
    "title and link": "\x1b]0;pwned\x07\x1b]8;;http://evil\x07click\x1b]8;;\x07",
    "C1": "\x9b31mred",
    "bidirectional": "abc\u202edcba\u2066x",
    "zero width": "adm\u200bin",
    "lines": "one\ntwo\r\n  approved by everybody\u2028three\x0bfour\x85five",
    "lone surrogate": "a\ud800b",
    "markup": "see [red]note[/red] and [ticket-117] :smile:",
    "an end of markup": "closing [/x] tag",
}
PRINTERS: dict[str, Callable[[str], None]] = {
    "line": print_line,
    "warning": warn_line,
    "text": lambda text: print_rich(text),
    "styled text": lambda text: print_rich(Text(text, style="red")),
    "cell": lambda text: print_rich(table_of(text)),
    "JSON": lambda text: print_json({"reason": text}),
    "JSON line": lambda text: print_json_line({"reason": text}),
}


def table_of(text: str) -> Table:
    table = Table("request", text, box=None)
    table.add_row("q", text)
    table.add_row("r", Text(text))
    return table


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("printer", PRINTERS.values(), ids=PRINTERS.keys())
def test_texts_of_others_are_printed_as_plain_text(
    printer: Callable[[str], None],
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    printer(text)
    shown = "".join(capsys.readouterr())
    assert [one for one in shown if not one.isprintable() and one != "\n"] == []
    if printer in (print_line, warn_line):
        assert shown.count("\n") == 1
    assert "[/x]" in shown or "[/x]" not in text
    assert "[ticket-117] :smile:" in shown or "[ticket-117]" not in text


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_json_keeps_the_original_text(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json([text])
    assert json.loads(capsys.readouterr().out) == [text]


@pytest.mark.parametrize("terminal", ["", "1"])
def test_progress_shows_text(
    terminal: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with progress() as say:
        say("first [/x] \x1b]0;pwned\x07")
        say("second [red]\x9b2J")
    shown = capsys.readouterr().err
    assert "first [/x]" in shown
    assert "\x1b]0" not in shown
    assert "\x07" not in shown
    assert "\x9b" not in shown


def test_counts_move_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress() as say:
        for message in ("starting", "trained a [1/2]", "trained b [2/2]", "retrained a [1/1]"):
            say(message)
    shown = capsys.readouterr().err
    assert "trained a [1/2]" in shown
    assert "━" in shown


def test_commands_print_through_output_only() -> None:
    folder = Path(disinherit.cli.__file__).parent
    found = [
        f"{path.name}:{node.lineno}"
        for path in sorted(folder.glob("*.py"))
        if path.name != "output.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and (
            getattr(node.func, "attr", "") in ("echo", "secho")
            or getattr(node.func, "id", "") in ("print", "Console")
        )
    ]
    assert found == []
