"""Output of commands: results on standard output, progress on standard error.

No other module prints.  Some texts come from others: reasons of requests, class names, errors of
owners.  So control characters are escaped, and text is never read as markup.
"""

import enum
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from disinherit.common.text import printable
from disinherit.documents.words import as_time as as_time

_PIPE_COLUMNS = 1000
"""Columns of what is no terminal: no line is folded there."""


class Format(enum.StrEnum):
    """Format of results."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        "-o",
        help="table for people, wide for more columns and exact times, json for programs.",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print ids only, one on each line.")
]


class Say(Protocol):
    """Progress callback."""

    def __call__(self, message: str) -> None:
        """Show a message."""
        ...


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(_escaped(json.dumps(value, indent=2, ensure_ascii=False)))


def print_json_line(value: Any) -> None:
    """Print a value as JSON on one line of standard output."""
    typer.echo(_escaped(json.dumps(value, ensure_ascii=False)))


def print_done(form: Format, values: Any, *lines: str) -> None:
    """Print what a command has done: as JSON for programs, else in lines.

    Args:
        form: format of the output.
        values: what was done, as JSON values.
        lines: the same for people.
    """
    if form is Format.JSON:
        print_json(values)
        return
    for line in lines:
        print_line(line)


def print_line(text: str = "") -> None:
    """Print one line on standard output."""
    typer.echo(printable(text))


def warn_line(text: str) -> None:
    """Print one line on standard error."""
    typer.echo(printable(text), err=True)


def print_rich(*renderables: RenderableType, least: int = 0) -> None:
    """Print tables and text on standard output; strings are not read as markup.

    Args:
        renderables: tables, text and strings.
        least: columns that they take at least, where the terminal has fewer.
    """
    console = _PrintableConsole(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    console.width = max(console.width, least)
    for renderable in renderables:
        console.print(renderable)


class _PrintableConsole(Console):
    """A console without markup or control characters in texts."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as plain text on one line."""
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render; only styles of this program make escape sequences."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                lines = (printable(line) for line in segment.text.split("\n"))
                yield Segment("\n".join(lines), segment.style)


def _escaped(text: str) -> str:
    """Return JSON with unprintable characters escaped; they occur in strings only."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text
    )


def is_terminal() -> bool:
    """Return whether standard output is a terminal that can move its cursor."""
    return sys.stdout.isatty() and not _PrintableConsole().is_dumb_terminal


@contextmanager
def live(render: Callable[[], RenderableType]) -> Iterator[None]:
    """Show something on standard output, as it is at each moment, until the block ends.

    Args:
        render: returns what is to be seen now.
    """
    console = _PrintableConsole()
    with Live(get_renderable=render, console=console, refresh_per_second=4):
        yield


_COUNT = re.compile(r"\[(\d{1,9})/(\d{1,9})\]")
"""How a message says how many of all are done."""


@contextmanager
def progress() -> Iterator[Say]:
    """Show progress and durations: live on a terminal, else line by line.

    A message with `[3/7]` in it moves a bar, and says how long the rest may take.
    """
    console = _PrintableConsole(stderr=True)
    started = time.monotonic()
    if not console.is_terminal:

        def say_line(message: str) -> None:
            warn_line(f"{time.monotonic() - started:6.1f} s  {message}")

        yield say_line
        return
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=20),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as display:
        task = display.add_task("starting", total=None)
        last: list[str] = []

        def say(message: str) -> None:
            if last:
                taken = f"{time.monotonic() - started:.1f} s"
                display.console.print(
                    Text.assemble(("✓", "green"), f" {last[-1]} ", (taken, "dim")), highlight=False
                )
            last[:] = [message]
            counted = _COUNT.search(message)
            if counted is None:
                display.update(task, description=message, total=None)
                return
            done, total = map(int, counted.groups())
            if done == 1 or display.tasks[0].total != total:
                display.reset(task, total=total)
            display.update(task, description=message, completed=done)

        yield say
