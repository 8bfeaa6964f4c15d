"""`disinherit revoke`: have an owner's agent refused, whose key or device was lost."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.output import print_line
from disinherit.server.service.inviting import open_enrolment

EXAMPLES = "Example: disinherit revoke anna --config serve.toml"


def revoke(
    owner: Annotated[str, typer.Argument(help="Whose agent it is.")],
    config: Annotated[Path, typer.Option(help="The configuration of `disinherit serve`.")],
) -> int:
    """Refuse an owner's certificates and tokens; on the coordinator's machine only.

    A connected agent is cut off within seconds. Invite the owner again to let in a new key.
    """
    with open_enrolment(config) as (enrolment, _):
        enrolment.revoke(owner)
    print_line(f"agents of {owner} are refused until it is invited again")
    return 0
