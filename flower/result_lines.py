"""Outcome of a request in a Flower app, as lines for people and as JSON values for programs."""

import re
from collections.abc import Iterator
from typing import Any

from disinherit.common.text import one_line
from disinherit.documents.campaign.values import recognition_values
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
    tasks = _listed(result)
    settled = sum(task.state.settled for task in tasks.values())
    yield (
        f"request {result.request_id}: {result.outcome}, {settled} of {len(tasks)} models "
        f"settled, {len(result.changed)} changed"
    )
    widest = max((len(model) for model in tasks), default=0)
    for model, task in tasks.items():
        shown = ", ".join(filter(None, (_figures(task), task.reason)))
        yield f"  {model:{widest}}  {task.state:<12} {one_line(shown)}".rstrip()


def result_values(result: CampaignResult) -> Iterator[dict[str, Any]]:
    """Yield what became of each model, as JSON values; the outcome comes first.

    Args:
        result: of a request.
    """
    changed = list(result.changed)
    yield {"request": result.request_id, "outcome": result.outcome, "changed": changed}
    for model, task in _listed(result).items():
        found = task.result
        yield {
            "model": model,
            "owner": task.owner,
            "state": task.state,
            "reason": task.reason or None,
            **(_measured(found) if found is not None else {}),
        }


def _measured(found: pb.ModelResult) -> dict[str, Any]:
    """Return what a model's owner measured, as JSON values; `None` for what it did not."""
    retain = {"before": found.retain_before, "after": found.retain_after}
    return {
        "forget": recognition_values(found.forget) if found.HasField("forget") else None,
        "retain": retain if found.HasField("retain_after") else None,
    }


def _listed(result: CampaignResult) -> dict[str, Task]:
    """Return the tasks that are listed, rounds in their order."""
    tasks = {model: task for model, task in result.tasks.items() if not _is_superseded(task)}
    return dict(sorted(tasks.items(), key=lambda one: _natural(one[0])))


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
