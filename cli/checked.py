"""Values that are checked as they are read, before other options are missed or a server is asked.

What a command is given can be wrong in ways that this machine can see.  Whoever reads of a missing
option, or of a coordinator that is away, mends that first, and learns of the mistake afterwards.
"""

import importlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
import typer

from disinherit.common.errors import InputError

Given = TypeVar("Given", str, Path, str | None, Path | None)

STANDARD_OUTPUT = "-"


def checked_by(place: str) -> Callable[[click.Context, str | None], str | None]:
    """Return a callback of an option or argument, which lets a function look at the value.

    Args:
        place: `module:function` in `disinherit`; it raises if the value is wrong. It is imported
            when there is a value, as some take seconds.
    """
    module_name, _, name = place.partition(":")

    def check(context: click.Context, value: str | None) -> str | None:
        if value is not None and not context.resilient_parsing:  # as in completion
            getattr(importlib.import_module(f"disinherit.{module_name}"), name)(value)
        return value

    return check


def writable(file: Given) -> Given:
    """Return a file to write, as it was given; a callback of options and arguments.

    Raises:
        InputError: if it is a folder, or in none, or in one that this user may not write to.
    """
    if file is None or str(file) == STANDARD_OUTPUT:
        return file
    path = Path(file).absolute()
    if path.is_dir():
        raise InputError(f"Expected a file to write, but got {str(file)!r}, which is a folder.")
    if not path.parent.is_dir():
        raise InputError(
            f"Expected a folder for {file}, but {path.parent} is none. Make it, or name another "
            "file."
        )
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"Expected to write {file}, but this user cannot write to {path.parent}.")
    return file


file_to_write = partial(typer.Option, callback=writable)
"""As `typer.Option`, for the file that a command writes."""
