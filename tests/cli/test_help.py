"""Help: every argument and option is described whole, however narrow the terminal is."""

import re
from collections.abc import Iterator

import click
import pytest
import typer.main

from disinherit.cli.commands import LazyCommand
from disinherit.cli.main import SECTIONS, app, run
from disinherit.cli.output import Format
from tests.support.command_line import Capture, error_line


def commands_of(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    command = command.load() if isinstance(command, LazyCommand) else command
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from commands_of(one, (*words, name))
    else:
        yield words


def find(words: tuple[str, ...]) -> click.Command:
    command: click.Command = typer.main.get_command(app)
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
        command = command.load() if isinstance(command, LazyCommand) else command
    return command


def packed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def help_of(words: tuple[str, ...], capsys: Capture) -> str:
    assert run([*words, "--help"]) == 0
    return capsys.readouterr().out


EVERY = sorted(commands_of(typer.main.get_command(app)))


@pytest.mark.parametrize("columns", ["80", "60"])
@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_argument_and_option_is_described(
    words: tuple[str, ...], columns: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = help_of(words, capsys)
    for parameter in find(words).params:
        described = getattr(parameter, "help", None)
        assert described, parameter.name
        assert packed(described) in packed(shown), parameter.name
        argument = parameter.param_type_name == "argument"
        name = parameter.metavar or str(parameter.name).upper() if argument else parameter.opts[0]
        assert name.strip("[]") in shown
    assert "…" not in shown
    assert "\\[" not in shown
    outside = shown.partition("\nExample")[0]  # examples are lines to copy
    assert all(len(line) <= int(columns) for line in outside.splitlines())


WITHOUT_FORMAT = {
    ("agent", "run"): "runs until it is stopped",
    ("serve",): "runs until it is stopped",
    ("ui",): "runs until it is stopped",
    ("graph", "export"): "writes a file in the form of --as",
    ("request", "export"): "writes a file in the form of --as",
    ("request", "samples"): "prints JSON alone",
    ("samples", "digest"): "prints JSON alone",
}
"""Commands without `--format json` -> why; README.md and docs/command-line.md name them."""


def test_every_other_command_prints_json() -> None:
    def has(words: tuple[str, ...]) -> bool:
        return any(
            "--format" in one.opts and set(getattr(one.type, "choices", ())) == {*Format}
            for one in find(words).params
        )

    assert {words for words in EVERY if not has(words)} == WITHOUT_FORMAT.keys()


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    words: tuple[str, ...], capsys: Capture
) -> None:
    assert run([*words, "--colour-of-the-sky", "blue"]) == 2
    error_line(capsys)


def test_groups_describe_their_commands_whole(capsys: Capture) -> None:
    for group in ("request", "audit", "deploy"):
        assert "..." not in help_of((group,), capsys).partition("Commands:")[2]


def test_every_command_is_below_one_heading() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(root.commands)


def test_a_former_name_of_an_option_works_and_is_not_shown(capsys: Capture) -> None:
    shown = help_of(("graph", "export"), capsys)
    assert "--as" in shown
    assert "--format" not in shown
    assert run(["graph", "export", "nowhere", "--format", "json"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("forget 3", "'disinherit request submit'"),
        ("requests", "'disinherit request'"),
        ("approve x", "'disinherit request approve'"),
        ("aprove x", "'disinherit request approve'"),
        ("request aprove x", "'disinherit request approve'"),
        ("request submit -f 3@r1 --merge medin", "'mean'"),
        ("simulate federatd --out x", "'federated'"),
        ("simulate federated --dataset mnst5k --out x", "'mnist5k'"),
        ("bench run quik --out x", "'quick'"),
        ("ui --listen 127.0.0.1:80", "'--host' and '--port'"),
        ("serve --port 80", "'--listen'"),
        ("serve --lisen 80", "'--listen'"),
        ("request submit --froget 3@r1", "'--forget'"),
    ],
)
def test_what_may_have_been_meant_is_said(arguments: str, meant: str, capsys: Capture) -> None:
    assert run(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"Did you mean {meant}?" in line


def test_nothing_is_suggested_that_is_like_it_in_its_hyphens_only(capsys: Capture) -> None:
    assert run(["ui", "--addr", "127.0.0.1"]) == 2
    assert capsys.readouterr().err == (
        "error: No such option '--addr'. See disinherit ui --help.\n"
    )


def test_usage_errors_say_where_help_is(capsys: Capture) -> None:
    assert run(["request", "submit", "--speed", "high"]) == 2
    assert "See disinherit request submit --help." in capsys.readouterr().err


def test_options_are_in_panels_and_have_short_names(capsys: Capture) -> None:
    shown = help_of(("request", "submit"), capsys)
    headings = re.findall(r"^([A-Z][\w -]+(?:\(advanced\))?):$", shown, re.MULTILINE)
    assert headings == [
        *("What to forget", "Roll-out", "Method (advanced)", "Options", "Connection", "Examples"),
    ]
    for short in ("-f, --forget", "-r, --reason", "-o, --format"):
        assert short in shown
    assert "[max|mean|sum]" in shown
