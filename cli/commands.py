"""Commands by name, each imported when it is called: help of the others needs only its one line."""

import importlib
from collections.abc import Mapping
from typing import Any

import click
import typer.main
from typer.core import TyperGroup


class LazyCommand(click.Command):
    """A command that is imported once it is called, or asked for its own help.

    Args:
        name: as it is called.
        place: `module:name` in `disinherit.cli`, of a Typer application, or of a function in a
            module with `EXAMPLES`.
        summary: its line in the help of all commands.
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
        """Read the arguments as the command itself does, which is what runs then."""
        return self.load().make_context(info_name, args, parent, **extra)


def group_of(commands: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """Return a class for a Typer application that has these commands beside its own.

    Args:
        commands: name -> place and summary, as for `LazyCommand`.
    """

    class Commands(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for name, (place, summary) in commands.items():
                self.add_command(LazyCommand(name, place, summary))

    return Commands
