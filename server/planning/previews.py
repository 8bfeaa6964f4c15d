"""Previews of requests: what a submission would do with each affected version."""

from collections.abc import Mapping
from dataclasses import dataclass

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.server.planning.message_sizes import estimate_bytes
from disinherit.server.planning.notes import PlanNote
from disinherit.server.planning.plan import Plan
from disinherit.server.states import Task, TaskState
from disinherit.v1.unlearning_pb2 import UnlearningRequest


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """What a request would do with an affected version.

    Attributes:
        model_id: the version.
        owner: its owner.
        root: whether the request names it as a root.
        state: `PENDING` if it is to change; else `EXEMPT`, `NOT_REACHED` or `FAILED`; for a request
            that was submitted before, the state of its task.
        reason: why it is not to change, or of that state.
        recipe: how it is computed again from what becomes of its parents; `""` if it is not.
        shares: root -> how much of its change the version inherits, in (0, 1]; empty if
            descendants inherit Fisher information.
    """

    model_id: str
    owner: str
    root: bool
    state: TaskState
    reason: str
    recipe: str
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a submission would do.

    Attributes:
        models: the affected versions, ancestors first.
        notes: information for the approver.
        remarks: the same, with what each is about.
        missing_summaries: the roots of which no Fisher summary is registered, though it is asked
            for: their owners can answer only as long as they have the training data.
        bytes_from_roots: estimate of what the roots' owners send; 0 if it is not known.
        bytes_to_owners: estimate of what is sent to all owners; 0 if it is not known.
    """

    models: tuple[PlannedModel, ...]
    notes: tuple[str, ...]
    remarks: tuple[PlanNote, ...] = ()
    missing_summaries: tuple[str, ...] = ()
    bytes_from_roots: int = 0
    bytes_to_owners: int = 0


def preview(
    graph: InheritanceGraph,
    request: UnlearningRequest,
    planned: Plan,
    tasks: Mapping[str, Task],
) -> Preview:
    """Return what a request would do.

    Args:
        graph: the inheritance graph, or the subgraph of the roots' descendants.
        request: the request; for a client, with its roots filled in.
        planned: its plan.
        tasks: affected model -> its task after the submission.
    """
    roots = {root.model_id for root in request.roots}
    recipes = {
        model: str(one.recipe) for group in planned.groups for model, one in group.computed.items()
    }
    shares = {
        model: dict(zip(group.roots, some, strict=True))
        for group in planned.groups
        for model, some in group.shares.items()
    }
    models = [
        PlannedModel(
            model_id=model,
            owner=tasks[model].owner,
            root=model in roots,
            state=tasks[model].state,
            reason=tasks[model].reason,
            recipe=recipes.get(model, ""),
            shares=shares.get(model, {}),
        )
        for model in sorted(planned.affected, key=lambda id: (graph.model(id).created_us, id))
    ]
    sent, given = estimate_bytes(graph, request, planned)
    asked = [root.model_id for root in request.roots if root.classes]
    if request.method.mechanism:
        asked = []  # what descendants inherit then is not Fisher information
    missing = [root for root in asked if not graph.model(root).fisher_digest]
    return Preview(tuple(models), planned.notes, planned.remarks, tuple(missing), sent, given)
