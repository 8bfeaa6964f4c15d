"""`disinherit token`: who may call the coordinator, in its token file."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.commands import Commands
from disinherit.cli.output import (
    Format,
    FormatOption,
    QuietOption,
    as_time,
    print_done,
    print_json,
    print_line,
    warn_line,
)
from disinherit.cli.tables import ago, print_table, state_text
from disinherit.common.durations import seconds
from disinherit.server.now import now_us
from disinherit.server.service.principals import TokenBook
from disinherit.server.service.token_edits import add_token, remove_token

app = Commands("Make, list and revoke tokens; on the coordinator's machine only.")

TokensOption = Annotated[
    Path, typer.Option(help="The token file, as in the configuration of `disinherit serve`.")
]
_TOKENS = Path("tokens.toml")


@app.command(
    epilog="Examples:\n\n"
    "disinherit token new alice --role operator --expires 90d\n\n"
    "disinherit token new clinic-7 --role owner:clinic-7 --tokens /etc/disinherit/tokens.toml"
)
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its holder in the logs: a role or a program.")
    ],
    role: Annotated[
        str,
        typer.Option(
            help="viewer, operator, approver, or owner:NAME.",
            autocompletion=lambda: ["viewer", "operator", "approver", "owner:"],
        ),
    ],
    expires: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Valid for so long: 12h, 90d; for ever by default."),
    ] = None,
    tokens: TokensOption = _TOKENS,
    form: FormatOption = Format.TABLE,
) -> int:
    """Make a token and print it, once: the file has only its digest.

    A running coordinator accepts it at once.
    """
    until = None
    if expires is not None:
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds(expires))
    secret = add_token(tokens, name, role, until)
    if form is Format.JSON:
        end = None if until is None else until.isoformat()
        print_json({"name": name, "role": role, "token": secret, "expires": end})
        return 0
    print_line(secret)
    warn_line(f"This is shown once. {name} calls the coordinator with it in DISINHERIT_TOKEN.")
    return 0


@app.command("list", epilog="Example: disinherit token list --tokens tokens.toml")
def list_tokens(
    tokens: TokensOption = _TOKENS, quiet: QuietOption = False, form: FormatOption = Format.TABLE
) -> int:
    """List the tokens with their roles; their secrets are nowhere."""
    known = sorted(TokenBook.read(tokens).tokens, key=lambda one: one.principal.name)
    if quiet:
        for one in known:
            print_line(one.principal.name)
        return 0
    rows = [(one.principal.name, one.principal.written_role, one.expires_us) for one in known]
    if form is Format.JSON:
        print_json(
            [{"name": name, "role": role, "expires": as_time(until)} for name, role, until in rows]
        )
        return 0
    exact = form is Format.WIDE
    print_table(
        ("name", "role", "state", "expires"),
        [
            [
                *(name, role, state_text(_state(until))),
                (as_time if exact else ago)(until) or "never",
            ]
            for name, role, until in rows
        ],
        whole=("name", "role", "state"),
        empty="No tokens yet. Make one: disinherit token new NAME --role operator",
    )
    return 0


@app.command(epilog="Example: disinherit token revoke alice --tokens tokens.toml")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the token, from `token list`.")],
    tokens: TokensOption = _TOKENS,
    form: FormatOption = Format.TABLE,
) -> int:
    """Revoke a token: its next call is refused, and streams that it holds open end."""
    remove_token(tokens, name)
    said = f"the token of {name} is refused from now on"
    print_done(form, {"name": name, "revoked": True}, said)
    return 0


def _state(until_us: int) -> str:
    return "expired" if until_us and until_us <= now_us() else "valid"
