"""The audit log in the database: entries are added by the transactions that they tell of.

So log and state never disagree: either both are committed or none is.  A transaction that writes
excludes all others, and a sequence number is given out once, so the chain cannot fork.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select

from disinherit.common.audit_chain import AuditEntry, AuditEvent, link
from disinherit.common.audit_lines import (
    LONGEST_LINE,
    Header,
    entry_line,
    header_line,
    read_entry,
    sign_header,
)
from disinherit.common.dsse import Signer
from disinherit.common.errors import AuditError, StoreError
from disinherit.server.audit_words import COORDINATOR, AuditKind
from disinherit.server.database import Database
from disinherit.server.tables import AUDIT, find_request, now_us

_AT_A_TIME = 500


def append(db: Connection, kind: AuditKind, actor: str = COORDINATOR, **said: Any) -> None:
    """Add an entry to the log.

    Args:
        db: the transaction that makes the change, which it also commits.
        kind: what happened.
        actor: who did it.
        **said: the other fields of `AuditEvent`.

    Raises:
        AuditError: if it holds something that has no canonical form, or too much.
        StoreError: if the log is damaged.
    """
    event = AuditEvent(kind.value, now_us(), actor, **said)
    newest = select(AUDIT.c.entry).order_by(AUDIT.c.sequence.desc()).limit(1)
    last = _entry(db, newest)
    of_request = None
    if event.request_id:
        of_request = _entry(db, newest.where(AUDIT.c.request_id == event.request_id))
    entry = link(event, last, of_request)
    line = entry_line(entry)
    if len(line) >= LONGEST_LINE:
        raise AuditError(
            f"Expected an audit entry of less than {LONGEST_LINE} bytes, but {kind} of "
            f"{event.model_id or event.request_id} has {len(line)}. Ask for less at a time."
        )
    db.execute(
        insert(AUDIT).values(
            sequence=entry.sequence,
            kind=event.kind,
            request_id=event.request_id,
            model_id=event.model_id,
            hash=entry.hash,
            entry=line,
        )
    )


def append_once(db: Connection, kind: AuditKind, actor: str = COORDINATOR, **said: Any) -> None:
    """Add an entry unless the latest one of its kind about the same model says the same.

    What is tried again for weeks, while an owner is away or keeps failing, stands there once.
    Arguments and errors are those of `append`.
    """
    event = AuditEvent(kind.value, 0, actor, **said)
    before = _entry(
        db,
        select(AUDIT.c.entry)
        .where(
            AUDIT.c.request_id == event.request_id,
            AUDIT.c.model_id == event.model_id,
            AUDIT.c.kind == event.kind,
        )
        .order_by(AUDIT.c.sequence.desc())
        .limit(1),
    )
    if before is None or replace(before.event, time_us=0) != event:
        append(db, kind, actor, **said)


def find_head(db: Connection, request_id: str = "") -> Header:
    """Return how many entries there are and the hash of the last one.

    Args:
        db: a transaction.
        request_id: only those about this request; `""` for all.

    Raises:
        RequestError: if there is no such request.
    """
    chosen = select(AUDIT.c.hash).order_by(AUDIT.c.sequence.desc()).limit(1)
    count = select(func.count()).select_from(AUDIT)
    if request_id:
        find_request(db, request_id)
        about = AUDIT.c.request_id == request_id
        chosen, count = chosen.where(about), count.where(about)
    return Header(db.scalar(count) or 0, db.scalar(chosen) or "", request_id)


def export_lines(
    database: Database, request_id: str = "", signer: Signer | None = None
) -> Iterator[bytes]:
    """Yield the lines of an export, without their ends: the log as it is when this begins.

    No transaction is open between two lines: whoever reads them may be slow.

    Args:
        database: the coordinator's.
        request_id: only what is about this request; `""` for all.
        signer: signs the first line; `None` to leave it as it is.

    Raises:
        RequestError: if there is no such request.
    """
    with database.reading() as db:
        header = find_head(db, request_id)
    yield header_line(header if signer is None else sign_header(header, signer, now_us()))
    sent, sequence = 0, 0
    while sent < header.entries:
        query = select(AUDIT.c.sequence, AUDIT.c.entry).where(AUDIT.c.sequence > sequence)
        if request_id:
            query = query.where(AUDIT.c.request_id == request_id)
        left = min(_AT_A_TIME, header.entries - sent)
        with database.reading() as db:
            rows = db.execute(query.order_by(AUDIT.c.sequence).limit(left)).all()
        if not rows:
            return
        for row in rows:
            yield row.entry
        sent, sequence = sent + len(rows), rows[-1].sequence


def _entry(db: Connection, query: Select[Any]) -> AuditEntry | None:
    line = db.execute(query).scalar()
    if line is None:
        return None
    try:
        return read_entry(line)
    except AuditError as error:
        raise StoreError(
            f"Expected a sound audit log in the database, but: {error} Restore the database from "
            "a backup."
        ) from None
