"""The steps of a staged roll-out: whose turn it is now, and whether more owners' turn comes."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.wire.requests import RollOut
from disinherit.server.planning.gates import judge
from disinherit.server.planning.plan import Plan, plan
from disinherit.server.planning.roll_out import assign_waves
from disinherit.server.states import Task, TaskState, cleansed
from disinherit.server.store.leases import Lease
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1.unlearning_pb2 import UnlearningRequest


def place(
    request: UnlearningRequest, graph: InheritanceGraph, planned: Plan, known: Iterable[Task]
) -> Mapping[str, int]:
    """Return the wave of every owner of models that are to be dampened; the others have none.

    Args:
        request: the request.
        graph: the inheritance graph.
        planned: the request's plan.
        known: its tasks so far.

    Raises:
        RequestError: if a canary owns none of these models.
    """
    if not request.HasField("roll_out"):
        return {}
    placed = {task.owner: task.wave for task in known if task.state is not TaskState.EXEMPT}
    owners = {graph.model(model).owner for model in planned.dampened}
    return assign_waves(RollOut.from_proto(request.roll_out), request.id, owners, placed)


def next_wave(store: CoordinatorStore, lease: Lease, request: UnlearningRequest) -> bool:
    """Let the next wave of a campaign begin, or halt it, as the answers so far demand.

    Args:
        store: graph, requests and tasks.
        lease: the right to drive the campaign.
        request: its request.

    Returns:
        Whether another wave has begun.

    Raises:
        StoreError: if the lease was lost.
    """
    campaign = store.campaign(request.id)
    if not request.HasField("roll_out") or not campaign.state.advances:
        return False
    tasks = store.tasks(request.id)
    graph = store.descendants(root.model_id for root in request.roots)
    planned = plan(graph, request, cleansed(tasks.values()), (), tasked=tasks)
    judged = [tasks[model] for model in planned.dampened if model in tasks]
    roll_out = RollOut.from_proto(request.roll_out)
    verdict = judge(roll_out, judged, campaign.open_waves, campaign.accepted_waves)
    if verdict.halt is not None:
        store.halt(request.id, verdict.halt, lease=lease)
        return False
    if verdict.open_waves == campaign.open_waves:
        return False
    store.begin_wave(request.id, verdict.open_waves, lease=lease)
    return True


def keep_waiting(store: CoordinatorStore, lease: Lease, tasks: Iterable[Task]) -> set[str]:
    """Return the models whose owners' turn has come; note of the others why they wait.

    Args:
        store: campaigns and tasks.
        lease: the right to drive the campaign.
        tasks: what is left to do.

    Raises:
        StoreError: if the lease was lost.
    """
    open_waves = store.campaign(lease.request_id).open_waves
    turn, waiting = set(), []
    for task in tasks:
        if task.wave < open_waves:
            turn.add(task.model_id)
            continue
        reason = f"waits for wave {task.wave + 1} of the roll-out to begin"
        held = replace(task, state=TaskState.PENDING, reason=reason)
        if held != task:
            waiting.append(held)
    store.update_all(lease.request_id, waiting, lease=lease)
    return turn
