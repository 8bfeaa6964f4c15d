"""The hash chain of an audit log: entries, their hashes, and the first fault of a chain.

Every entry holds the hash of the entry before it, and that of the previous entry about the same
request.  The log is one chain, and the entries about one request form a chain of their own.  That
part can be exported and verified alone.

A hash is SHA-256 over the canonical JSON of an entry (RFC 8785): keys sorted by their UTF-16 units,
no spaces, UTF-8.  Fractions are written as text, because programs format numbers differently.

An attacker who can write the whole log can forge a sound chain.  Only a head hash recorded
elsewhere exposes a rewritten chain.
"""

import enum
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from disinherit.common.audit.canonical import Json, canonical


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An audit event.

    Attributes:
        kind: kind of the event.
        time_us: time of recording, in microseconds since the epoch.
        actor: who caused it.
        request_id: id of the unlearning request; `""` for an event about no request.
        model_id: id of the version; `""` for an event about no version.
        owner: owner of that version; `""` without a version.
        digest_before: SHA-256 of the weights before; `""` if unknown.
        digest_after: SHA-256 of the weights after; `""` if unknown.
        parameters: further details of the event.
        fishers: SHA-256 of the Fisher packets that were used or received.
    """

    kind: str
    time_us: int
    actor: str
    request_id: str = ""
    model_id: str = ""
    owner: str = ""
    digest_before: str = ""
    digest_after: str = ""
    parameters: Mapping[str, Json] = field(default_factory=dict)
    fishers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event with its place in the chain.

    Attributes:
        sequence: 1 for the first entry of a log, then increasing by 1.
        event: the event.
        previous: hash of the entry before; `""` for the first.
        request_previous: hash of the previous entry about the same request; `""` for the first of a
            request, and for an event about no request.
        hash: SHA-256 over all of the above.
    """

    sequence: int
    event: AuditEvent
    previous: str
    request_previous: str
    hash: str = ""


class Finding(enum.StrEnum):
    """Kind of a fault in a log."""

    CHANGED = "changed"
    REMOVED = "removed"
    REORDERED = "re-ordered"
    ADDED = "added"
    TRUNCATED = "truncated"
    FORGED = "forged"
    UNSIGNED = "not signed"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, slots=True)
class Problem:
    """The first fault of a log.

    Attributes:
        sequence: number of the wrong or missing entry; in the export of a single request, of the
            entry after a missing one.
        finding: kind of the fault.
        reason: explanation for people.
    """

    sequence: int
    finding: Finding
    reason: str


def link(
    event: AuditEvent, last: AuditEntry | None, last_of_request: AuditEntry | None
) -> AuditEntry:
    """Return the entry that appends an event to a chain.

    Args:
        event: the event.
        last: the chain's last entry; `None` to begin one.
        last_of_request: the last entry about the event's request; `None` if this is the first.

    Raises:
        AuditError: if the event has no canonical form.

    Example:
        >>> first = link(AuditEvent("received", 1, "operator:ci", request_id="q"), None, None)
        >>> second = link(AuditEvent("approved", 2, "approver:eve", request_id="q"), first, first)
        >>> second.sequence, second.previous == first.hash
        (2, True)
    """
    return link_line(event, last, last_of_request)[0]


def link_line(
    event: AuditEvent, last: AuditEntry | None, last_of_request: AuditEntry | None
) -> tuple[AuditEntry, bytes]:
    """Return the entry with which an event continues a chain, and its line in an export.

    Arguments and errors are those of `link`.
    """
    sequence = 1 if last is None else last.sequence + 1
    previous = "" if last is None else last.hash
    request_previous = "" if last_of_request is None else last_of_request.hash
    data = canonical(_content(sequence, event, previous, request_previous))
    hash = hashlib.sha256(data).hexdigest()
    # The names are sorted, and a quotation mark in a text has a backslash before it.
    before, kind, after = data.partition(b',"kind":')
    line = b"".join((before, b',"hash":"', hash.encode(), b'"', kind, after))
    return AuditEntry(sequence, event, previous, request_previous, hash), line


def entry_hash(entry: AuditEntry) -> str:
    """Return the hash of an entry's content.

    Raises:
        AuditError: if the entry has no canonical form.
    """
    return hashlib.sha256(canonical(content(entry))).hexdigest()


def content(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry as JSON values, without its hash."""
    return _content(entry.sequence, entry.event, entry.previous, entry.request_previous)


def _content(
    sequence: int, event: AuditEvent, previous: str, request_previous: str
) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "time_us": event.time_us,
        "kind": event.kind,
        "actor": event.actor,
        "request": event.request_id,
        "model": event.model_id,
        "owner": event.owner,
        "digest_before": event.digest_before,
        "digest_after": event.digest_after,
        "parameters": event.parameters,
        "fishers": event.fishers,
        "previous": previous,
        "request_previous": request_previous,
    }


def find_problem(
    entries: Iterable[AuditEntry | None], request_id: str = "", head: str = ""
) -> Problem | None:
    """Return the first fault of a chain; `None` if it is sound.

    Args:
        entries: all entries of a log, or all about one request, in order; `None` for an unreadable
            entry.
        request_id: that request; `""` for the whole log.
        head: a head hash recorded earlier: the chain must contain it, and may continue after it.

    Example:
        >>> first = link(AuditEvent("received", 1, "operator:ci"), None, None)
        >>> second = link(AuditEvent("approved", 2, "approver:eve"), first, None)
        >>> find_problem([first, second], head=first.hash)
        >>> find_problem([second]).finding, find_problem([first], head=second.hash).finding
        (<Finding.REMOVED: 'removed'>, <Finding.TRUNCATED: 'truncated'>)
    """
    last: AuditEntry | None = None
    seen = not head
    rest = iter(entries)
    placed = _wrong_place_in_request if request_id else _wrong_place
    for entry in rest:
        if entry is None:
            return _unreadable(last)
        problem = (
            _wrong_request(entry, request_id)
            or _wrong_hash(entry, last, request_id)
            or placed(entry, last, rest)
        )
        if problem is not None:
            return problem
        seen = seen or entry.hash == head
        last = entry
    if seen:
        return None
    end = 0 if last is None else last.sequence
    return Problem(
        end + 1,
        Finding.TRUNCATED,
        f"Expected an entry with hash {head}, but the log ends without it after entry {end}.",
    )


def _unreadable(last: AuditEntry | None) -> Problem:
    end = 0 if last is None else last.sequence
    return Problem(
        end + 1,
        Finding.CHANGED,
        f"Expected another entry after entry {end}, but got something else."
        if end
        else "Expected the first entry, but got something else.",
    )


def _wrong_request(entry: AuditEntry, request_id: str) -> Problem | None:
    if request_id in ("", entry.event.request_id):
        return None
    return Problem(
        entry.sequence,
        Finding.ADDED,
        f"Expected entries about request {request_id!r} only, but entry {entry.sequence} is about "
        f"{entry.event.request_id!r}.",
    )


def _wrong_hash(entry: AuditEntry, last: AuditEntry | None, request_id: str) -> Problem | None:
    found = entry_hash(entry)
    if found == entry.hash:
        return None
    # The changed field may be the number itself; in a whole log the place is known regardless.
    sequence = entry.sequence if request_id else 1 + (0 if last is None else last.sequence)
    return Problem(
        sequence,
        Finding.CHANGED,
        f"Expected entry {sequence} to have the hash of its content, {found}, but it has "
        f"{entry.hash}.",
    )


def _wrong_place(
    entry: AuditEntry, last: AuditEntry | None, rest: Iterator[AuditEntry | None]
) -> Problem | None:
    wanted, before = (1, "") if last is None else (last.sequence + 1, last.hash)
    if entry.sequence == wanted:
        if entry.previous == before:
            return None
        return Problem(
            wanted,
            Finding.CHANGED,
            f"Expected entry {wanted} to follow one with hash {before or 'nothing'}, but it has "
            f"{entry.previous or 'nothing'}: it, or the one before it, was rewritten.",
        )
    got = f"Expected entry {wanted}, but got entry {entry.sequence}"
    if entry.sequence < wanted:
        return Problem(entry.sequence, Finding.ADDED, f"{got}, which was there already.")
    if any(later is not None and later.sequence == wanted for later in rest):
        return Problem(wanted, Finding.REORDERED, f"{got}; entry {wanted} comes later.")
    return Problem(wanted, Finding.REMOVED, f"{got}; entry {wanted} is missing.")


def _wrong_place_in_request(
    entry: AuditEntry, last: AuditEntry | None, rest: Iterator[AuditEntry | None]
) -> Problem | None:
    before, end = ("", 0) if last is None else (last.hash, last.sequence)
    if entry.sequence <= end:
        return Problem(
            entry.sequence,
            Finding.ADDED,
            f"Expected an entry after {end}, but got entry {entry.sequence}.",
        )
    if entry.request_previous == before:
        return None
    got = (
        f"Expected entry {entry.sequence} to follow the one with hash {entry.request_previous}, "
        if entry.request_previous
        else f"Expected entry {entry.sequence} to be the first about its request, "
    ) + f"but entry {end or 'none'} comes before it"
    if any(later is not None and later.hash == entry.request_previous for later in rest):
        return Problem(entry.sequence, Finding.REORDERED, f"{got}; that one comes later.")
    return Problem(entry.sequence, Finding.REMOVED, f"{got}; that one is missing.")
