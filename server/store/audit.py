"""The audit log in the database; each entry is added by the transaction that it records.

So log and state never disagree: either both are committed or none is.  A transaction that writes
excludes all others, and a sequence number is used once, so the chain cannot fork.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sqlalchemy import (
    Connection,
    Select,
    bindparam,
    func,
    insert,
    select,
    union_all,
)

from disinherit.common.audit.chain import AuditEntry, AuditEvent, link_line
from disinherit.common.audit.export import LONGEST_LINE, Header, header_line
from disinherit.common.errors import AuditError
from disinherit.server.now import now_us
from disinherit.server.store.audit_events import COORDINATOR, GROWTH, AuditKind
from disinherit.server.store.audit_lines import made_line, read_line
from disinherit.server.store.database import Database
from disinherit.server.store.queries import Query, WriteQuery
from disinherit.server.store.request_lines import entries_about
from disinherit.server.store.request_rows import find_request
from disinherit.server.store.shared_transaction import LOG_ENDS
from disinherit.server.store.tables import AUDIT

_AT_A_TIME = 500

# Made once: to make such a statement anew takes longer than to execute it.
_INSERT = WriteQuery(insert(AUDIT))
_OF_ALL = select(func.max(AUDIT.c.sequence))

# The end of an index, and not a maximum: PostgreSQL may look for that among all entries, from the
# log's end.  Of a request without entries, it finds another's.
_UP_TO_REQUEST = (
    select(AUDIT.c.request_id, AUDIT.c.sequence)
    .where(AUDIT.c.request_id <= bindparam("request"))
    .order_by(AUDIT.c.request_id.desc(), AUDIT.c.sequence.desc())
    .limit(1)
    .subquery()
)
_OF_REQUEST = select(_UP_TO_REQUEST.c.sequence).where(
    _UP_TO_REQUEST.c.request_id == bindparam("request")
)
_OF_KINDS = _OF_ALL.where(
    AUDIT.c.request_id == bindparam("request"),
    AUDIT.c.model_id.in_(bindparam("models", expanding=True)),
    AUDIT.c.kind.in_(bindparam("kinds", expanding=True)),
)


def _numbered(*numbers: Select[Any]) -> Select[Any]:
    """Return a query for the entries with the numbers that queries find, in their order."""
    query = select(AUDIT.c.entry).where(AUDIT.c.sequence.in_(union_all(*numbers)))
    return query.order_by(AUDIT.c.sequence)


_END = Query(_OF_ALL)
_GROWTH = Query(
    _OF_ALL.where(
        AUDIT.c.sequence > bindparam("since"),
        AUDIT.c.kind.in_([kind.value for kind in GROWTH]),
    )
)
_LATER = (
    select(AUDIT.c.entry)
    .where(AUDIT.c.sequence > bindparam("sequence"))
    .order_by(AUDIT.c.sequence)
    .limit(bindparam("most"))
)
_AFTER = Query(_LATER)
_AFTER_OF_REQUEST = Query(_LATER.where(AUDIT.c.request_id == bindparam("request")))
_LAST = Query(_numbered(_OF_ALL, _OF_REQUEST))
_LATEST = Query(_numbered(_OF_ALL, _OF_REQUEST, _OF_KINDS.group_by(AUDIT.c.model_id, AUDIT.c.kind)))


def make_event(kind: AuditKind, actor: str = COORDINATOR, **fields: Any) -> AuditEvent:
    """Return an event with the present time.

    Args:
        kind: its kind.
        actor: its cause.
        **fields: the other fields of `AuditEvent`.
    """
    return AuditEvent(kind.value, now_us(), actor, **fields)


def append(db: Connection, kind: AuditKind, actor: str = COORDINATOR, **fields: Any) -> None:
    """Add an entry to the log.

    Args:
        db: the transaction that makes the change, which it also commits.
        kind: as for `make_event`, like all that follow.
        actor: its cause.
        **fields: the other fields.

    Raises:
        AuditError: if a value has no canonical form, or the entry is too long.
        StoreError: if the log is damaged.
    """
    append_all(db, [make_event(kind, actor, **fields)])


def append_all(db: Connection, events: Sequence[AuditEvent]) -> None:
    """Add an entry for each event, in this order; arguments and errors as for `append`."""
    known = db.info.get(LOG_ENDS, {})
    found: dict[int, AuditEntry] = {}
    for request in {event.request_id for event in events}:
        ends = known.get(""), known.get(request)
        for entry in filter(None, ends) if all(ends) else _latest(db, request):
            found[entry.sequence] = entry
    if events:
        _append(db, events, [found[number] for number in sorted(found)])


def append_once(db: Connection, request_id: str, events: Sequence[AuditEvent]) -> None:
    """Add entries about models, each unless the latest of its kind is alike (`append_news`)."""
    append_news(db, request_id, [(event, True) for event in events])


def append_news(db: Connection, request_id: str, events: Sequence[tuple[AuditEvent, bool]]) -> None:
    """Add entries about one request, with one query of the log for up to 500 of them.

    Attempts that are repeated for weeks, while an owner is away or keeps failing, are logged once;
    and once more after the owner fell back to an earlier state.

    Args:
        db: the transaction that makes the change, which it also commits.
        request_id: the request of all events.
        events: event, and whether it is left out if the latest entry of its kind about its model
            is alike; of these at most one of a kind about a model.

    Raises:
        AuditError: as `append`.
        StoreError: likewise.
    """
    for start in range(0, len(events), _AT_A_TIME):
        some = events[start : start + _AT_A_TIME]
        once = [event for event, is_once in some if is_once]
        entries = _latest(
            db,
            request_id,
            [event.model_id for event in once],
            [AuditKind.FELL_BACK.value, *(event.kind for event in once)],
        )
        known: dict[tuple[str, str], AuditEntry] = {}
        for entry in entries:
            if entry.event.request_id == request_id:
                known[entry.event.kind, entry.event.model_id] = entry
        news = [event for event, is_once in some if not (is_once and _is_known(event, known))]
        if news:
            _append(db, news, entries)


def packets_used(
    db: Connection, request_id: str, models: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return model -> SHA-256 of the packets that it was last changed with for a request.

    Args:
        db: a transaction.
        request_id: the request.
        models: the models; those that were not changed are left out.
    """
    found: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(models), _AT_A_TIME):
        some = models[start : start + _AT_A_TIME]
        for entry in _latest(db, request_id, some, [AuditKind.APPLIED.value]):
            if entry.event.kind == AuditKind.APPLIED.value and entry.event.model_id in some:
                found[entry.event.model_id] = entry.event.fishers
    return found


def _latest(
    db: Connection,
    request_id: str,
    models: Collection[str] = (),
    kinds: Collection[str] = (),
) -> list[AuditEntry]:
    """Return the last entry of all, of a request, and of each kind about each model, in order.

    Args:
        db: a transaction.
        request_id: the request; `""` for what is about none.
        models: the models.
        kinds: the kinds of the entries about them.
    """
    values: dict[str, Any] = {"request": request_id}
    query = _LAST
    if models:
        values |= {"models": sorted({*models}), "kinds": sorted({*kinds})}
        query = _LATEST
    return [read_line(line) for line in query.scalars(db, values)]


def _append(db: Connection, events: Sequence[AuditEvent], entries: Sequence[AuditEntry]) -> None:
    """Add an entry for each event; `entries` has the last of all and of each request, if any."""
    last = entries[-1] if entries else None
    of_requests = {entry.event.request_id: entry for entry in entries}
    rows = []
    for event in events:
        request = event.request_id
        last, line = link_line(event, last, of_requests.get(request) if request else None)
        of_requests[request] = last
        rows.append(_row(last, line))
        made_line(line, last)
    _INSERT.run(db, *rows)
    ends = db.info.get(LOG_ENDS)
    if ends is not None:  # whoever writes next in this transaction need not read them
        ends.update(of_requests | {"": last})


def _is_known(event: AuditEvent, known: Mapping[tuple[str, str], AuditEntry]) -> bool:
    """Return whether the latest entry of its kind is alike and newer than any fall-back."""
    last = known.get((event.kind, event.model_id))
    back = known.get((AuditKind.FELL_BACK.value, event.model_id))
    if last is None or (back is not None and last.sequence < back.sequence):
        return False
    return _alike(event, last.event)


def last_growth(db: Connection, since: int) -> int:
    """Return the number of the last entry about growth of the graph (`GROWTH`).

    Args:
        db: a transaction.
        since: the number of an earlier entry, which is the default.
    """
    found = _GROWTH.scalar(db, {"since": since})
    return since if found is None else int(found)


def last_sequence(db: Connection) -> int:
    """Return the number of the last entry; 0 for an empty log."""
    return _END.scalar(db, {}) or 0


def entries_after(
    db: Connection, sequence: int, count: int, request_id: str = ""
) -> list[AuditEntry]:
    """Return the entries that follow one, in order.

    Args:
        db: a transaction.
        sequence: number of the one; 0 for the beginning.
        count: the largest number of entries.
        request_id: only entries about this request; `""` for all.
    """
    values: dict[str, Any] = {"sequence": sequence, "most": count}
    query = _AFTER
    if request_id:
        values["request"], query = request_id, _AFTER_OF_REQUEST
    return [read_line(line) for line in query.scalars(db, values)]


class Seal(Protocol):
    """Signs exports; a `SignedLog` does."""

    def sign(self, header: Header) -> Header:
        """Return a signed header, if the log continues what was signed before."""
        ...

    def check(self, sequence: int, line: bytes) -> None:
        """Check that an entry is unchanged."""
        ...


def export_lines(
    database: Database, request_id: str = "", seal: Seal | None = None
) -> Iterator[bytes]:
    """Yield the lines of an export of the present log, without line ends.

    No transaction stays open between two lines, since the reader may be slow.

    Args:
        database: the coordinator's database.
        request_id: only entries about this request; `""` for all.
        seal: signs the first line; `None` for no signature.

    Raises:
        RequestError: if there is no such request.
        StoreError: if the log does not continue what was signed.
    """
    if request_id:
        yield from _part(database, request_id, seal)
        return
    with database.reading() as db:
        last = _entry(db, select(AUDIT.c.entry).order_by(AUDIT.c.sequence.desc()).limit(1))
    header = Header(0, "") if last is None else Header(last.sequence, last.hash)
    yield header_line(header if seal is None else seal.sign(header))
    sequence = 0
    while sequence < header.entries:
        query = select(AUDIT.c.sequence, AUDIT.c.entry).where(AUDIT.c.sequence > sequence)
        left = min(_AT_A_TIME, header.entries - sequence)
        with database.reading() as db:
            rows = db.execute(query.order_by(AUDIT.c.sequence).limit(left)).all()
        if not rows:
            return
        for row in rows:
            if seal is not None:
                seal.check(row.sequence, row.entry)
            yield row.entry
        sequence = rows[-1].sequence


def _part(database: Database, request_id: str, seal: Seal | None) -> Iterator[bytes]:
    with database.reading() as db:
        find_request(db, request_id)
        entries = entries_about(db, request_id)
    header = Header(len(entries), read_line(entries[-1][1]).hash if entries else "", request_id)
    if seal is not None:
        header = seal.sign(header)
        for sequence, line in entries:
            seal.check(sequence, line)
    yield header_line(header)
    for _, line in entries:
        yield line


def _alike(event: AuditEvent, other: AuditEvent) -> bool:
    return replace(event, time_us=other.time_us) == other


def _row(entry: AuditEntry, line: bytes) -> dict[str, Any]:
    event = entry.event
    if len(line) >= LONGEST_LINE:
        raise AuditError(
            f"Expected an audit entry of less than {LONGEST_LINE} bytes, but {event.kind} of "
            f"{event.model_id or event.request_id} has {len(line)}. Ask for less at a time."
        )
    return {
        "sequence": entry.sequence,
        "kind": event.kind,
        "request_id": event.request_id,
        "model_id": event.model_id,
        "hash": entry.hash,
        "entry": line,
    }


def _entry(db: Connection, query: Select[Any]) -> AuditEntry | None:
    line = db.execute(query).scalar()
    return None if line is None else read_line(line)
