"""The audit log: its newest entries, checked as a chain, and the keys that sign it."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from disinherit.common.audit.chain import AuditEntry
from disinherit.common.audit.dsse import TrustedKeys, key_block
from disinherit.common.audit.export import verify_lines
from disinherit.common.audit.line_messages import lines_of
from disinherit.common.errors import InputError
from disinherit.documents.words import as_time
from disinherit.ui.screens.campaigns import read_campaigns
from disinherit.ui.screens.screen import Page
from disinherit.v1 import coordinator_pb2 as pb

SHOWN = 200
_HEXADECIMAL = frozenset("0123456789abcdef")


def load(page: Page) -> Mapping[str, Any]:
    """Return the newest entries that fit the filter; the whole chain is checked on the way."""
    request_id, kind, actor = page.text("request"), page.text("kind"), page.text("actor")
    head = page.text("head")
    if head and (len(head) != 64 or set(head) - _HEXADECIMAL):
        raise InputError(
            f"Expected the head of a log, 64 lower-case hexadecimal digits, but got {head[:70]!r}."
        )
    newest: deque[AuditEntry] = deque(maxlen=SHOWN)
    kinds: set[str] = set()

    def look(entry: AuditEntry) -> None:
        event = entry.event
        kinds.add(event.kind)
        if (not kind or event.kind == kind) and actor.lower() in event.actor.lower():
            newest.append(entry)

    keys = page.visitor.call(lambda stub: stub.GetSigningKeys, pb.GetSigningKeysRequest()).keys
    message = pb.ExportAuditRequest(request_id=request_id, several=True)
    answers = page.visitor.stream(lambda stub: stub.ExportAudit, message)
    lines = (line + b"\n" for line in lines_of(answers))
    good = [one for one in keys if not one.revoked_us]
    pem = b"".join(key_block(one.public_pem, one.since_us, one.until_us) for one in good)
    verdict = verify_lines(lines, head, TrustedKeys.from_pem(pem) if good else None, look)
    return {
        "entries": [_values(one) for one in reversed(newest)],
        "total": verdict.header.entries,
        "head": verdict.header.head or None,
        "signed_by": [one.keyid for one in verdict.header.signatures],
        "problem": None
        if verdict.problem is None
        else {"entry": verdict.problem.sequence, "reason": verdict.problem.reason},
        "noted_head": head,
        "keys": [
            {
                "id": one.key_id,
                "since": as_time(one.since_us),
                "until": as_time(one.until_us),
                "revoked": as_time(one.revoked_us),
            }
            for one in keys
        ],
        "attested": [one for one in read_campaigns(page) if not one["open"]][:SHOWN],
        "kinds": sorted(kinds),
        "kind": kind,
        "actor": actor,
        "request": request_id,
        "shown": SHOWN,
    }


def command(page: Page) -> Sequence[str]:
    """Return the command that exports the log."""
    about = (page.text("request"),) if page.text("request") else ()
    return ("audit", "export", *about, "--out", "audit.jsonl")


def _values(entry: AuditEntry) -> dict[str, Any]:
    event = entry.event
    return {
        "sequence": entry.sequence,
        "time": as_time(event.time_us),
        "kind": event.kind,
        "actor": event.actor,
        "request": event.request_id or None,
        "model": event.model_id or None,
        "hash": entry.hash,
        "parameters": dict(event.parameters),
    }
