"""`disinherit revoke`: revocation of an owner's certificates after a loss of key or device."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.output import Format, FormatOption, print_done

EXAMPLES = "Example: disinherit revoke anna --config serve.toml"


def revoke(
    owner: Annotated[str, typer.Argument(help="Owner of the agent.")],
    config: Annotated[Path, typer.Option(help="The configuration of `disinherit serve`.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Refuse an owner's certificates and tokens; on the coordinator's machine only.

    A connected agent is disconnected within seconds. Invite the owner again to admit a new key.
    """
    # Imported here: `owner list` needs no database, nor its extra.
    from disinherit.server.service.inviting import open_enrolment

    with open_enrolment(config) as (enrolment, _):
        enrolment.revoke(owner)
    said = f"agents of {owner} are refused until it is invited again"
    print_done(form, {"owner": owner, "revoked": True}, said)
    return 0
