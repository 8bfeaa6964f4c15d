"""The end of a campaign's retention windows: have owners destroy what the request superseded.

Every answer is stored as it arrives.  Owners that cannot be reached are asked again by the next
pass, and so is one that could not do it.
"""

from disinherit.server.campaign.collect import Say
from disinherit.server.campaign.version_rounds import DESTROY, ask_about
from disinherit.server.store.leases import Lease
from disinherit.server.store.retention import DestroyedModel
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.base import Transport


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
