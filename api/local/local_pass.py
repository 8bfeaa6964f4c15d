"""One pass over models in one process: the steps of a campaign, without a store."""

import copy
from contextlib import nullcontext
from dataclasses import replace
from typing import cast

from torch import nn

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CheckpointError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.identifiers import line_name
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.direct import DirectTransport
from disinherit.local.members import LoaderOwner, Member
from disinherit.server.campaign.collect import collect
from disinherit.server.campaign.dry_pass import DryPass
from disinherit.server.campaign.merge import merge
from disinherit.server.campaign.outcomes import outcome_of
from disinherit.server.campaign.remedies import has_exact_parents
from disinherit.server.planning.plan import Plan
from disinherit.server.states import Answered, Task, TaskState
from disinherit.v1 import unlearning_pb2 as pb

_TIMEOUT_SECONDS = 0.0
"""No waiting: an owner in the same process is called directly."""


def forget_locally(
    graph: InheritanceGraph, owner: LoaderOwner, message: pb.UnlearningRequest, planned: Plan
) -> tuple[dict[str, Task], dict[str, ModelRecord]]:
    """Unlearn in all affected models of one owner; nothing but its store changes.

    Args:
        graph: the inheritance graph.
        owner: the owner of all models.
        message: the request.
        planned: its plan.

    Returns:
        Version -> what became of it, and version -> the successor that was made of it.
    """
    name = owner.store.owner
    transport = DirectTransport({name: lambda: nullcontext(owner)})
    tasks = {
        version: Task(version, name, state, reason)
        for state, found in (
            (TaskState.EXEMPT, planned.exempt),
            (TaskState.FAILED, planned.failed),
            (TaskState.NOT_REACHED, planned.not_reached),
        )
        for version, reason in found.items()
    }
    one = DryPass(transport, _TIMEOUT_SECONDS, lambda _: None, message, graph)
    one.groups = planned.groups
    collect(one)
    merge(one)
    for version, reason in (one.prepared.failed | one.prepared.waiting).items():
        tasks[version] = Task(version, name, TaskState.FAILED, reason)
    made = {}
    for answer in transport.ask(one.prepared.asks("train.unlearn"), _TIMEOUT_SECONDS):
        sent = cast("pb.UnlearnTask", answer.ask.task)
        reply = cast("pb.UnlearnReply", answer.reply)
        for entry, result in zip(sent.models, reply.models, strict=True):
            judged = outcome_of(
                Task(entry.model_id, name),
                result,
                sent,
                entry,
                exact_parents=has_exact_parents(entry, graph, tasks),
            )
            if isinstance(judged, Answered):
                made[entry.model_id] = judged.successor
                judged = judged.task
            tasks[entry.model_id] = judged
    _put_back_with_roots(planned, tasks)
    return tasks, made


def _put_back_with_roots(planned: Plan, tasks: dict[str, Task]) -> None:
    """Judge that a model is put back if a root is that it got a change of.

    By the next request the root makes another change in the place of that, and both would be in it.
    """
    inheriting = [group for group in planned.groups if group.shares]
    above = {model: group.roots for group in inheriting for model in group.models}
    done = (TaskState.APPLIED, TaskState.EXEMPT)  # the latter: nothing of it is in use any more
    lost = [root for root, task in tasks.items() if task.state not in done]
    for root in lost:  # grows during the loop
        for model, roots in above.items():
            if root in roots and tasks[model].state is TaskState.APPLIED:
                reason = (
                    f"model {line_name(model)!r} was put back with its root {line_name(root)!r}, "
                    "which has not taken the change that it inherits"
                )
                tasks[model] = replace(tasks[model], state=TaskState.INEFFECTIVE, reason=reason)
                lost.append(model)


def take(
    store: ModelStore,
    request_id: str,
    member: Member,
    task: Task,
    successor: ModelRecord,
    inplace: bool,
) -> tuple[Task, nn.Module]:
    """Give a module its new weights, or put back a version that did not forget.

    Args:
        store: keeps the versions.
        request_id: the request.
        member: the model.
        task: the work on it.
        successor: what was made of it.
        inplace: whether its own module gets the weights, or a copy.

    Raises:
        CheckpointError: if the module does not take the weights.
    """
    record, module = member.record, member.module
    if not inplace:
        module = copy.deepcopy(module)
    if task.state is not TaskState.APPLIED:
        store.roll_back(request_id, record.id, record.digest)
        return task, module
    module.load_state_dict(store.weights(successor.id))
    if weights_digest(module.state_dict()) != successor.digest:
        raise CheckpointError(
            f"Expected model {record.id!r} to have the weights that were loaded into it, but they "
            "are others. Load them without changes in load_state_dict."
        )
    if inplace:
        member.record = successor
    else:
        store.roll_back(request_id, record.id, record.digest)
    return replace(task, state=TaskState.VERIFIED, reason=""), module


def put_back(store: ModelStore, request_id: str, member: Member, record: ModelRecord) -> None:
    """Undo all that a request has done to a model, also in its module.

    Args:
        store: keeps the versions.
        request_id: the request.
        member: the model.
        record: its version before.
    """
    store.roll_back(request_id, record.id, record.digest)
    member.record = record
    if weights_digest(member.module.state_dict()) != record.digest:
        nn.Module.load_state_dict(member.module, store.weights(record.id))
