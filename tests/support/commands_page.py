"""The reference of commands, made from the command line: run as a module, it writes the page."""

import re
from collections.abc import Iterator

import click
import typer.main

from disinherit.cli.commands import LazyCommand, _present
from disinherit.cli.main import COMMANDS, SECTIONS, app
from tests import ROOT
from tests.support.reference import one_line, table

PAGE = ROOT / "docs" / "commands.md"
_HEAD = """# Commands

Every command with its arguments and options, as `--help` has them. What output looks like, exit
codes and completion: [the command line](command-line.md). Variables that stand for options:
[configuration](configuration.md#environment-variables). Options of a call to a coordinator
(*Connection*) are the same everywhere, and listed once, at the end.

This page is made from the code by `make reference`.
"""
_CONNECTION = "Connection"
_OTHER = "Other names"
"""The section of former names of commands."""


def page() -> str:
    """The page as it should be."""
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    parts = [_HEAD]
    connection: dict[str, str] = {}
    for section, names in SECTIONS.items():
        parts.append(f"\n## {section}\n")
        if section == _OTHER:
            rows = [
                (f"`disinherit {name}`", one_line(COMMANDS[name][1]).replace("`", ""))
                for name in names
            ]
            parts.append(f"\n{table(('former name', 'what it does'), rows)}")
            continue
        for name in names:
            for path, command in commands(f"disinherit {name}", root.commands[name]):
                parts.append(_section(path, command, connection))
    parts.append(
        f"\n## Options of a connection\n\n{table(('option', 'meaning'), connection.items())}"
    )
    return "".join(parts)


def commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """The commands below a name that do something, with their paths."""
    command = command.load() if isinstance(command, LazyCommand) else command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            if not inner.hidden:
                yield from commands(f"{path} {name}", inner)
    else:
        yield path, command


def _section(path: str, command: click.Command, connection: dict[str, str]) -> str:
    context = click.Context(command, info_name=path, max_content_width=100)
    usage = " ".join(command.collect_usage_pieces(context))
    prose = "\n\n".join(
        " ".join(part.split()) for part in (command.help or "").replace("\b", "").split("\n\n")
    )
    lines = [f"\n### `{path}`\n\n{prose}\n\n```\n{path} {usage}\n```\n"]
    for panel, rows in _panels(command, context).items():
        if panel == _CONNECTION:
            connection.update(rows)
            continue
        lines.append(f"\n{table((panel.lower(), 'meaning'), rows)}")
    if _CONNECTION in _panels(command, context):
        lines.append("\nAnd [options of a connection](#options-of-a-connection).\n")
    examples = re.findall(r"disinherit [^\n]+", command.epilog or "")
    if examples:
        lines.append("\n```sh\n{}\n```\n".format("\n".join(examples)))
    return "".join(lines)


def _panels(command: click.Command, context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """Name of a panel of the help -> options in it with their meanings."""
    found: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = _present(parameter).get_help_record(context)
        if record is None or parameter.name == "help":
            continue
        is_argument = parameter.param_type_name == "argument"
        panel = getattr(parameter, "rich_help_panel", None)
        name = "Arguments" if is_argument else panel or "Options"
        said = one_line(record[1].replace("\\[", "[")).replace("<", "\\<")
        found.setdefault(name, []).append((f"`{record[0].replace('|', chr(92) + '|')}`", said))
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
