"""Steps of a pass that select its models: tasks of affected versions, and waves of owners."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.wire.roll_out import RollOut
from disinherit.server.campaign.campaign_pass import Pass
from disinherit.server.planning.gates import judge
from disinherit.server.planning.plan import Plan
from disinherit.server.planning.roll_out import assign_waves
from disinherit.server.states import Task, TaskState
from disinherit.server.store.approvals import find_all_recorders, unapproved
from disinherit.server.store.known_plans import plan_again
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tasks import add_tasks
from disinherit.server.store.waves import begin_wave, halt
from disinherit.v1.unlearning_pb2 import UnlearningRequest

_WAITING = (TaskState.PENDING, TaskState.UNAPPROVED)
_NONE: Mapping[str, str] = {}


def place(
    request: UnlearningRequest, graph: InheritanceGraph, planned: Plan, known: Iterable[Task]
) -> Mapping[str, int]:
    """Return the wave of every owner of models to dampen.

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


def find_new_tasks(
    request: UnlearningRequest,
    graph: InheritanceGraph,
    planned: Plan,
    tasks: Mapping[str, Task],
    unapproved: Mapping[str, str] = _NONE,
    *,
    late: bool,
) -> list[Task]:
    """Return the tasks of a request that a plan adds or changes.

    Args:
        request: the request.
        graph: the inheritance graph.
        planned: the request's plan.
        tasks: model -> its task so far.
        unapproved: model -> why it waits for an approval of its own.
        late: whether the request was submitted earlier, so that new versions are late.

    Raises:
        RequestError: if a canary owns none of the models.
    """
    waves = place(request, graph, planned, tasks.values())
    new = []
    for model in planned.affected:
        owner = graph.model(model).owner
        task = tasks.get(model) or Task(model, owner, wave=waves.get(owner, 0), late=late)
        if task.successor is None:
            if model in planned.exempt:
                task = replace(task, state=TaskState.EXEMPT, reason=planned.exempt[model])
            elif model in planned.failed:
                task = replace(task, state=TaskState.FAILED, reason=planned.failed[model])
            elif model in planned.not_reached:
                reason = planned.not_reached[model]
                task = replace(task, state=TaskState.NOT_REACHED, reason=reason)
            elif task.state is TaskState.EXEMPT or task.is_unreached:
                # Its replacement was rolled back, or it is reached by now.
                task = Task(model, task.owner, wave=task.wave, late=task.late)
        if model in unapproved and task.state in _WAITING:
            task = replace(task, state=TaskState.UNAPPROVED, reason=unapproved[model])
        if task != tasks.get(model):
            new.append(task)
    return new


def find_unapproved(
    store: CoordinatorStore,
    request: UnlearningRequest,
    graph: InheritanceGraph,
    planned: Plan,
    tasks: Mapping[str, Task],
) -> dict[str, str]:
    """Return the affected versions that wait for an approval of their own, with the reason."""
    with store.reading() as db:
        recorders = find_all_recorders(db, planned.affected)
    return unapproved(graph, request, planned.affected, tasks, recorders)


def enlist(one: Pass) -> None:
    """Plan the request again, and add tasks for versions that joined the campaign."""
    request, graph, tasks = one.request, one.graph, one.tasks
    one.plan = plan_again(one.part, request, tasks)
    waiting: Mapping[str, str] = {}
    if one.campaign.plan:
        waiting = find_unapproved(one.store, request, graph, one.plan, tasks)
    new = find_new_tasks(request, graph, one.plan, tasks, waiting, late=True)
    if not new:
        return
    one.late = [task.model_id for task in new if task.model_id not in tasks]
    with one.writing() as change:
        if one.advances:
            add_tasks(change.db, request.id, new)
    one.look(None)


def open_wave(one: Pass) -> bool:
    """Begin the next wave of the campaign, or halt it, depending on the results so far.

    Returns:
        Whether another wave began.

    Raises:
        StoreError: if the lease was lost.
    """
    if not one.request.HasField("roll_out"):
        return False
    campaign = one.campaign
    judged = [one.tasks[model] for model in one.plan.dampened]
    roll_out = RollOut.from_proto(one.request.roll_out)
    verdict = judge(roll_out, judged, campaign.open_waves, campaign.accepted_waves)
    if verdict.halt is not None:
        with one.writing() as change:
            halt(change.db, one.request.id, verdict.halt)
        one.look(None)
        return False
    if verdict.open_waves == campaign.open_waves:
        return False
    with one.writing() as change:
        begin_wave(change.db, one.request.id, verdict.open_waves)
    one.campaign = replace(one.campaign, open_waves=verdict.open_waves)
    return True


def stage(one: Pass) -> None:
    """Select the models to dampen whose owners' waves have begun."""
    left, waiting = [], []
    for task in (one.tasks[model] for model in one.plan.dampened):
        again = one.resend and task.model_id not in one.attempted
        if task.state is TaskState.UNAPPROVED or (task.state.answered and not again):
            continue
        if task.wave < one.campaign.open_waves:
            left.append(task)
        else:
            reason = f"waits for wave {task.wave + 1} of the roll-out to begin"
            waiting.append(replace(task, state=TaskState.PENDING, reason=reason))
    one.put(waiting)
    one.left = left
