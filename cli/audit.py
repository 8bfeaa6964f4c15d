"""`disinherit audit`: take the coordinator's audit log home, and verify it there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from disinherit.cli.connection import Connection, connected
from disinherit.cli.output import Format, FormatOption, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disinherit.common.audit_lines import Header, Verdict
    from disinherit.common.dsse import TrustedKeys

app = typer.Typer(help="Export the audit log, and verify an export.", no_args_is_help=True)


@app.command(
    epilog="Examples:\n\n"
    "disinherit audit export --out audit.jsonl\n\n"
    "disinherit audit export forget-0123456789ab --out request.jsonl"
)
@connected
def export(
    connection: Connection,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    request_id: Annotated[
        str, typer.Argument(metavar="[REQUEST]", help="Only what is about this request.")
    ] = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """Write the audit log to a file, and say its head: note it where the log cannot be changed."""
    # Imported here because torch takes seconds, which --help should not.
    from disinherit.common.audit_lines import read_header
    from disinherit.common.checkpoints import write_atomic
    from disinherit.v1 import coordinator_pb2 as pb

    request = pb.ExportAuditRequest(request_id=request_id)
    lines = [answer.line for answer in connection.stream("ExportAudit", request)]
    header = read_header(lines[0] if lines else b"")
    write_atomic(out, b"".join(line + b"\n" for line in lines))
    if form is Format.JSON:
        print_json(
            {
                "out": str(out),
                "request": header.request_id or None,
                "entries": header.entries,
                "head": header.head or None,
                "signed_by": [one.key_id for one in header.signatures],
            }
        )
    else:
        typer.echo(f"{header.entries} entries in {out}\nhead {header.head or 'none'}")
        typer.echo(_signed(header))
    return 0


@app.command(epilog="Example: disinherit audit keys --out coordinator.pub")
@connected
def keys(
    connection: Connection,
    out: Annotated[Path, typer.Option(help="The file to write, PEM, one key after the other.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Write the public keys of all signatures of the coordinator to a file, the oldest first.

    Whoever verifies must have them from somebody that it trusts: compare the ids.
    """
    from disinherit.cli.statuses import as_time
    from disinherit.common.checkpoints import write_atomic
    from disinherit.common.errors import AuditError
    from disinherit.v1 import coordinator_pb2 as pb

    known = connection.call("GetSigningKeys", pb.GetSigningKeysRequest()).keys
    if not known:
        raise AuditError(
            "Expected a coordinator that signs, but this one has no key. Give it one: signing.key "
            "in its configuration."
        )
    write_atomic(out, b"".join(one.public_pem for one in known))
    if form is Format.JSON:
        listed = [{"id": one.key_id, "since": as_time(one.since_us)} for one in known]
        print_json({"out": str(out), "keys": listed})
    else:
        for one in known:
            typer.echo(f"{one.key_id} since {as_time(one.since_us)}")
    return 0


@app.command(
    epilog="Examples:\n\n"
    "disinherit audit verify audit.jsonl\n\n"
    "disinherit audit verify audit.jsonl --key coordinator.pub\n\n"
    "disinherit audit verify audit.jsonl --head "
    "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab"
)
def verify(
    file: Annotated[Path, typer.Argument(help="An export, as `disinherit audit export` wrote it.")],
    head: Annotated[
        str, typer.Option(help="A head that was noted earlier; the log must still lead to it.")
    ] = "",
    key: Annotated[
        Path | None,
        typer.Option(help="Public keys of the coordinator, PEM: one of them must have signed it."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Check an export, offline: 0 if it is sound, 1 if not, 2 if it cannot be read.

    Names the first entry that was changed, removed, re-ordered or added, or the last one if the
    signature over the log up to it is forged or missing.
    """
    from disinherit.common.audit_lines import verify_lines
    from disinherit.common.errors import AuditError

    if head and (len(head) != 64 or set(head) - set("0123456789abcdef")):
        raise AuditError(
            f"Expected the head of a log, 64 lower-case hexadecimal digits, but got {head!r}."
        )
    trusted = None if key is None else _trusted(key)
    try:
        with file.open("rb") as opened:
            verdict = verify_lines(_lines(opened), head, trusted)
    except OSError as error:
        raise AuditError(
            f"Expected an export of an audit log in {str(file)!r}, but: {error.strerror}."
        ) from None
    _show(file, verdict, trusted is not None, form)
    return 0 if verdict.problem is None else 1


def _trusted(key: Path) -> "TrustedKeys":
    from disinherit.common.dsse import TrustedKeys
    from disinherit.common.errors import AuditError

    try:
        return TrustedKeys.from_pem(key.read_bytes())
    except OSError as error:
        raise AuditError(f"Expected public keys in {str(key)!r}, but: {error.strerror}.") from None


def _lines(file: BinaryIO) -> "Iterator[bytes]":
    from disinherit.common.audit_lines import LONGEST_LINE

    return iter(lambda: file.readline(LONGEST_LINE + 1), b"")


def _signed(header: "Header") -> str:
    from disinherit.cli.statuses import as_time

    if not header.signatures:
        return "not signed"
    ids = ", ".join(one.key_id for one in header.signatures)
    return f"signed by {ids} at {as_time(header.signed_us)}"


def _show(file: Path, verdict: "Verdict", checked: bool, form: Format) -> None:
    header, problem = verdict.header, verdict.problem
    if form is Format.JSON:
        print_json(
            {
                "file": str(file),
                "request": header.request_id or None,
                "entries": header.entries,
                "head": header.head or None,
                "signed_by": [one.key_id for one in header.signatures],
                "signature_checked": checked,
                "sound": problem is None,
                "problem": problem
                and {
                    "entry": problem.sequence,
                    "finding": problem.finding.value,
                    "reason": problem.reason,
                },
            }
        )
        return
    about = f" about {header.request_id}" if header.request_id else ""
    if problem is None:
        typer.echo(f"sound: {header.entries} entries{about}, head {header.head or 'none'}")
        unchecked = "" if checked else ", which was not checked: give the key with --key"
        typer.echo(_signed(header) + (unchecked if header.signatures else ""))
    else:
        typer.echo(f"not sound: entry {problem.sequence} {problem.finding}. {problem.reason}")
