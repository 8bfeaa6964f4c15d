"""`disinherit invite`: a one-time token with which an owner's agent gets its certificate."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.output import Format, FormatOption, print_json

EXAMPLES = "Example: disinherit invite anna --config serve.toml"


def invite(
    owner: Annotated[str, typer.Argument(help="Whose agent it is for.")],
    config: Annotated[Path, typer.Option(help="The configuration of `disinherit serve`.")],
    hours: Annotated[float, typer.Option(min=0.01, help="How long it is good for.")] = 24.0,
    form: FormatOption = Format.TABLE,
) -> int:
    """Print a token for `disinherit agent --enrol`; on the coordinator's machine only."""
    # Imported here because it takes a while, which --help should not.
    from disinherit.common.errors import InputError
    from disinherit.server.agents.authority import CertificateAuthority
    from disinherit.server.agents.enrolment import Enrolment
    from disinherit.server.database import Database
    from disinherit.server.service.settings import read_settings

    settings = read_settings(config, {}, {})
    if settings.agents is None:
        raise InputError(f"Expected a table [agents] in {str(config)!r}, but got none.")
    authority = CertificateAuthority.open(settings.agents.authority)
    database = Database(settings.database)
    try:
        token = Enrolment(database, authority).invite(owner, hours * 3600)
    finally:
        database.close()
    if form is Format.JSON:
        ca = settings.agents.authority / "ca.pem"
        print_json({"owner": owner, "token": token, "ca": str(ca)})
    else:
        typer.echo(token)
    return 0
