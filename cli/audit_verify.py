"""`disinherit audit verify`: check the audit log and an attestation, offline."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from securesystemslib.dsse import Envelope

from disinherit.cli.output import Format, FormatOption, print_json, print_line
from disinherit.cli.statuses import as_time
from disinherit.common.audit.attestation import (
    find_fault,
    not_compared,
    read_statement,
    request_of,
)
from disinherit.common.audit.chain import AuditEntry, Problem
from disinherit.common.audit.dsse import TrustedKeys, read_envelope
from disinherit.common.audit.export import LONGEST_LINE, Header, verify_lines
from disinherit.common.errors import AuditError

EXAMPLES = (
    "Examples:\n\n"
    "disinherit audit verify audit.jsonl\n\n"
    "disinherit audit verify audit.jsonl --key coordinator.pub\n\n"
    "disinherit audit verify audit.jsonl --key coordinator.pub --attestation attestation.json\n\n"
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
    attestation: Annotated[
        Path | None,
        typer.Option(
            help="An attestation, as `disinherit audit attest` wrote it: one of the keys must have "
            "signed it, and the log must say the same."
        ),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Check an export, offline: 0 if it is sound, 1 if not, 2 if it cannot be read.

    Names the first entry that was changed, removed, re-ordered or added; the last one if the
    signature over the log up to it is forged or missing; or the one that the attestation
    contradicts.
    """
    if head and (len(head) != 64 or set(head) - set("0123456789abcdef")):
        raise AuditError(
            f"Expected the head of a log, 64 lower-case hexadecimal digits, but got {head!r}."
        )
    if attestation is not None and key is None:
        raise AuditError("Expected --key with --attestation: by whom it is to be signed.")
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


def signed(header: Header) -> str:
    """Return by which keys and when an export was signed, for people to read."""
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
                "request": header.request_id or None,
                "entries": header.entries,
                "head": header.head or None,
                "signed_by": [one.keyid for one in header.signatures],
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
    unchecked = "" if checked else ", which was not checked: give the key with --key"
    print_line(signed(header) + (unchecked if header.signatures else ""))
    if attested:
        print_line(f"the attestation of {attested} is signed, and the log says the same")
        print_line(f"not compared, as the log does not say it: {', '.join(unknown)}")
