"""`disinherit agent`: serve the models of this device."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = "Example: disinherit agent --config /etc/disinherit/agent.toml"


def agent(
    config: Annotated[Path, typer.Option(help="The agent's configuration, TOML.")],
    enrol: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="First get a certificate, once per device.")
    ] = None,
) -> int:
    """Connect to the coordinator and do what it asks with this device's models.

    Runs until it gets SIGTERM. It may be switched off at any moment: it goes on where it was.
    """
    # Imported here because torch takes seconds, which --help should not.
    import logging

    from disinherit.client import agent as agents
    from disinherit.common.private_files import keep_private

    keep_private()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    settings = agents.read_config(config)
    open_owner = agents.load_factory(settings)
    identity = agents.load_identity(settings) if enrol is None else agents.enrol(settings, enrol)
    agents.run_until_signal(settings, identity, open_owner)
    return 0
