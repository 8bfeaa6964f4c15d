"""`disinherit audit`: take the coordinator's audit log and attestations home."""

from pathlib import Path
from typing import Annotated

import typer

from disinherit.cli.audit_verify import EXAMPLES, signed, verify
from disinherit.cli.connection import Connection, connected
from disinherit.cli.output import Format, FormatOption, print_json, print_line
from disinherit.cli.statuses import as_time
from disinherit.common.audit.attestation import read_statement
from disinherit.common.audit.dsse import key_block, read_envelope
from disinherit.common.audit.export import read_header
from disinherit.common.errors import AuditError
from disinherit.common.files import write_atomic
from disinherit.v1 import coordinator_pb2 as pb

app = typer.Typer(
    help="Export the audit log, and verify an export.", no_args_is_help=True, suggest_commands=False
)


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
    request = pb.ExportAuditRequest(request_id=request_id)
    lines = [answer.line for answer in connection.stream(lambda stub: stub.ExportAudit, request)]
    header = read_header(lines[0] if lines else b"")
    write_atomic(out, b"".join(line + b"\n" for line in lines))
    if form is Format.JSON:
        print_json(
            {
                "out": str(out),
                "request": header.request_id or None,
                "entries": header.entries,
                "head": header.head or None,
                "signed_by": [one.keyid for one in header.signatures],
            }
        )
    else:
        print_line(f"{header.entries} entries in {out}")
        print_line(f"head {header.head or 'none'}")
        print_line(signed(header))
    return 0


@app.command(epilog="Example: disinherit audit keys --out coordinator.pub")
@connected
def keys(
    connection: Connection,
    out: Annotated[Path, typer.Option(help="The file to write, PEM, one key after the other.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Write the public keys of all signatures of the coordinator to a file, the oldest first.

    With each stands from when until when it signed; a key that was revoked is left out. Whoever
    verifies must have them from somebody that it trusts: compare the ids.
    """
    known = connection.call(lambda stub: stub.GetSigningKeys, pb.GetSigningKeysRequest()).keys
    if not known:
        raise AuditError(
            "Expected a coordinator that signs, but this one has no key. Give it one: signing.key "
            "in its configuration."
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
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id, as `audit keys` says it.")],
    config: Annotated[Path, typer.Option(help="The configuration of `disinherit serve`.")],
) -> int:
    """Say that a signing key was stolen; on the coordinator's machine only.

    Nothing that it signed verifies any more with the keys that `audit keys` writes from now on:
    have exports and attestations made again. A coordinator does not start with such a key.
    """
    # Imported here: the other commands need no database, nor the extra that brings it.
    from disinherit.server.service.confirming import PERSON, opened
    from disinherit.server.store.signing import revoke_key as revoke

    with opened(config) as (database, _), database.writing() as db:
        revoke(db, key_id, PERSON)
    print_line("revoked; write the keys that are left to files anew: disinherit audit keys")
    return 0


@app.command(epilog="Example: disinherit audit attest forget-0123456789ab --out attestation.json")
@connected
def attest(
    connection: Connection,
    request_id: Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the request.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Write a signed attestation of a request that has ended to a file.

    It attests the procedure, with what it leaves open, and is no proof of erasure.
    """
    parts = connection.stream(
        lambda stub: stub.GetAttestation, pb.GetAttestationRequest(id=request_id)
    )
    data = b"".join(part.data for part in parts)
    envelope = read_envelope(data)
    predicate = read_statement(envelope)["predicate"]
    write_atomic(out, data + b"\n")
    gaps = [gap["kind"] for gap in predicate["gaps"]]
    if form is Format.JSON:
        print_json(
            {
                "out": str(out),
                "request": request_id,
                "state": predicate["state"],
                "coverage": predicate["coverage"],
                "gaps": gaps,
                "signed_by": list(envelope.signatures),
            }
        )
    else:
        print_line(f"{request_id} is {predicate['state']}: attested in {out}")
        print_line(f"left open: {', '.join(gaps).replace('_', ' ') or 'nothing that is known'}")
        print_line(f"signed by {', '.join(envelope.signatures)}")
    return 0


app.command(name="verify", epilog=EXAMPLES)(verify)
