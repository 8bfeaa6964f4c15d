"""Chains of audit entries to test with."""

from collections.abc import Sequence

from hypothesis import strategies as st

from disinherit.common.audit.canonical import Json
from disinherit.common.audit.chain import AuditEntry, AuditEvent, link
from disinherit.common.audit.export import Header, entry_line, header_line

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
JSON: st.SearchStrategy[Json] = st.recursive(
    st.one_of(TEXT, st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=4,
)
EVENTS = st.builds(
    AuditEvent,
    kind=TEXT,
    time_us=st.integers(0, 2**53 - 1),
    actor=TEXT,
    request_id=st.sampled_from(["", "p", "q"]),
    model_id=TEXT,
    parameters=st.dictionaries(TEXT, JSON, max_size=2),
    fishers=st.lists(TEXT, max_size=2).map(tuple),
)
CHAINS = st.lists(EVENTS, min_size=1, max_size=7).map(lambda events: chain(events))


def chain(events: Sequence[AuditEvent]) -> list[AuditEntry]:
    """Link events one after the other."""
    entries: list[AuditEntry] = []
    by_request: dict[str, AuditEntry] = {}
    for event in events:
        before = by_request.get(event.request_id) if event.request_id else None
        entries.append(link(event, entries[-1] if entries else None, before))
        by_request[event.request_id] = entries[-1]
    return entries


def about(entries: Sequence[AuditEntry], request_id: str) -> list[AuditEntry]:
    """The entries about a request; all for `""`."""
    return [entry for entry in entries if request_id in ("", entry.event.request_id)]


def export(entries: Sequence[AuditEntry], request_id: str = "") -> list[bytes]:
    """The lines of an export."""
    chosen = about(entries, request_id)
    header = Header(len(chosen), chosen[-1].hash if chosen else "", request_id)
    return [header_line(header) + b"\n", *(entry_line(entry) + b"\n" for entry in chosen)]
