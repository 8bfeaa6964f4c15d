"""Coverage of a campaign: every affected version, with its state and reason.

It is computed from the current graph, not from the plan: it has newly affected versions before a
coordinator has made tasks for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from disinherit.common.errors import RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.common.limits import shown
from disinherit.server.planning.plan import Plan
from disinherit.server.states import Task, TaskState
from disinherit.v1.unlearning_pb2 import ModelResult, Remedy

LARGEST_PAGE = 1000
_LATE = "joins the campaign with the next pass over it"


@dataclass(frozen=True, slots=True)
class Covered:
    """One affected version.

    Attributes:
        model_id: the version.
        owner: its owner.
        state: the state of its task.
        reason: why it is not verified.
        successor: id of its successor; `""` without one.
        digest_before: SHA-256 of its weights.
        digest_after: SHA-256 of the successor's weights, as its owner reported.
        updated_us: when its state last changed, in microseconds since the epoch; 0 without a task.
        wave: its owner's wave of the roll-out, from 0.
        destroy_us: when the version itself is to be destroyed; 0 for never.
        destroyed_us: when its owner destroyed it; 0 if it did not.
        remedy: what was done so that it forgets.
        result: what its owner reported; `None` if nothing, or if it was taken back.
    """

    model_id: str
    owner: str
    state: TaskState
    reason: str
    successor: str
    digest_before: str
    digest_after: str
    updated_us: int
    wave: int
    destroy_us: int = 0
    destroyed_us: int = 0
    remedy: Remedy.ValueType = Remedy.REMEDY_UNSPECIFIED
    result: ModelResult | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CoveragePage:
    """A page of a campaign's coverage.

    Attributes:
        models: affected versions, ancestors first.
        next_page_token: token of the next page; `""` on the last one.
    """

    models: tuple[Covered, ...]
    next_page_token: str


def cover(
    graph: InheritanceGraph,
    planned: Plan,
    tasks: Mapping[str, Task],
    updated_us: Mapping[str, int],
) -> list[Covered]:
    """Return every version that a request affects, ancestors first.

    Args:
        graph: the current inheritance graph.
        planned: the plan of a submitted request for it.
        tasks: model -> its task.
        updated_us: model -> when its task last changed.
    """
    late = {
        **dict.fromkeys(planned.affected, (TaskState.PENDING, _LATE)),
        **{model: (TaskState.FAILED, reason) for model, reason in planned.failed.items()},
        **{model: (TaskState.NOT_REACHED, reason) for model, reason in planned.not_reached.items()},
        **{model: (TaskState.EXEMPT, reason) for model, reason in planned.exempt.items()},
    }
    covered = []
    for model in {*planned.affected, *tasks}:
        record = graph.model(model)
        task = tasks.get(model)
        if task is None:
            task = Task(model, record.owner, *late[model])
        # A version that was rolled back has no successor any more.
        undone = task.state is TaskState.ROLLED_BACK
        after = None if undone else task.successor
        covered.append(
            Covered(
                model_id=model,
                owner=task.owner,
                state=task.state,
                reason=task.reason,
                successor=after.id if after is not None else "",
                digest_before=record.digest,
                digest_after=after.digest if after is not None else "",
                updated_us=updated_us.get(model, 0),
                wave=task.wave,
                destroy_us=task.destroy_us,
                destroyed_us=task.destroyed_us,
                remedy=_remedy(task, record),
                result=None if undone else task.result,
            )
        )
    return sorted(covered, key=lambda one: _position(graph, one.model_id))


def _remedy(task: Task, record: ModelRecord) -> Remedy.ValueType:
    """Return what was done about a version; unspecified if nothing was, or if it is unknown."""
    if task.state.answered and task.result is not None:
        return task.result.remedy
    if task.state is TaskState.NOT_REACHED:
        return Remedy.REMEDY_UNTOUCHED
    retired = task.state is TaskState.EXEMPT and record.status is ModelStatus.RETIRED
    return Remedy.REMEDY_RETIRED if retired else Remedy.REMEDY_UNSPECIFIED


def page(
    graph: InheritanceGraph, covered: list[Covered], page_size: int, page_token: str
) -> CoveragePage:
    """Return one page of a campaign's coverage.

    The token is a version, not an offset: one that joins between two calls moves no other.

    Args:
        graph: the inheritance graph.
        covered: the result of `cover`.
        page_size: maximum number of versions.
        page_token: `""` for the first page, then the `next_page_token` of the previous one.

    Raises:
        RequestError: if the size or the token is invalid.
    """
    if not 1 <= page_size <= LARGEST_PAGE:
        raise RequestError(f"Expected page_size from 1 to {LARGEST_PAGE}, but got {page_size}.")
    if page_token:
        if page_token not in graph:
            raise RequestError(
                f"Expected the page token of an earlier answer, but got {shown(page_token)}."
            )
        last = _position(graph, page_token)
        covered = [one for one in covered if _position(graph, one.model_id) > last]
    models = tuple(covered[:page_size])
    more = len(covered) > page_size
    return CoveragePage(models, models[-1].model_id if more else "")


def _position(graph: InheritanceGraph, model: str) -> tuple[int, str]:
    """Return a sort key that puts ancestors first, as children are younger than parents."""
    return graph.model(model).created_us, model
