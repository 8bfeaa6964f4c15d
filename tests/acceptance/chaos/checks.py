"""What must hold once a campaign has recovered, whatever happened in it."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from disinherit.common.audit.chain import AuditEntry
from disinherit.common.audit.export import verify_lines
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.deploy.files import PACKETS
from disinherit.server.reports.report import coverage_of
from disinherit.server.states import CampaignState, TaskState
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.run.folder import DATABASE
from tests.acceptance.chaos.federation import held_versions

LEFTOVERS = ("*.tmp", "*.part", "*-journal")
"""What unfinished work is called: of files, of downloads, of SQLite's transactions."""

OURS = ("owners", "state-*", f"{DATABASE}.packets", PACKETS)
"""Folders of owners, of agents, and of the coordinator."""

_PAGE = 1000


def violations(
    folder: Path, store: CoordinatorStore, requests: Sequence[str], expected: Mapping[str, str]
) -> Iterator[str]:
    """Yield what does not hold, for people to read.

    Args:
        folder: of the federation.
        store: the coordinator's.
        requests: ids of all that were carried out, in their order.
        expected: version -> digest, of all that there are where nothing went wrong.
    """
    yield from (f"{path} is left over" for path in leftovers(folder))  # before stores are opened
    held = held_versions(folder)
    yield from prepared(folder)
    known = {record.id: record.digest for record in store.graph().models()}
    if (order := store.requests()) != list(requests):
        yield f"the order of requests is {order}, and not that in which they came in"
    yield from _differences("the owners hold", held, expected)
    yield from _differences("the coordinator knows", known, expected)
    for request in requests:
        yield from _uncovered(store, request)
    yield from _audit(store, requests)


def leftovers(folder: Path) -> list[Path]:
    """Return what unfinished work left in a federation's folder."""
    return sorted(
        path
        for ours in OURS
        for part in folder.glob(ours)
        for pattern in LEFTOVERS
        for path in part.rglob(pattern)
    )


def prepared(folder: Path) -> Iterator[str]:
    """Yield new weights of roots that owners still keep for a request, which has ended."""
    for path in sorted(folder.glob("owners/*/index.db")):
        with closing(sqlite3.connect(path)) as index:
            for request, model in index.execute("SELECT request_id, model_id FROM prepared"):
                yield f"{path.parent.name} keeps new weights of {model} for {request}"


def reachable(graph: InheritanceGraph, root: str, request: str) -> set[str]:
    """Return every version derived from a root, by walking along all edges there are.

    Those that the request itself made are not counted, nor what was derived from them.
    """
    found, waiting = set(), [root]
    while waiting:
        model = waiting.pop()
        if model in found or model.endswith(f"~{request}"):
            continue
        found.add(model)
        waiting += [edge.child for edge in graph.edges() if edge.parent == model]
    return found


def _differences(who: str, got: Mapping[str, str], expected: Mapping[str, str]) -> Iterator[str]:
    for version in sorted(got.keys() | expected.keys()):
        ours, theirs = got.get(version, "none"), expected.get(version, "none")
        if ours != theirs:
            yield f"{who} {version} with digest {ours[:12]}, without faults {theirs[:12]}"


def _uncovered(store: CoordinatorStore, request: str) -> Iterator[str]:
    state = store.campaign(request).state
    if state is not CampaignState.COMPLETE:
        yield f"campaign {request} is {state}"
    covered = coverage_of(store, request, _PAGE).models
    roots = [root.model_id for root in store.request(request).roots]
    affected = set().union(*(reachable(store.graph(), root, request) for root in roots))
    if {one.model_id for one in covered} != affected:
        yield f"coverage of {request} is {[one.model_id for one in covered]}, not {affected}"
    for one in covered:
        if one.state not in (TaskState.VERIFIED, TaskState.EXEMPT):
            yield f"{one.model_id} is {one.state} in {request}: {one.reason}"
    for task in store.tasks(request).values():
        if task.destroyed_us:
            yield f"the old weights of {task.model_id} were destroyed in {request}"


def _audit(store: CoordinatorStore, requests: Sequence[str]) -> Iterator[str]:
    told: Counter[tuple[str, str, str]] = Counter()
    applied: Counter[tuple[str, str, str]] = Counter()

    def look(entry: AuditEntry) -> None:
        event = entry.event
        told[event.kind, event.request_id, event.model_id] += 1
        if event.kind == AuditKind.APPLIED.value:
            applied[event.request_id, event.model_id, event.digest_after] += 1

    lines = (line + b"\n" for line in store.audit_lines())
    problem = verify_lines(lines, look=look).problem
    if problem is not None:
        yield f"the audit log does not verify: {problem}"
    for request in requests:
        for one in coverage_of(store, request, _PAGE).models:
            got = told[AuditKind.APPLIED, request, one.model_id]
            if one.digest_after:  # what was said before by an owner that lied does not count
                got = applied[request, one.model_id, one.digest_after]
            wanted = int(one.state is TaskState.VERIFIED)
            again = wanted * (
                told[AuditKind.FELL_BACK, request, one.model_id]
                + told[AuditKind.RESENT, request, ""]
            )
            if not wanted <= got <= wanted + again:
                yield f"the audit log has {one.model_id} applied {got} times for {request}"
