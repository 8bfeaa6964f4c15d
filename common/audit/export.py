"""The export of an audit log: JSON lines, a header and then one entry on each line.

::

    {"audit":"disinherit","entries":2,"head":"9c56...","request":"","version":1}
    {"actor":"operator:ci","digest_after":"",...,"hash":"5891...","sequence":1,"time_us":...}
    {"actor":"approver:eve","digest_after":"",...,"hash":"9c56...","sequence":2,"time_us":...}

Every line is canonical JSON (`disinherit.common.audit.chain`), so any changed byte is detected.
The header holds the number of entries and the hash of the last one.  With `request`, the export
holds only the entries about that request.  A coordinator with a key signs the header together with
the time.  The public key then proves that the whole log is as it was exported.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from securesystemslib.signer import Signature

from disinherit.common.audit.canonical import canonical
from disinherit.common.audit.chain import (
    AuditEntry,
    AuditEvent,
    Finding,
    Problem,
    content,
    find_problem,
)
from disinherit.common.audit.dsse import (
    Signer,
    TrustedKeys,
    enclose,
    read_signatures,
    signature_of,
    signature_values,
)
from disinherit.common.errors import AuditError
from disinherit.common.text import load_json

VERSION = 1
HEADER_TYPE = "application/vnd.disinherit.audit-header+json"
"""Media type of a signed header."""

CHECKPOINT_TYPE = "application/vnd.disinherit.audit-checkpoint+json"
"""Media type of a signed checkpoint in the log."""

LONGEST_LINE = 3 * 2**20
"""Most bytes of a line, with its end."""

_FORMAT = "disinherit"
_HASH_END = len(64 * "0" + '"')


@dataclass(frozen=True, slots=True)
class Header:
    """The header of an export, on its first line.

    Attributes:
        entries: number of entries that follow.
        head: hash of the last entry; `""` for an empty log.
        request_id: the request of all entries; `""` for the whole log.
        signed_us: time of signing, in microseconds since the epoch; 0 if unsigned.
        signatures: signatures over the other fields.
    """

    entries: int
    head: str
    request_id: str = ""
    signed_us: int = 0
    signatures: tuple[Signature, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportVerdict:
    """The result of verifying an export.

    Attributes:
        header: the header of the file.
        problem: the first fault; `None` for a sound export.
    """

    header: Header
    problem: Problem | None


def sign_header(header: Header, signer: Signer, signed_us: int) -> Header:
    """Return a header with a signature over its fields.

    Args:
        header: the header.
        signer: signer with the coordinator's key.
        signed_us: the time now, in microseconds since the epoch.
    """
    dated = replace(header, signed_us=signed_us, signatures=())
    return replace(dated, signatures=(signer.sign(HEADER_TYPE, header_line(dated)),))


def checkpoint_bytes(entries: int, head: str) -> bytes:
    """Return the signed content of a checkpoint: number of entries before it, and the last hash."""
    return canonical({"entries": entries, "head": head})


def line_hash(line: bytes) -> str:
    """Return the hash of a line's content, without parsing it.

    Args:
        line: the line of an entry, in canonical form, without its end.

    Example:
        >>> line = b'{"a":1,"hash":"' + 64 * b"0" + b'","kind":"sent"}'
        >>> line_hash(line) == hashlib.sha256(b'{"a":1,"kind":"sent"}').hexdigest()
        True
    """
    before, _, after = line.partition(b',"hash":"')
    return hashlib.sha256(before + after[_HASH_END:]).hexdigest()


def header_line(header: Header) -> bytes:
    """Return the first line, without its end; the header without signatures is what is signed."""
    values: dict[str, Any] = {
        "audit": _FORMAT,
        "version": VERSION,
        "entries": header.entries,
        "head": header.head,
        "request": header.request_id,
    }
    if header.signed_us:
        values["signed_us"] = header.signed_us
    if header.signatures:
        values["signatures"] = signature_values(enclose(HEADER_TYPE, b"", header.signatures))
    return canonical(values)


def entry_line(entry: AuditEntry) -> bytes:
    """Return an entry's line, without its end.

    Raises:
        AuditError: if the entry has no canonical form.
    """
    return canonical({**content(entry), "hash": entry.hash})


def read_entry(line: bytes) -> AuditEntry:
    """Return the entry on a line, without verifying its hash.

    Args:
        line: the line, without its end.

    Raises:
        AuditError: if the line is no entry, or not in canonical form.
    """
    values = _object(line)
    try:
        entry = AuditEntry(
            sequence=_typed(values["sequence"], int),
            event=AuditEvent(
                kind=_typed(values["kind"], str),
                time_us=_typed(values["time_us"], int),
                actor=_typed(values["actor"], str),
                request_id=_typed(values["request"], str),
                model_id=_typed(values["model"], str),
                owner=_typed(values["owner"], str),
                digest_before=_typed(values["digest_before"], str),
                digest_after=_typed(values["digest_after"], str),
                parameters=_typed(values["parameters"], dict),
                fishers=tuple(_typed(one, str) for one in _typed(values["fishers"], list)),
            ),
            previous=_typed(values["previous"], str),
            request_previous=_typed(values["request_previous"], str),
            hash=_typed(values["hash"], str),
        )
    except KeyError as error:
        raise AuditError(f"Expected an audit entry, but got one without {error}.") from None
    if entry_line(entry) != line:
        raise AuditError("Expected an audit entry in canonical form, but got another form.")
    return entry


def verify_lines(
    lines: Iterable[bytes],
    head: str = "",
    keys: TrustedKeys | None = None,
    look: Callable[[AuditEntry], None] = lambda _: None,
) -> ExportVerdict:
    """Verify an export.

    Args:
        lines: lines of the file, with their ends.
        head: a head hash recorded earlier: the log must contain it, and may continue after it.
        keys: trusted keys; one of them must have signed the header. `None` requires no signature.
        look: called with every entry, before it is verified.

    Raises:
        AuditError: if the file is no export of an audit log.
    """
    rest = iter(lines)
    header = read_header(_stripped(next(rest, b"")) or b"")
    count = 0
    last: AuditEntry | None = None
    forged: Problem | None = None

    def entries() -> Iterator[AuditEntry | None]:
        nonlocal count, last, forged
        for line in rest:
            count += 1
            last = _entry_or_none(line)
            if last is not None:
                look(last)
                if last.event.kind == "checkpoint" and keys is not None and forged is None:
                    forged = _forged_checkpoint(last, keys)
            yield last

    problem = find_problem(entries(), header.request_id, head) or forged
    if problem is None:
        problem = _against_header(header, count, last)
    if problem is None and keys is not None:
        problem = _wrong_signature(header, 0 if last is None else last.sequence, keys)
    return ExportVerdict(header, problem)


def _forged_checkpoint(entry: AuditEntry, keys: TrustedKeys) -> Problem | None:
    """Return the fault of a checkpoint; one by a key that is not trusted is ignored."""
    details = entry.event.parameters
    try:
        value = base64.b64decode(str(details["signature"]), validate=True)
        signature = signature_of(str(details["key_id"]), value)
        placed = (details["entries"], details["head"]) == (entry.sequence - 1, entry.previous)
    except (KeyError, ValueError, binascii.Error):
        placed = False
    if placed and not keys.knows(signature.keyid):
        return None
    fault = "it signs another log than the one before it."
    if placed:
        data = checkpoint_bytes(entry.sequence - 1, entry.previous)
        found = keys.find_fault(enclose(CHECKPOINT_TYPE, data, [signature]))
        if found is None:
            return None
        fault = found
    return Problem(entry.sequence, Finding.FORGED, f"Of checkpoint {entry.sequence}: {fault}")


def _wrong_signature(header: Header, end: int, keys: TrustedKeys) -> Problem | None:
    unsigned = header_line(replace(header, signatures=()))
    envelope = enclose(HEADER_TYPE, unsigned, header.signatures)
    fault = keys.find_fault(envelope, header.signed_us)
    if fault is None:
        return None
    finding = Finding.FORGED if header.signatures else Finding.UNSIGNED
    return Problem(end, finding, f"Of the log up to entry {end}: {fault}")


def _against_header(header: Header, count: int, last: AuditEntry | None) -> Problem | None:
    end = 0 if last is None else last.sequence
    reason = f"Expected {header.entries} entries, as in the first line, but got {count}"
    if count < header.entries:
        return Problem(end + 1, Finding.TRUNCATED, f"{reason}: the rest is missing.")
    if count > header.entries:
        return Problem(end, Finding.ADDED, f"{reason}.")
    found = "" if last is None else last.hash
    if found != header.head:
        return Problem(
            end,
            Finding.CHANGED,
            f"Expected the last entry to have hash {header.head or 'none'}, as in the first line, "
            f"but it has {found or 'none'}.",
        )
    return None


def read_header(line: bytes) -> Header:
    """Return the header on the first line.

    Args:
        line: the line, without its end.

    Raises:
        AuditError: if the line is no header of an export.
    """
    try:
        values = _object(line)
        version = values["version"]
        header = Header(
            _typed(values["entries"], int),
            _typed(values["head"], str),
            _typed(values["request"], str),
            _typed(values.get("signed_us", 0), int),
            read_signatures(values.get("signatures", [])),
        )
    except (AuditError, KeyError):
        raise AuditError(
            "Expected an export of an audit log, but its first line is not that of one. Make one "
            "with: disinherit audit export --out FILE."
        ) from None
    if version != VERSION:
        raise AuditError(
            f"Expected an export of version {VERSION}, but got {version!r}. Verify it with the "
            "release of Disinherit that made it."
        )
    if header_line(header) != line:
        raise AuditError(
            "Expected an export of an audit log, but its first line was changed: it is not in "
            "canonical form."
        )
    return header


def _entry_or_none(line: bytes) -> AuditEntry | None:
    stripped = _stripped(line)
    try:
        return None if stripped is None else read_entry(stripped)
    except AuditError:
        return None


def _stripped(line: bytes) -> bytes | None:
    """Return a line without its end, or `None` if it has none or is too long."""
    return line[:-1] if line.endswith(b"\n") and len(line) <= LONGEST_LINE else None


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        values = load_json(line.decode())
    except ValueError:
        raise AuditError("Expected JSON, but got something else.") from None
    checked: dict[str, Any] = _typed(values, dict)
    return checked


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise AuditError(f"Expected a value of type {kind.__name__}, but got {value!r:.80}.")
    return value
