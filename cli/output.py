"""How commands speak: results to standard output, progress to standard error."""

import enum
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Format(enum.StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[
    Format, typer.Option("--format", help="table for people, json for programs.")
]


class Say(Protocol):
    """Told what is happening."""

    def __call__(self, message: str) -> None:
        """Show a message."""
        ...


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_rich(*renderables: RenderableType) -> None:
    """Print tables and text on standard output."""
    console = Console()
    for renderable in renderables:
        console.print(renderable)


@contextmanager
def progress() -> Iterator[Say]:
    """Show what is happening, with the time it took: live on a terminal, else line by line."""
    console = Console(stderr=True)
    started = time.monotonic()
    if not console.is_terminal:

        def say_line(message: str) -> None:
            typer.echo(f"{time.monotonic() - started:6.1f} s  {message}", err=True)

        yield say_line
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task("starting")
        last: list[str] = []

        def say(message: str) -> None:
            if last:
                display.console.print(
                    f"[green]✓[/] {last[-1]} [dim]{time.monotonic() - started:.1f} s[/]",
                    highlight=False,
                )
            last[:] = [message]
            display.update(task, description=message)

        yield say
