"""Lazy command group: the module of a command is imported when the command runs."""

import importlib
from collections.abc import Mapping
from typing import Any

import click
import typer.main
from typer.core import TyperGroup


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
        application = typer.Typer(add_completion=False)
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


def group_of(commands: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """Return a class of Typer application with lazy commands.

    Args:
        commands: name -> (place, summary) of a `LazyCommand`.
    """

    class Commands(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for name, (place, summary) in commands.items():
                self.add_command(LazyCommand(name, place, summary))

    return Commands
