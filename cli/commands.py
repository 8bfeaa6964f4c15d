"""Commands of the command line: loaded when they run, helped in panels, suggested by name."""

import copy
import functools
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import click
import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

WHAT = "What to forget"
ROLL_OUT = "Roll-out"
METHOD = "Method (advanced)"
TRAINING = "Data and training"
CONNECTION = "Connection"
"""Panels of options in a command's help."""

_WIDEST = 100
_OPTIONS = "Options"
_LONGEST = 1000
"""Characters of a command's summary; none is as long."""


class Command(TyperCommand):
    """A command whose help has options in panels and cuts nothing, however narrow it is."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments, then the panels of options; those of a connection come last."""
        _write_panels(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, each on one line, which can be copied."""
        title, *examples = (self.epilog or "").split("\n\n")
        if not examples:
            title, _, only = title.partition(": ")
            examples = [only]
        with formatter.section(write_heading(title.rstrip(":"))):
            for example in examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")


class CommandGroup(TyperGroup):
    """A group of commands that suggests what a wrong one may have meant."""

    lazy: Mapping[str, tuple[str, str]] = {}
    """Name -> (place, summary) of a `LazyCommand`."""
    former: Mapping[str, str] = {}
    """Former name, which still works and is in no help -> its name now."""
    meant: Mapping[str, str] = {}
    """What people may type -> the command that does it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (place, summary) in self.lazy.items():
            self.add_command(LazyCommand(name, place, summary))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the group, and its commands."""
        _write_panels(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, each with its whole first paragraph."""
        self.write_commands("Commands", self.commands, ctx, formatter)

    def write_commands(
        self,
        heading: str,
        names: Iterable[str],
        ctx: click.Context,
        formatter: click.HelpFormatter,
    ) -> None:
        """Write some of the commands below a heading."""
        commands = [(name, self.commands[name]) for name in names]
        with formatter.section(write_heading(heading)):
            formatter.write_dl(
                [(n, one.get_short_help_str(_LONGEST)) for n, one in commands if not one.hidden]
            )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, or by the one that it had before."""
        return super().get_command(ctx, self.former.get(cmd_name, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the arguments.

        Raises:
            UsageError: if there is none, with what may have been meant.
        """
        typed = args[0]
        if typed.startswith("-") or self.get_command(ctx, typed) is not None:
            return super().resolve_command(ctx, args)
        names = get_close_matches(typed, self.list_commands(ctx), 1)
        meant = self.meant.get(typed) or (names[0] if names else self._elsewhere(typed))
        hint = f" Did you mean '{ctx.command_path} {meant}'?" if meant else ""
        raise click.UsageError(f"No such command {typed!r}.{hint}", ctx)

    def _elsewhere(self, typed: str) -> str:
        """Return a command of a group below with this name; `""` if there is none."""
        for name, command in self.commands.items():
            loaded = command.load() if isinstance(command, LazyCommand) else command
            if isinstance(loaded, click.Group):
                for found in get_close_matches(typed, loaded.commands, 1, 0.75):
                    return f"{name} {found}"
        return ""


class LazyCommand(click.Command):
    """A command that is imported for its run or its own help only.

    Args:
        name: name on the command line.
        place: `module:name` in `disinherit.cli`: a Typer application, or a function in a module
            with `EXAMPLES`.
        summary: line in the help of all commands.
    """

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self._place = place

    def load(self) -> click.Command:
        """Import and return the command itself."""
        module_name, _, attribute = self._place.partition(":")
        module = importlib.import_module(f"disinherit.cli.{module_name}")
        found = getattr(module, attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        application = Commands()
        application.command(self.name, epilog=module.EXAMPLES)(found)
        return typer.main.get_command(application)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Return the context of the imported command, which then runs."""
        return self.load().make_context(info_name, args, parent, **extra)


class Commands(typer.Typer):
    """A Typer application whose commands and groups are those of this module.

    Args:
        help: what its commands are about.
        group: class of the group.
        options: of Typer.
    """

    def __init__(
        self, help: str | None = None, group: type[CommandGroup] = CommandGroup, **options: Any
    ) -> None:
        settings: dict[str, Any] = {
            "cls": group,
            "no_args_is_help": True,
            "suggest_commands": False,  # the group does
            "add_completion": False,
            "rich_markup_mode": None,
            "pretty_exceptions_enable": False,
            "context_settings": {
                "help_option_names": ["-h", "--help"],
                "max_content_width": _WIDEST,
            },
        }
        super().__init__(help=help, **{**settings, **options})

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Return a decorator that registers a function as a command."""
        settings = {"cls": Command, "context_settings": self.info.context_settings}
        return super().command(name, **{**settings, **options})


def options_in(panel: str) -> Callable[..., Any]:
    """Return `typer.Option` for the options in a panel of a command's help."""
    return functools.partial(typer.Option, rich_help_panel=panel)


def write_heading(text: str) -> str:
    """Return a heading of help: bold on a terminal that can show it."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"
    return text if plain or not sys.stdout.isatty() else click.style(text, bold=True)


def _write_panels(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = _present(parameter).get_help_record(ctx)
        if record is None:
            continue
        name = (
            "Arguments"
            if parameter.param_type_name == "argument"
            else getattr(parameter, "rich_help_panel", None) or _OPTIONS
        )
        # Typer escapes brackets for a renderer of markup, which this is not.
        panels.setdefault(name, []).append((record[0], record[1].replace("\\[", "[")))
    last = (_OPTIONS, CONNECTION)
    ordered = [name for name in panels if name not in last]
    # Names beside their descriptions take a third of a wide terminal, and less of a narrow one.
    widest = min(_WIDEST, shutil.get_terminal_size().columns) // 3
    for name in [*ordered, *(name for name in last if name in panels)]:
        with formatter.section(write_heading(name)):
            formatter.write_dl(panels[name], col_max=widest)


def _present(parameter: click.Parameter) -> click.Parameter:
    """Return a parameter without the former names of an option, which follow its name."""
    if not isinstance(parameter, click.Option):
        return parameter
    shown = copy.copy(parameter)
    for part in ("opts", "secondary_opts"):
        names = getattr(parameter, part)
        long = [name for name in names if name.startswith("--")][:1]
        setattr(shown, part, [n for n in names if not n.startswith("--") or n in long])
    return shown
