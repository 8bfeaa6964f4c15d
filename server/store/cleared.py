"""Claims that earlier requests had cleared a model, checked against their records.

If earlier requests made a model forget all that a request asks for, nothing need change.  The owner
reports that from its ledger; the coordinator has the tasks of the versions that came before.
Samples have another digest in every request that names them with a salt of its own, so that records
can confirm a claim about them and never contradict it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind, ModelStatus
from disinherit.common.wire.recognition import other_ways
from disinherit.server.states import Answered, Task, TaskState
from disinherit.server.store.graph import find_edges, find_records
from disinherit.server.store.request_rows import find_request, read_task
from disinherit.server.store.tables import EDGES, TASKS
from disinherit.v1 import unlearning_pb2 as pb

_Forgotten = frozenset[tuple[str, ...]]
"""Classes by name, and samples by salt and digest."""


def check_claim(db: Connection, request_id: str, answered: Answered) -> Answered:
    """Confirm or refuse the claim in an answer by the coordinator's records.

    The claim is confirmed if the requests that led to the version forgot all that this one asks
    for.  It is refused if they did not and no record can be missing: the request is for classes,
    all requests before are known, and the owner trained the first version.

    Args:
        db: a transaction.
        request_id: the request.
        answered: an owner's answer about one model.

    Returns:
        The answer, with the claim confirmed, refused or unchanged.

    Raises:
        StoreError: if a row is damaged.
    """
    task = answered.task
    if task.result is None or not task.result.HasField("cleared_recorded"):
        return answered
    links = {origin: forgotten for origin, forgotten, _ in _links(db, task.model_id)}
    asked = _forgotten(db, request_id, task)
    before: _Forgotten = frozenset().union(*links.values())
    result = pb.ModelResult()
    result.CopyFrom(task.result)
    if asked and asked <= before:
        result.cleared_recorded = True
        return replace(answered, task=replace(task, result=result))
    origin = next(reversed(links), task.model_id)
    trained = find_records(db, [origin])[origin].provenance is not None
    by_class = bool(asked) and all(len(one) == 1 for one in asked)
    if not (by_class and trained and all(links.values())):
        return answered  # `gaps` reports that only the owner's word supports it
    result.outcome = pb.OUTCOME_INEFFECTIVE
    result.ClearField("forgotten")
    reason = (
        "its owner changed nothing and reports that earlier requests had cleared it, but by the "
        "coordinator's records they had not: " + other_ways(by_changes=bool(task.result.deltas))
    )
    refused = replace(task, state=TaskState.INEFFECTIVE, reason=reason, result=result)
    return replace(answered, task=refused)


def find_cleared(
    db: Connection, graph: InheritanceGraph, roots: Iterable[str]
) -> dict[str, set[str]]:
    """Return root -> classes that earlier requests made its present version forget.

    Args:
        db: a transaction.
        graph: roots and their descendants.
        roots: the roots.

    Raises:
        StoreError: if a row is damaged.
    """
    found = {}
    for root in roots:
        links = _links(db, _present(graph, root))
        forgotten = frozenset().union(*(some for _, some, _ in links))
        found[root] = {name for name, *more in forgotten if not more}
    return found


def find_done(db: Connection, graph: InheritanceGraph, request: pb.UnlearningRequest) -> str:
    """Return which earlier requests did all that a request asks for; `""` if they did not.

    Args:
        db: a transaction.
        graph: roots and their descendants.
        request: a request with roots.

    Raises:
        StoreError: if a row is damaged.
    """
    said = []
    for root in request.roots:
        asked = {(name,) for name in root.classes} | {
            (root.sample_salt, sample) for sample in root.samples
        }
        links = list(_links(db, _present(graph, root.model_id)))
        if not asked or not asked <= frozenset().union(*(some for _, some, _ in links)):
            return ""
        what = ", ".join(root.classes) or f"{len(root.samples)} samples"
        by = sorted({how for _, some, how in links if asked & some})
        said.append(f"{what} at {root.model_id} was forgotten by {' and '.join(by)}")
    return "; ".join(said)


def _present(graph: InheritanceGraph, root: str) -> str:
    """Return the version that stands for a root: the last one that took its place."""
    while heir := _heir(graph, root):
        root = heir
    return root


def _heir(graph: InheritanceGraph, model: str) -> str:
    """Return the version that took a model's place; `""` for none."""
    heirs = graph.successors(model) if model in graph else ()
    active = (heir for heir in heirs if graph.model(heir).status is not ModelStatus.RETIRED)
    return next(active, "")


def _links(db: Connection, model: str) -> Iterator[tuple[str, _Forgotten, str]]:
    """Yield each version that a version was unlearned from, with what was forgotten in it.

    Yields:
        The version, what was forgotten, and by which request and when, for people to read.
    """
    while True:
        edges = find_edges(db, EDGES.c.child, [model])
        made = [edge.parent for edge in edges if edge.kind is InheritanceKind.UNLEARNED]
        if not made:
            return
        (origin,) = made
        forgotten: _Forgotten = frozenset()
        how = ""
        for row in db.execute(select(TASKS).where(TASKS.c.model_id == origin)):
            task = read_task(row)
            if task.state.done and task.successor is not None and task.successor.id == model:
                forgotten = _forgotten(db, row.request_id, task)
                when = datetime.fromtimestamp(row.updated_us / 1e6, UTC)
                how = f"{row.request_id} on {when:%Y-%m-%d}"
        yield origin, forgotten, how
        model = origin


def _forgotten(db: Connection, request_id: str, task: Task) -> _Forgotten:
    """Return what a request made one model forget; empty if unknown."""
    if task.result is not None and task.result.forgotten:
        return frozenset((name,) for name in task.result.forgotten)
    roots = find_request(db, request_id).roots
    return frozenset(
        (root.sample_salt, sample)
        for root in roots
        if root.model_id == task.model_id
        for sample in root.samples
    )
