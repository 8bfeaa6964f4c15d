"""In which order campaigns reach a model that several of them affect: the older one first.

An owner that was away while several campaigns ran finds all of them waiting.  Dampening for one
request and then for another is not the same as the other way round, so each model is taken through
them in the order in which they were submitted, as if its owner had been there all the time.

An older campaign holds back those that it is still going to reach.  It does not hold back models
that it failed at, lest an owner that cannot do one request never does any, nor anything at all once
a person has stopped it or its deadline has passed.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from disinherit.common.errors import InputError
from disinherit.server.planning.plan import plan
from disinherit.server.states import CampaignState, Task, TaskState, cleansed
from disinherit.server.store.campaigns import Campaign
from disinherit.server.store.leases import Lease
from disinherit.server.store.store import CoordinatorStore


def held_back(
    store: CoordinatorStore,
    request_id: str,
    models: Collection[str],
    late: bool,
) -> dict[str, str]:
    """Return which models of a campaign have to wait for older ones, with the reason.

    Args:
        store: requests and tasks.
        request_id: the campaign's request.
        models: what the campaign would dampen now.
        late: whether some of them are new to it.  They may be new to campaigns that are complete,
            too, which will be open again for them.
    """
    states = {CampaignState.RUNNING, *([CampaignState.COMPLETE] if late else [])}
    waiting: dict[str, str] = {}
    for campaign in _older(store, request_id, states) if models else ():
        reason = f"waits for {campaign.request_id}, which is older and reaches it first"
        for model in _ahead(store, campaign.request_id):
            waiting.setdefault(model, reason)
    return {model: waiting[model] for model in models if model in waiting}


def not_held_back(
    store: CoordinatorStore, lease: Lease, tasks: Sequence[Task], *, late: bool
) -> set[str]:
    """Return the models that no older campaign has to reach first; note why others wait.

    Args:
        store: requests and tasks.
        lease: the right to drive the campaign.
        tasks: what the campaign would do now.
        late: whether some of them are new to it.

    Raises:
        StoreError: if the lease was lost.
    """
    models = [task.model_id for task in tasks]
    reasons = held_back(store, lease.request_id, models, late)
    waiting = [
        replace(task, state=TaskState.PENDING, reason=reasons[task.model_id])
        for task in tasks
        if task.model_id in reasons
    ]
    new = [task for task in waiting if task not in tasks]
    store.update_all(lease.request_id, new, lease=lease)
    return set(models) - reasons.keys()


def _older(
    store: CoordinatorStore, request_id: str, states: Collection[CampaignState]
) -> Iterator[Campaign]:
    for campaign in store.campaigns(states, also=[request_id]):
        if campaign.request_id == request_id:
            return
        yield campaign


def _ahead(store: CoordinatorStore, request_id: str) -> Iterator[str]:
    """Yield the models that a campaign is still going to reach, as the graph is now."""
    tasks = store.tasks(request_id)
    try:
        request = store.request(request_id)
        graph = store.descendants(root.model_id for root in request.roots)
        planned = plan(graph, request, cleansed(tasks.values()), tasked=tasks)
    except InputError:  # it cannot go on, and must not hold up the others
        return
    for model in (model for group in planned.groups for model in group.models):
        task = tasks.get(model)
        passed = (TaskState.FAILED, TaskState.UNAPPROVED)
        if task is None or not (task.state.answered or task.state in passed):
            yield model
