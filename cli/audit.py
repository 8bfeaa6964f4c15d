"""`disinherit audit`: export and offline verification of the audit log and attestations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from securesystemslib.dsse import Envelope

from disinherit.cli.checked import file_to_write
from disinherit.cli.commands import Commands
from disinherit.cli.connection import Connection, connected
from disinherit.cli.ids import RequestId
from disinherit.cli.output import Format, FormatOption, as_time, print_done, print_json, print_line
from disinherit.common.audit.attestation import read_statement, request_of
from disinherit.common.audit.chain import AuditEntry, Problem
from disinherit.common.audit.contradictions import find_fault, not_compared
from disinherit.common.audit.dsse import TrustedKeys, key_block, read_envelope
from disinherit.common.audit.export import LONGEST_LINE, Header, read_header, verify_lines
from disinherit.common.audit.line_messages import lines_of
from disinherit.common.errors import AuditError
from disinherit.common.files import write_atomic
from disinherit.documents.campaign.gathering import gather_attestation
from disinherit.v1 import coordinator_pb2 as pb

app = Commands("Export the audit log, and verify an export.")


@app.command(
    epilog="Examples:\n\n"
    "disinherit audit export --out audit.jsonl\n\n"
    "disinherit audit export forget-0123456789ab --out request.jsonl"
)
@connected
def export(
    connection: Connection,
    out: Annotated[Path, file_to_write(help="The file to write.")],
    request_id: Annotated[
        str, typer.Argument(metavar="[REQUEST]", help="Only entries about this request.")
    ] = "",
    form: FormatOption = Format.TABLE,
) -> int:
    """Export the audit log and print its head hash.

    Keep that hash somewhere the coordinator's administrators cannot change.
    """
    request = pb.ExportAuditRequest(request_id=request_id, several=True)
    lines = list(lines_of(connection.stream(lambda stub: stub.ExportAudit, request)))
    header = read_header(lines[0] if lines else b"")
    write_atomic(out, b"".join(line + b"\n" for line in lines))
    print_done(
        form,
        {"out": str(out), **_header_values(header)},
        f"{header.entries} entries in {out}",
        f"head {header.head or 'none'}",
        _signed(header),
    )
    return 0


@app.command(epilog="Example: disinherit audit keys --out coordinator.pub")
@connected
def keys(
    connection: Connection,
    out: Annotated[Path, file_to_write(help="The file to write, PEM.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Write the coordinator's public keys to a file, oldest first.

    Each key has the times between which it signed; revoked keys are left out. Verifiers must get
    these keys from a source they trust; compare the key ids.
    """
    known = connection.call(lambda stub: stub.GetSigningKeys, pb.GetSigningKeysRequest()).keys
    if not known:
        raise AuditError(
            "Expected a coordinator with a signing key, but this one has none. Set signing.key in "
            "its configuration."
        )
    good = [one for one in known if not one.revoked_us]
    write_atomic(
        out, b"".join(key_block(one.public_pem, one.since_us, one.until_us) for one in good)
    )
    listed = [
        {
            "id": one.key_id,
            "since": as_time(one.since_us),
            "until": as_time(one.until_us),
            "revoked": as_time(one.revoked_us),
        }
        for one in known
    ]
    if form is Format.JSON:
        print_json({"out": str(out), "keys": listed})
        return 0
    for key in listed:
        until = f" until {key['until']}" if key["until"] else ""
        revoked = f", revoked at {key['revoked']}: left out" if key["revoked"] else ""
        print_line(f"{key['id']} since {key['since']}{until}{revoked}")
    return 0


@app.command(
    epilog="Example: disinherit audit revoke-key "
    "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab --config serve.toml"
)
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, from `audit keys`.")],
    config: Annotated[Path, typer.Option(help="The configuration of `disinherit serve`.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Revoke a stolen signing key; on the coordinator's machine only.

    Its signatures no longer verify with the keys that `audit keys` writes from now on: export and
    attest again. The coordinator does not start with a revoked key.
    """
    # Imported here: the other commands need no database, nor its extra.
    from disinherit.server.service.confirming import PERSON, opened
    from disinherit.server.store.signing import revoke_key as revoke

    with opened(config) as (database, _), database.writing() as db:
        revoke(db, key_id, PERSON)
    said = "revoked; write the remaining keys again: disinherit audit keys"
    print_done(form, {"id": key_id, "revoked": True}, said)
    return 0


@app.command(epilog="Example: disinherit audit attest forget-0123456789ab --out attestation.json")
@connected
def attest(
    connection: Connection,
    request_id: RequestId,
    out: Annotated[Path, file_to_write(help="The file to write.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Write the signed attestation of a request that has ended to a file.

    It attests the procedure and its gaps, and is no proof of erasure.
    """
    data = gather_attestation(connection, request_id)
    envelope = read_envelope(data)
    predicate = read_statement(envelope)["predicate"]
    write_atomic(out, data)
    gaps = [gap["kind"] for gap in predicate["gaps"]]
    print_done(
        form,
        {
            "out": str(out),
            "request": request_id,
            "state": predicate["state"],
            "coverage": predicate["coverage"],
            "gaps": gaps,
            "signed_by": list(envelope.signatures),
        },
        f"{request_id} is {predicate['state']}: attested in {out}",
        f"left open: {', '.join(gaps).replace('_', ' ') or 'no known gaps'}",
        f"signed by {', '.join(envelope.signatures)}",
    )
    return 0


@app.command(
    epilog="Examples:\n\n"
    "disinherit audit verify audit.jsonl\n\n"
    "disinherit audit verify audit.jsonl --public-key coordinator.pub\n\n"
    "disinherit audit verify audit.jsonl --public-key coordinator.pub "
    "--attestation attestation.json\n\n"
    "disinherit audit verify audit.jsonl --head "
    "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab"
)
def verify(
    file: Annotated[Path, typer.Argument(help="An export of `disinherit audit export`.")],
    head: Annotated[
        str, typer.Option(help="A head noted earlier, which the log must contain.")
    ] = "",
    key: Annotated[
        Path | None,
        typer.Option(
            "--public-key",
            "--key",
            metavar="PEM",
            help="Public keys of the coordinator; one must have signed the export.",
        ),
    ] = None,
    attestation: Annotated[
        Path | None,
        typer.Option(
            help="An attestation of `disinherit audit attest`; one of the keys must have signed "
            "it, and the log must agree with it."
        ),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Verify an export, offline: exit code 0 if sound, 1 if not, 2 if unreadable.

    Reports the first entry that was changed, removed, re-ordered or added; the last entry if the
    log's signature is forged or missing; or the entry that the attestation contradicts.
    """
    if head and (len(head) != 64 or set(head) - set("0123456789abcdef")):
        raise AuditError(
            f"Expected the head of a log, 64 lower-case hexadecimal digits, but got {head!r}."
        )
    if attestation is not None and key is None:
        raise AuditError("Expected --public-key with --attestation: the keys that may sign it.")
    trusted = None if key is None else _trusted(key)
    envelope: Envelope | None = None
    request = ""
    if attestation is not None:
        envelope = read_envelope(_read(attestation, "an attestation"))
        request = request_of(read_statement(envelope))
    about: list[AuditEntry] = []
    unknown: list[str] = []

    def look(entry: AuditEntry) -> None:
        if request and entry.event.request_id == request:
            about.append(entry)

    try:
        with file.open("rb") as opened:
            verdict = verify_lines(_lines(opened), head, trusted, look)
    except OSError as error:
        raise AuditError(
            f"Expected an export of an audit log in {str(file)!r}, but: {error.strerror}."
        ) from None
    problem = verdict.problem
    if problem is None and envelope is not None and trusted is not None:
        if verdict.header.request_id not in ("", request):
            raise AuditError(
                f"Expected an export of the whole log, or of request {request!r}, which the "
                f"attestation is about, but got one of {verdict.header.request_id!r}."
            )
        problem = find_fault(envelope, trusted, about)
        if problem is None:
            unknown = not_compared(read_statement(envelope), about)
    _show(file, verdict.header, problem, trusted is not None, request, unknown, form)
    return 0 if problem is None else 1


def _header_values(header: Header) -> dict[str, Any]:
    """Return the facts about the log in an export's header, as JSON values."""
    return {
        "request": header.request_id or None,
        "entries": header.entries,
        "head": header.head or None,
        "signed_by": [one.keyid for one in header.signatures],
    }


def _signed(header: Header) -> str:
    """Return the keys and the time of an export's signature as text."""
    if not header.signatures:
        return "not signed"
    ids = ", ".join(one.keyid for one in header.signatures)
    return f"signed by {ids} at {as_time(header.signed_us)}"


def _trusted(key: Path) -> TrustedKeys:
    return TrustedKeys.from_pem(_read(key, "public keys"))


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuditError(f"Expected {what} in {str(path)!r}, but: {error.strerror}.") from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.readline(LONGEST_LINE + 1), b"")


def _show(
    file: Path,
    header: Header,
    problem: Problem | None,
    checked: bool,
    attested: str,
    unknown: list[str],
    form: Format,
) -> None:
    if form is Format.JSON:
        print_json(
            {
                "file": str(file),
                **_header_values(header),
                "signature_checked": checked,
                "attested_request": attested or None,
                "not_compared": unknown,
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
    if problem is not None:
        print_line(f"not sound: entry {problem.sequence} {problem.finding}. {problem.reason}")
        return
    about = f" about {header.request_id}" if header.request_id else ""
    print_line(f"sound: {header.entries} entries{about}, head {header.head or 'none'}")
    unchecked = "" if checked else ", not checked: give the key with --public-key"
    print_line(_signed(header) + (unchecked if header.signatures else ""))
    if attested:
        print_line(f"the attestation of {attested} is signed and agrees with the log")
        print_line(f"not compared, as the log does not record it: {', '.join(unknown)}")
