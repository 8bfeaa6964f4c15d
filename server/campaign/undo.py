"""One pass over a campaign that is rolled back: ask owners to put back what it superseded.

Every answer is stored as it arrives.  Owners that cannot be reached are asked again by the next
pass; one that refuses is not, and its model stays as it is, with the reason.
"""

from disinherit.server.campaign.collect import Say
from disinherit.server.campaign.version_rounds import DESTROY, ROLL_BACK, ask_about
from disinherit.server.states import TaskState
from disinherit.server.store.leases import Lease
from disinherit.server.store.retention import DestroyedModel
from disinherit.server.store.rollbacks import TakenBack
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.base import Transport


def roll_back(
    store: CoordinatorStore, lease: Lease, transport: Transport, timeout: float, say: Say
) -> tuple[str, ...]:
    """Ask the owners of models that are to be put back, and return those that were.

    Args:
        store: graph, requests and tasks.
        lease: the right to drive the campaign.
        transport: the way to the owners.
        timeout: seconds to wait for an owner's answer.
        say: told what is happening.

    Raises:
        StoreError: if the lease was lost.
    """
    tasks = store.tasks(lease.request_id)
    models = [model for model, task in tasks.items() if task.state is TaskState.ROLLING_BACK]
    say("putting back what was superseded, all owners at once")
    done: list[str] = []
    for answers in ask_about(store, lease.request_id, models, ROLL_BACK, transport, timeout, say):
        found = [
            TakenBack(one.model_id, "" if one.refusal else one.digest, one.refusal)
            for one in answers
        ]
        store.record_roll_back(lease.request_id, found, lease=lease)
        done += [one.model_id for one in found if not one.refusal]
    return tuple(done)


def destroy_due(
    store: CoordinatorStore, lease: Lease, transport: Transport, timeout: float, say: Say
) -> None:
    """Ask the owners of versions whose windows have passed to destroy them.

    Args:
        store: graph, requests and tasks.
        lease: the right to drive the campaign.
        transport: the way to the owners.
        timeout: seconds to wait for an owner's answer.
        say: told what is happening.

    Raises:
        StoreError: if the lease was lost.
    """
    due = store.due_destructions(lease.request_id).get(lease.request_id, [])
    if not due:
        return
    say("the retention window has passed: destroying what was superseded")
    for answers in ask_about(store, lease.request_id, due, DESTROY, transport, timeout, say):
        found = [
            DestroyedModel(one.model_id, refusal=one.refusal)
            if one.refusal
            else DestroyedModel(one.model_id, one.digest, one.held_by)
            for one in answers
        ]
        store.record_destruction(lease.request_id, found, lease=lease)
