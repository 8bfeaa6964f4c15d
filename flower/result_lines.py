"""Outcome of a request in a Flower app, as lines for people."""

import re
from collections.abc import Iterator

from disinherit.common.text import one_line
from disinherit.server.campaign.result import CampaignResult
from disinherit.server.planning.plan import SUPERSEDED
from disinherit.server.states import Task, TaskState
from disinherit.v1 import unlearning_pb2 as pb

_PARTS = re.compile(r"(\d+)")


def result_lines(result: CampaignResult) -> Iterator[str]:
    """Yield what became of each model, as lines for people; the outcome comes first.

    Args:
        result: of a request.
    """
    superseded = {model for model, task in result.tasks.items() if _is_superseded(task)}
    tasks = {model: result.tasks[model] for model in result.tasks if model not in superseded}
    settled = sum(task.state.settled for task in tasks.values())
    yield (
        f"request {result.request_id}: {result.outcome}, {settled} of {len(tasks)} models "
        f"settled, {len(result.changed)} changed"
    )
    widest = max((len(model) for model in tasks), default=0)
    for model, task in sorted(tasks.items(), key=lambda one: _natural(one[0])):
        shown = ", ".join(filter(None, (_figures(task), task.reason)))
        yield f"  {model:{widest}}  {task.state:<12} {one_line(shown)}".rstrip()


def _is_superseded(task: Task) -> bool:
    """Whether a version is left as it is, since what an earlier request made of it is listed."""
    return task.state is TaskState.EXEMPT and task.reason.startswith(SUPERSEDED)


def _natural(model: str) -> list[tuple[int, str]]:
    """Return what puts round 10 after round 9, and updates after their global model."""
    return [(int(part or 0), "") if part.isdigit() else (0, part) for part in _PARTS.split(model)]


def _figures(task: Task) -> str:
    """Return what a model's owner measured; empty if it measured nothing."""
    result = task.result
    if result is None:
        return ""
    shown = []
    if result.HasField("forget"):
        shown.append(_forgotten(result.forget))
    if result.HasField("retain_after"):
        shown.append(f"retain {result.retain_before:.1%} -> {result.retain_after:.1%}")
    return ", ".join(shown)


def _forgotten(found: pb.Recognition) -> str:
    if found.measure == "auc":
        return f"forget AUC {found.before:.3f} -> {found.after:.3f}"
    return f"forget {found.before:.1%} -> {found.after:.1%}"
