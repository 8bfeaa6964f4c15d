"""`disinherit owner`: who owns models, who is there, and who may enrol."""

from pathlib import Path
from typing import Annotated, Any

import typer

from disinherit.cli.commands import Commands
from disinherit.cli.completion import complete_owners
from disinherit.cli.connection import Connection, connected
from disinherit.cli.invite import EXAMPLES as INVITE_EXAMPLES
from disinherit.cli.invite import invite
from disinherit.cli.output import (
    Format,
    FormatOption,
    QuietOption,
    as_time,
    print_json,
    print_line,
)
from disinherit.cli.revoke import EXAMPLES as REVOKE_EXAMPLES
from disinherit.cli.revoke import revoke
from disinherit.cli.tables import Cell, ago, moment, print_facts, print_table, state_text
from disinherit.common.errors import NotAllowedError, NotFoundError
from disinherit.documents.words import bandwidth
from disinherit.v1 import coordinator_pb2 as pb

app = Commands("List the owners of models, and invite or revoke their agents.")


@app.command("list", epilog="Example: disinherit owner list")
@connected
def list_owners(
    connection: Connection, quiet: QuietOption = False, form: FormatOption = Format.TABLE
) -> int:
    """List all owners: whether they are connected, and how many of their models wait."""
    owners = ask_owners(connection)
    if quiet:
        for owner in owners:
            print_line(owner.name)
        return 0
    if form is Format.JSON:
        print_json([_values(owner) for owner in owners])
        return 0
    wide = form is Format.WIDE
    titles = ["owner", "state", "last seen", "way", "models", "waiting"]
    more = ["release", "hours", "bandwidth", "access", "since"] if wide else []
    rows: list[list[Cell]] = []
    for owner in owners:
        seen = as_time(owner.last_seen_us) if wide else _seen(owner)
        row: list[Cell] = [owner.name, state_text(presence(owner)), seen, owner.way]
        row += [str(owner.active_models), str(owner.pending_tasks)]
        rows.append(
            [
                *(*row, owner.release, owner.hours, _bandwidth(owner)),
                *(owner.access, as_time(owner.access_us)),
            ]
            if wide
            else row
        )
    print_table(
        [*titles, *more],
        rows,
        whole=("owner", "state"),
        empty="No owners yet. Invite one: disinherit owner invite OWNER --config serve.toml",
    )
    return 0


@app.command(epilog="Example: disinherit owner show anna")
@connected
def show(
    connection: Connection,
    owner: Annotated[
        str,
        typer.Argument(metavar="OWNER", help="Name of the owner.", autocompletion=complete_owners),
    ],
    form: FormatOption = Format.TABLE,
) -> int:
    """Print what the coordinator knows of an owner, and its models."""
    found = ask_owners(connection, owner)
    if not found:
        raise NotFoundError(
            f"Expected an owner that the coordinator knows, but got {owner!r}. See disinherit "
            "owner list."
        )
    (one,) = found
    request = pb.ListModelsRequest(owner=owner)
    pages = connection.pages(lambda stub: stub.ListModels, request)
    models = [record.id for page in pages for record in page.models]
    if form is Format.JSON:
        print_json(_values(one) | {"model_ids": models})
        return 0
    print_facts(
        [
            ("owner", one.name),
            ("state", state_text(presence(one))),
            ("last seen", "now" if one.online else moment(one.last_seen_us) or "never"),
            ("way", one.way),
            ("release", one.release),
            ("hours", one.hours),
            ("bandwidth", _bandwidth(one)),
            ("access", one.access),
            ("since", moment(one.access_us)),
            ("waiting", f"{one.pending_tasks} models"),
            ("models", ", ".join(models) or "none"),
        ]
    )
    return 0


app.command(epilog=INVITE_EXAMPLES.replace("disinherit invite", "disinherit owner invite"))(invite)
app.command(epilog=REVOKE_EXAMPLES.replace("disinherit revoke", "disinherit owner revoke"))(revoke)


@app.command(epilog="Example: disinherit owner admit anna anna.pub")
def admit(
    owner: Annotated[
        str, typer.Argument(metavar="OWNER", help="Owner of the models that the node serves.")
    ],
    key: Annotated[Path, typer.Argument(metavar="KEY", help="Public key of its SuperNode.")],
    folder: Annotated[Path, typer.Option(help="Folder of the deployment.")] = Path("deployment"),
    form: FormatOption = Format.TABLE,
) -> int:
    """Admit an owner's SuperNode by its public key; the SuperLink must be running."""
    # Imported here: `owner list` needs no deployment, nor its extra.
    from disinherit.cli.deploy import admit as admit_node

    code: int = admit_node(owner, key, folder, form)
    return code


def ask_owners(connection: Connection, owner: str = "") -> list[pb.Owner]:
    """Return the owners that the coordinator knows, by name.

    Args:
        connection: to the coordinator.
        owner: only this one; `""` for all.

    Raises:
        DisinheritError: if a call fails.
    """
    pages = connection.pages(lambda stub: stub.ListOwners, pb.ListOwnersRequest(owner=owner))
    return [one for page in pages for one in page.owners]


def ask_seen_owners(connection: Connection) -> list[pb.Owner]:
    """Return the owners that the caller may see: all, or none if it may not list them.

    Raises:
        DisinheritError: if a call fails.
    """
    try:
        return ask_owners(connection)
    except NotAllowedError:
        return []


def presence(owner: pb.Owner) -> str:
    """Return whether an owner is there: online, offline, or never seen."""
    if owner.online:
        return "online"
    return "offline" if owner.last_seen_us else "never seen"


def _seen(owner: pb.Owner) -> str:
    return "now" if owner.online else ago(owner.last_seen_us)


def _bandwidth(owner: pb.Owner) -> str:
    return bandwidth(owner.downloaded_bytes, owner.download_us, owner.bytes_per_second)


def _values(owner: pb.Owner) -> dict[str, Any]:
    return {
        "owner": owner.name,
        "online": owner.online,
        "last_seen": as_time(owner.last_seen_us),
        "way": owner.way or None,
        "release": owner.release or None,
        "models": owner.models,
        "active_models": owner.active_models,
        "pending_tasks": owner.pending_tasks,
        "hours": owner.hours or None,
        "bytes_per_second": owner.bytes_per_second or None,
        "downloaded_bytes": owner.downloaded_bytes or None,
        "download_seconds": owner.download_us / 1e6 if owner.download_us else None,
        "access": owner.access or None,
        "access_since": as_time(owner.access_us),
    }
