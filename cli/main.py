"""The `disinherit` command.

Exit codes: 0 success; 1 not all of it was done; 2 wrong input; 3 the coordinator does not answer,
so that trying again may help; 4 the token does not allow this; 5 there is no such id; 130
interrupted.  An error is one line on standard error: the value, what was expected, and what to do.
"""

import importlib.metadata
import os
import re
import sys
from difflib import get_close_matches
from typing import Annotated

import click
import typer

from disinherit.cli.commands import CommandGroup, Commands
from disinherit.cli.output import print_line, warn_line
from disinherit.common.errors import DisinheritError
from disinherit.common.extras import import_problem
from disinherit.common.text import did_you_mean

_INTERRUPTED = 130
_SHOWN = 200

COMMANDS = {
    "demo": (
        "demo:demo",
        "Train seven models that inherit from each other, forget a digit in all of them, show it.",
    ),
    "run": (
        "run:app",
        "Start scenarios on simulated owners, list what there is, and show reports of runs.",
    ),
    "report": ("report:report", "Print a run's report and rewrite its HTML page."),
    "init": (
        "init:init",
        "Write a first configuration with comments; files that exist are left alone.",
    ),
    "status": (
        "status:status",
        "Print whether the coordinator serves, who you are to it, and what needs you.",
    ),
    "doctor": (
        "doctor:doctor",
        "Check what this machine has and lacks; exit code 1 if it lacks something.",
    ),
    "owner": ("owner:app", "List the owners of models, and invite or revoke their agents."),
    "token": ("token:app", "Make, list and revoke tokens; on the coordinator's machine only."),
    "config": ("config:app", "Check configurations."),
    "simulate": (
        "simulate:simulate",
        "Train a scenario's models on simulated owners, forget in all of them, and measure.",
    ),
    "bench": ("bench:app", "Measure methods of unlearning, always beside exact retraining."),
    "graph": ("graph:app", "Show, export or import an inheritance graph."),
    "serve": (
        "serve:serve",
        "Serve the coordinator until SIGTERM or Ctrl-C, and drive its campaigns.",
    ),
    "request": ("request.app:app", "Submit requests to forget, approve them and follow them."),
    "model": ("model:app", "Register model versions, and list them."),
    "flower": ("flower:app", "Forget in a Flower app that has trained."),
    "samples": (
        "samples:app",
        "Make digests of sample ids for a request; on the owner's machine.",
    ),
    "coverage": (
        "coverage:coverage",
        "List every affected version; exit code 0 if all have forgotten or are exempt, else 1.",
    ),
    "audit": ("audit:app", "Export the audit log, and verify an export."),
    "ui": ("ui:ui", "Show a coordinator, or folders of runs, in a browser, until Ctrl-C."),
    "deploy": (
        "deploy:app",
        "Run a coordinator, a SuperLink, SuperNodes and agents on this machine.",
    ),
    "invite": (
        "invite:invite",
        "Print a token for `disinherit agent --enrol -`; on the coordinator's machine only.",
    ),
    "revoke": (
        "revoke:revoke",
        "Refuse an owner's certificates and tokens; on the coordinator's machine only.",
    ),
    "confirm": (
        "confirm:app",
        "Confirm the clock, or a log with lost entries; on the coordinator's machine only.",
    ),
    "agent": (
        "agent:app",
        "Run the agent of this device's models, and show what it does.",
    ),
}
"""Command -> (`module:name`, summary in the help)."""

SECTIONS = {
    "Try it": ("demo", "run", "bench"),
    "Forget": ("status", "request", "samples", "flower", "audit"),
    "Models": ("model", "graph", "owner"),
    "Run a fleet": ("init", "config", "token", "serve", "ui", "agent", "deploy"),
    "When something is wrong": ("doctor", "confirm"),
    "Other names": ("simulate", "report", "coverage", "invite", "revoke"),
}
"""Heading in the help -> its commands."""

MEANT = {
    **dict.fromkeys(("forget", "unlearn", "erase", "delete", "remove"), "request submit"),
    "train": "run start",
    **dict.fromkeys(("server", "start"), "serve"),
}
"""What people may type -> the command that does it."""

_ADDRESSES = ("--listen", "--host", "--port", "--address", "--bind")
"""Options by which programs say where they listen: who types one means those that there are."""


class _Root(CommandGroup):
    lazy = COMMANDS
    meant = MEANT

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands below headings."""
        for heading, names in SECTIONS.items():
            self.write_commands(heading, names, ctx, formatter)


app = Commands(
    "Unlearn data across a family tree of models, in one parallel step.",
    group=_Root,
    name="disinherit",
    epilog="Start with: disinherit demo",
    add_completion=True,
)


def _version(wanted: bool) -> None:
    if wanted:
        print_line(f"disinherit {importlib.metadata.version('disinherit')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Define the options before a command."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    # What gRPC's core writes to standard error at a lost connection, commands say in words.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: replace those of the process.

    Returns:
        The exit code.
    """
    try:
        code = app(arguments, standalone_mode=False, prog_name="disinherit")
    except click.exceptions.NoArgsIsHelpError as error:
        for line in error.format_message().splitlines():
            print_line(line)
        return 2
    except click.ClickException as error:
        return _fail(_explained(error), 2)
    except DisinheritError as error:
        return _fail(str(error), error.exit_code)
    except click.Abort:
        return _interrupted()
    except Exception as error:
        words = sys.argv[1:] if arguments is None else arguments
        problem = _outside_problem(error, next(iter(words), ""))
        if problem is None:
            raise
        return _fail(problem, 2)
    # Typer turns a KeyboardInterrupt into this exit code, without a message.
    if code == _INTERRUPTED:
        return _interrupted()
    return code if isinstance(code, int) else 0


def _outside_problem(error: Exception, command: str) -> str | None:
    """Return the message of an error of packages or of the system; `None` for our own faults."""
    # First, as a package whose shared library is missing raises what the system does.
    if (problem := import_problem(error, f"`disinherit {command}`", command)) is not None:
        return problem
    if isinstance(error, OSError):  # such as an invalid path or a full disk
        what = f"to use {error.filename!r}" if error.filename else "the system to allow this"
        return f"Expected {what}, but: {error.strerror or error}."
    if isinstance(error, UnicodeEncodeError):  # of a path, which may be any bytes
        return f"Expected names in UTF-8, but got {error.object[:_SHOWN]!r}."
    return None


def _explained(error: click.ClickException) -> str:
    """Return the message of a usage error, with what may have been meant and where help is."""
    if isinstance(error, click.NoSuchOption):
        return _explained_option(error)
    message = error.format_message()
    parameter = getattr(error, "param", None)
    if parameter is not None and isinstance(parameter.type, click.Choice):
        typed, *known = re.findall(r"'([^']*)'", message.partition(": ")[2]) or [""]
        message += did_you_mean(typed, known)
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message} See {context.command_path} --help."


def _explained_option(error: click.NoSuchOption) -> str:
    """Return the message of an option that the command does not have."""
    context = error.ctx
    if context is None:
        return error.format_message()
    known = [name for one in context.command.get_params(context) for name in one.opts]
    typed = error.option_name
    if typed in _ADDRESSES:
        found = [name for name in _ADDRESSES if name in known]
    else:  # by words alone, as all begin with hyphens
        by_word = {name.lstrip("-"): name for name in known if name.startswith("--")}
        found = [by_word[word] for word in get_close_matches(typed.lstrip("-"), by_word, 1)]
    hint = f" Did you mean {' and '.join(map(repr, found))}?" if found else ""
    return f"No such option {typed!r}.{hint} See {context.command_path} --help."


def _interrupted() -> int:
    return _fail("interrupted; run the same command again to continue", _INTERRUPTED)


def _fail(message: str, code: int) -> int:
    warn_line(f"error: {' '.join(message.split())}")
    return code
