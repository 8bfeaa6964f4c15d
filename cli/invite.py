"""`disinherit invite`: a one-time token for the enrolment of an owner's agent."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.output import Format, FormatOption, print_done

EXAMPLES = "Example: disinherit invite anna --config serve.toml"


def invite(
    owner: Annotated[str, typer.Argument(help="Owner of the agent.")],
    config: Annotated[Path, typer.Option(help="The configuration of `disinherit serve`.")],
    hours: Annotated[float, typer.Option(min=0.01, help="Validity of the token in hours.")] = 24.0,
    form: FormatOption = Format.TABLE,
) -> int:
    """Print a token for `disinherit agent --enrol -`; on the coordinator's machine only."""
    # Imported here: `owner list` needs no database, nor its extra.
    from disinherit.server.service.inviting import open_enrolment

    with open_enrolment(config) as (enrolment, settings):
        token = enrolment.invite(owner, hours * 3600)
    assert settings.agents is not None
    ca = settings.agents.authority / "ca.pem"
    print_done(form, {"owner": owner, "token": token, "ca": str(ca)}, token)
    return 0
