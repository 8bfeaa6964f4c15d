"""`disinherit agent`: the agent of this device's models."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

EXAMPLES = (
    "Examples:\n\n"
    "disinherit agent --config /etc/disinherit/agent.toml\n\n"
    "disinherit agent --config /etc/disinherit/agent.toml --enrol - < token"
)
_TOKEN = "DISINHERIT_ENROL_TOKEN"


def agent(
    config: Annotated[Path, typer.Option(help="The agent's configuration, TOML.")],
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
