"""`disinherit agent`: serve the models of this device."""

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
            help="First get a certificate, once per device; - for a token on standard input.",
        ),
    ] = None,
) -> int:
    """Connect to the coordinator and do what it asks with this device's models.

    Runs until it gets SIGTERM. It may be switched off at any moment: it goes on where it was.
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
        _begin_again_without(enrol)
    run_until_signal(settings, identity, open_owner)
    return 0


def _begin_again_without(token: str) -> NoReturn:
    """Start this program anew without a token that is spent: all users can see what it was told."""
    arguments = [one for one in sys.orig_argv[1:] if one not in ("--enrol", token)]
    arguments = [one for one in arguments if one != f"--enrol={token}"]
    environment = {name: value for name, value in os.environ.items() if name != _TOKEN}
    os.execve(sys.executable, [sys.executable, *arguments], environment)
