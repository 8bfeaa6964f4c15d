"""Approvals of plans, by their digests.

A plan is the request, its deadline, and every affected version with the edges that lead to it.  An
approval names the digest of the submitted plan, or of one that the approver looked at; it never
covers a later change.  If somebody other than its owner registers a version below a root later, the
version waits for an approval of its own.  It needs none if its owner registered the edge, or the
coordinator observed the derivation.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace

from sqlalchemy import Connection, bindparam, select, update

from disinherit.common.audit.canonical import Json, canonical
from disinherit.common.errors import RequestError
from disinherit.common.graph.formats import lineage_digest
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.limits import shown
from disinherit.server.planning.targets import find_starts
from disinherit.server.states import CampaignEvent, CampaignState, Task, TaskState, cleansed
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind, owner_actor, request_digest
from disinherit.server.store.campaigns import Campaign, find_campaign
from disinherit.server.store.graph import StoredPart, read_descendants
from disinherit.server.store.queries import Query, WriteQuery
from disinherit.server.store.remembering import remembered
from disinherit.server.store.request_rows import find_request, read_task, task_rows
from disinherit.server.store.tables import CAMPAIGNS, EDGES
from disinherit.server.store.tasks import change_tasks
from disinherit.server.store.transitions import put_event, reopen
from disinherit.v1.unlearning_pb2 import UnlearningRequest

_RECORDERS = Query(
    select(EDGES.c.parent, EDGES.c.child, EDGES.c.recorded_by).where(
        EDGES.c.child.in_(bindparam("children", expanding=True))
    )
)
_OF_REQUEST = CAMPAIGNS.c.request_id == bindparam("of_request")
_PUT_SUBMITTED = WriteQuery(update(CAMPAIGNS).where(_OF_REQUEST))
_PUT_APPROVED = WriteQuery(update(CAMPAIGNS).where(_OF_REQUEST))


def find_plan_digest(db: Connection, request_id: str) -> str:
    """Return the SHA-256 of a request's current plan.

    Raises:
        RequestError: if there is no such request.
    """
    request = find_request(db, request_id)
    return find_digest_of_plan(db, request, find_campaign(db, request_id).deadline_us)


def find_digest_of_plan(db: Connection, request: UnlearningRequest, deadline_us: int) -> str:
    """Return the SHA-256 of a stored request's current plan (`find_plan_digest`).

    Args:
        db: a transaction, which read the rest.
        request: the request.
        deadline_us: that of its campaign.
    """
    made = cleansed(read_task(row) for row in task_rows(db, request.id))
    part = read_descendants(db, [root.model_id for root in request.roots])
    data = request.SerializeToString(deterministic=True)
    return _plan_digest(part, data, deadline_us, frozenset(made))


@remembered
def _plan_digest(part: StoredPart, data: bytes, deadline_us: int, made: frozenset[str]) -> str:
    request = UnlearningRequest.FromString(data)
    roots = [root.model_id for root in request.roots]
    graph = part.graph()
    starts = find_starts(graph, roots)
    plan: Json = {
        "request_sha256": request_digest(request),
        "reason": request.reason,
        "deadline_us": deadline_us,
        "lineage_sha256": lineage_digest(graph, graph.affected(starts, cleansed=made)),
    }
    return hashlib.sha256(canonical(plan)).hexdigest()


def put_submitted_plan(db: Connection, request: UnlearningRequest, deadline_us: int) -> None:
    """Store the digest of a new request's plan, for approval."""
    plan = find_digest_of_plan(db, request, deadline_us)
    _PUT_SUBMITTED.run(db, {"of_request": request.id, "submitted_plan": plan})


def approve(db: Connection, request_id: str, plan: str, actor: str) -> Campaign:
    """Approve a plan: start its campaign, or add the versions that wait for an approval.

    Args:
        db: a transaction that writes, so that the plan cannot change meanwhile.
        request_id: the request.
        plan: SHA-256 of the plan that the approver looked at, all of which is approved; `""` for
            the submitted plan, without the versions that others registered below a root since.
        actor: the approver.

    Returns:
        The campaign after the approval.

    Raises:
        RequestError: if the request is unknown, cannot be approved now, or its plan has changed.
    """
    campaign = find_campaign(db, request_id)
    tasks = map(read_task, task_rows(db, request_id))
    waiting = [task for task in tasks if task.state is TaskState.UNAPPROVED]
    begins = campaign.state is CampaignState.AWAITING_APPROVAL
    if not begins and not (waiting and campaign.state.advances):
        return put_event(db, request_id, CampaignEvent.APPROVE, None, actor)
    if plan or not begins:
        _check_plan(campaign, plan, find_plan_digest(db, request_id))
    details: dict[str, Json] = {"plan_sha256": plan or campaign.plan}
    approved = {"of_request": request_id, "approved_plan": plan or campaign.plan}
    _PUT_APPROVED.run(db, approved)
    if begins:
        put_event(db, request_id, CampaignEvent.APPROVE, None, actor, details)
    else:
        details["models"] = [task.model_id for task in waiting]
        append(db, AuditKind.APPROVED, actor, request_id=request_id, parameters=details)
    if plan:
        freed = [replace(task, state=TaskState.PENDING, reason="") for task in waiting]
        change_tasks(db, request_id, freed)
        reopen(db, request_id)
    return find_campaign(db, request_id)


def _check_plan(campaign: Campaign, plan: str, now: str) -> None:
    look = f"`disinherit request show {campaign.request_id}`"
    if not plan:
        raise RequestError(
            f"Expected the plan that is approved, as models joined request {campaign.request_id!r} "
            f"that need an approval of their own, but got none. Look at it with {look}, and "
            f"approve it with --plan {now}."
        )
    if plan != now:
        raise RequestError(
            f"Expected the plan of request {campaign.request_id!r} as it is now, {now}, but got "
            f"{shown(plan)}: it was changed, or a model has joined. Look at it again with {look}."
        )


def unapproved(
    graph: InheritanceGraph,
    request: UnlearningRequest,
    affected: Collection[str],
    tasks: Mapping[str, Task],
    recorders: Mapping[tuple[str, str], str],
) -> dict[str, str]:
    """Return the affected versions that wait for an approval of their own, with the reason.

    Args:
        graph: the inheritance graph.
        request: an approved request.
        affected: roots and descendants in topological order.
        tasks: the request's tasks so far.
        recorders: edge -> who recorded it (`find_recorders`).
    """
    allowed = {root.model_id for root in request.roots}
    allowed |= {id for id, task in tasks.items() if task.state is not TaskState.UNAPPROVED}
    waiting: dict[str, str] = {}
    for model in affected:
        if model in allowed:
            continue
        record = graph.model(model)
        above = [edge.parent for edge in graph.parents(model) if edge.parent in affected]
        recorded_by = {recorders.get((parent, model), "") for parent in above if parent in allowed}
        if recorded_by & {"", owner_actor(record.owner)}:
            allowed.add(model)
            continue
        by = ", ".join(sorted(recorded_by)) or "others"
        waiting[model] = (
            f"joined after the approval by the word of {by} and not of its owner: an approver must "
            "approve the request anew"
        )
    return waiting


def find_all_recorders(db: Connection, children: Collection[str]) -> dict[tuple[str, str], str]:
    """Return who recorded the edges that lead to some versions, by parent and child."""
    found: dict[tuple[str, str], str] = {}
    listed = list(children)
    for start in range(0, len(listed), 500):
        some = listed[start : start + 500]
        for row in _RECORDERS.all(db, {"children": some}):
            found[row.parent, row.child] = row.recorded_by
    return found
