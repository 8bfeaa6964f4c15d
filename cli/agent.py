"""`disinherit agent`: the agent of this device's models, and what it does."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import click
import typer

from disinherit.cli.commands import CommandGroup, Commands
from disinherit.cli.output import Format, FormatOption, as_time, print_json
from disinherit.cli.tables import Cell, moment, print_facts, state_text
from disinherit.common.errors import DisinheritError
from disinherit.documents.words import count, size

if TYPE_CHECKING:
    from disinherit.client.agent import AgentConfig
    from disinherit.client.agent.activity import Activity

EXAMPLES = (
    "Examples:\n\n"
    "disinherit agent --config /etc/disinherit/agent.toml\n\n"
    "disinherit agent --config /etc/disinherit/agent.toml --enrol - < token"
)
STATUS_EXAMPLES = "Example: disinherit agent status --config /etc/disinherit/agent.toml"
_TOKEN = "DISINHERIT_ENROL_TOKEN"
_ANSWER_SECONDS = 10.0


class _Agent(CommandGroup):
    """The commands of an agent; `run` is the one that need not be said."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take options without a command as those of `run`."""
        own = args and args[0].startswith("-") and args[0] not in ctx.help_option_names
        return super().parse_args(ctx, ["run", *args] if own else args)


app = Commands(
    "Run the agent of this device's models, and show what it does.\n\n"
    "Options without a command are those of run.",
    group=_Agent,
    epilog="Start with: disinherit agent --config agent.toml --enrol - < token",
)

ConfigOption = Annotated[Path, typer.Option(help="The agent's configuration, TOML.")]


@app.command("run", epilog=EXAMPLES)
def agent(
    config: ConfigOption,
    enrol: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar=_TOKEN,
            help="Enrol first, once per device; - reads the token from standard input.",
        ),
    ] = None,
) -> int:
    """Connect this device's models to the coordinator and carry out its tasks.

    Runs until SIGTERM. It may be switched off at any moment, and resumes at the next start.
    `disinherit agent --config FILE` does the same.
    """
    # Imported here because torch takes seconds, which --help should not.
    import logging

    from disinherit.client import agent as agents
    from disinherit.client.agent.agent import load_factory, run_until_signal
    from disinherit.common.files import keep_private

    keep_private()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    settings = agents.read_config(config)
    open_owner = load_factory(settings)
    if enrol is None:
        identity = agents.load_identity(settings)
    elif enrol == "-":
        identity = agents.enrol(settings, sys.stdin.readline().strip())
    else:
        agents.enrol(settings, enrol)
        _restart_without(enrol)
    run_until_signal(settings, identity, open_owner)
    return 0


def _restart_without(token: str) -> NoReturn:
    """Restart this program without the spent token: all users can see its arguments."""
    arguments = [one for one in sys.orig_argv[1:] if one not in ("--enrol", token)]
    arguments = [one for one in arguments if one != f"--enrol={token}"]
    environment = {name: value for name, value in os.environ.items() if name != _TOKEN}
    os.execve(sys.executable, [sys.executable, *arguments], environment)


@app.command(epilog=STATUS_EXAMPLES)
def status(config: ConfigOption, form: FormatOption = Format.TABLE) -> int:
    """Print whether this device's agent runs, is connected, and may connect.

    Exit code 1 if it does not run, 3 if the coordinator does not answer, 4 if it refuses the
    agent's certificate.
    """
    from disinherit.client.agent import load_identity, read_config
    from disinherit.client.agent.activity import read_activity
    from disinherit.client.agent.identity import check_access, key_id

    settings = read_config(config)
    identity = load_identity(settings)
    refusal: DisinheritError | None = None
    try:
        check_access(settings, identity, _ANSWER_SECONDS)
    except DisinheritError as error:
        refusal = error
    found = read_activity(settings.state)
    _print_status(settings, found, key_id(identity), refusal, form)
    if refusal is not None:
        return refusal.exit_code
    return 0 if found.running else 1


def _print_status(
    settings: "AgentConfig",
    found: "Activity",
    key: str,
    refusal: DisinheritError | None,
    form: Format,
) -> None:
    hours = None if settings.hours is None else str(settings.hours)
    if form is Format.JSON:
        print_json(_values(settings, found, key, refusal) | {"hours": hours})
        return
    limit = settings.bytes_per_second
    print_facts(
        [
            ("owner", settings.owner),
            *_doings(found),
            ("coordinator", settings.server),
            (
                "certificate",
                state_text("valid", "accepted")
                if refusal is None
                else state_text("problem", f"not accepted: {refusal}"),
            ),
            ("key", key),
            ("hours", hours or "always"),
            ("limit", f"{size(limit)}/s in each direction" if limit else ""),
        ]
    )


def _doings(found: "Activity") -> list[tuple[str, Cell]]:
    """Return what an agent does, as names with values."""
    if not found.running:
        return [("agent", state_text("offline", "not running"))]
    answered = count(found.answered, "task")
    failed = f", {found.failed} of them without a result" if found.failed else ""
    return [
        ("agent", state_text("ok", f"running, process {found.process}")),
        ("started", moment(found.started_us)),
        (
            "connection",
            state_text("online", "connected")
            if found.connected
            else state_text("offline", f"none: {found.why}"),
        ),
        ("since", moment(found.since_us)),
        ("answered", answered + failed),
        ("last answer", moment(found.answered_us)),
        ("last failure", found.error),
    ]


def _values(
    settings: "AgentConfig", found: "Activity", key: str, refusal: DisinheritError | None
) -> dict[str, Any]:
    return {
        "owner": settings.owner,
        "coordinator": settings.server,
        "running": found.running,
        "process": found.process if found.running else None,
        "started": as_time(found.started_us),
        "connected": found.running and found.connected,
        "since": as_time(found.since_us),
        "why": found.why or None,
        "answered": found.answered,
        "failed": found.failed,
        "last_answer": as_time(found.answered_us),
        "last_failure": found.error or None,
        "accepted": refusal is None,
        "refusal": None if refusal is None else str(refusal),
        "key_sha256": key,
        "bytes_per_second": settings.bytes_per_second or None,
    }
