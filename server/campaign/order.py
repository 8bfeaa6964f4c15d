"""Order of campaigns that affect the same model: the older one first.

Several campaigns may wait for an owner that was away.  Dampening for two requests depends on their
order, so each model takes them in the order of submission, as if its owner had been present.

An older campaign blocks later ones at the models that it will still reach, and where they inherit
the change of a root, until it has reached the root.  It does not block them at models where it
failed, nor after a person stopped it or its deadline passed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from disinherit.common.errors import InputError
from disinherit.server.campaign.campaign_pass import Pass
from disinherit.server.campaign.remedies import present_version
from disinherit.server.states import CampaignState, TaskState
from disinherit.server.store.campaigns import Campaign, find_driven, find_older
from disinherit.server.store.graph import find_kin, read_descendants
from disinherit.server.store.known_plans import plan_again
from disinherit.server.store.request_rows import find_request
from disinherit.server.store.store import CoordinatorStore

_FEW = 2
"""Older campaigns that are looked at one by one sooner than it is found which of them matter."""

_SOME = 500
"""Models, at most, whose kin is looked up."""


def order(one: Pass) -> None:
    """Select the models that no older campaign has to reach first; store why the others wait.

    Raises:
        StoreError: if the lease was lost.
    """
    reasons: dict[str, str] = {}
    for campaign in _older(one) if one.left else ():
        reason = f"waits for {campaign.request_id}, which is older and reaches it first"
        for model in _ahead(one.store, campaign.request_id):
            reasons.setdefault(model, reason)
    for group in one.plan.groups if one.inherits_delta else ():
        for reason in _waiting_roots(one, group.roots, reasons):
            reasons = dict.fromkeys(group.models, reason) | reasons
    one.put(
        replace(task, state=TaskState.PENDING, reason=reasons[task.model_id])
        for task in one.left
        if task.model_id in reasons
    )
    ready = {task.model_id for task in one.left} - reasons.keys()
    one.groups = [
        replace(group, models=models)
        for group in one.plan.groups
        if (models := tuple(model for model in group.models if model in ready))
    ]
    one.todo = {model: one.tasks[model] for group in one.groups for model in group.models}
    one.attempted |= one.todo.keys()


def _waiting_roots(one: Pass, roots: Sequence[str], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield the reasons of roots that wait.

    The change of such a root would start from what it is before the older campaign, and its
    descendants may have the change of that already.
    """
    for root in roots:
        present = present_version(one.graph, one.tasks, root)
        task = one.tasks.get(present)
        if present in reasons and (task is None or task.successor is None):
            yield f"its root {root} {reasons[present]}"


def _older(one: Pass) -> list[Campaign]:
    """Return the older campaigns that may have to go first: those with a task for kin of a model.

    A version that is new to this campaign may also reopen complete ones.
    """
    older = list(one.older)
    many = len(older) > _FEW and len(one.left) <= _SOME
    if not (many or one.late):
        return older
    with one.store.reading() as db:
        if many:
            kin = find_kin(db, [task.model_id for task in one.left])
            older = find_older(db, one.campaign, CampaignState.RUNNING, kin)
        if one.late:
            older += find_older(db, one.campaign, CampaignState.COMPLETE, find_kin(db, one.late))
    return sorted(older, key=lambda campaign: (campaign.created_us, campaign.request_id))


def _ahead(store: CoordinatorStore, request_id: str) -> Iterator[str]:
    """Yield the models that a campaign will still reach, by the present graph."""
    with store.reading() as db:
        tasks = find_driven(db, request_id, None).tasks
        request = find_request(db, request_id)
        part = read_descendants(db, [root.model_id for root in request.roots])
    try:
        planned = plan_again(part, request, tasks)
    except InputError:  # it cannot continue, and must not block the others
        return
    for model in (model for group in planned.groups for model in group.models):
        task = tasks.get(model)
        passed = (TaskState.FAILED, TaskState.UNAPPROVED)
        if task is None or not (task.state.answered or task.state in passed):
            yield model
