"""Files with deeply nested values are wrong input for every reader."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from disinherit.cli.main import run
from disinherit.common.limits import NESTING
from disinherit.common.text import load_json, load_toml

DEEP = {
    "arrays.json": "[" * 200_000,
    "closed.json": "[" * 500 + "]" * 500,
    "objects.json": '{"a":' * 5000 + "1" + "}" * 5000,
    "arrays.toml": "a = " + "[" * 20_000 + "]" * 20_000,
    "keys.toml": "a" + ".a" * 20_000 + " = 1",
    "tables.toml": "[a" + ".a" * 5000 + "]",
}
COMMANDS: dict[str, Sequence[str]] = {
    "serve": ("serve", "--plaintext", "--config"),
    "tokens": ("serve", "--plaintext", "--database", "new.db", "--tokens"),
    "invite": ("invite", "anna", "--config"),
    "agent": ("agent", "--config"),
    "samples": ("request", "submit", "--reason", "x", "--samples"),
    "verify": ("audit", "verify"),
    "graph": ("graph", "show"),
    "simulate": ("simulate",),
    "report": ("report",),
}


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    for name, text in DEEP.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_commands_report_deep_nesting_in_one_line(
    command: Sequence[str],
    name: str,
    deep: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(deep)
    monkeypatch.delenv("DISINHERIT_SERVER", raising=False)
    assert run([*command, str(deep / name)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert len(output.err) < 1000


def test_the_deepest_allowed_nesting_is_read() -> None:
    depth = NESTING.most
    assert load_json("[" * depth + "]" * depth)
    assert load_toml("a = " + "[" * (depth - 1) + "]" * (depth - 1))
    for text in ("[" * (depth + 1) + "]" * (depth + 1), "[" * 10**6):
        with pytest.raises(ValueError, match=f"more than {depth} times"):
            load_json(text)
    with pytest.raises(ValueError, match=f"more than {depth} times"):
        load_toml("a" + ".a" * depth + " = 1")
