"""Late descendants: versions that come to be affected after a campaign has ended."""

import logging
import threading
from collections.abc import Hashable

from disinherit.common.errors import InputError
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.states import CampaignState
from disinherit.server.store.tables import now_us

_LOG = logging.getLogger(__name__)
_DRIVEN = (CampaignState.RUNNING, CampaignState.ROLLING_BACK)
_ENDED = (CampaignState.COMPLETE, CampaignState.PARTIAL)


class OpenCampaigns:
    """The campaigns to drive; one that had ended is among them again when a version joins it.

    Planning anew costs more than looking, so it is done only when the graph has grown.

    Args:
        coordinator: plans requests and knows the store.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._known: int | None = None
        self._turn = threading.Lock()

    def __call__(self) -> dict[str, Hashable]:
        """Return the campaigns that go on or back, or have something to destroy, the oldest first.

        Returns:
            Id -> what the next pass depends on beside the owners; it changes when another
            coordinator of the store has got on with the campaign. None at all while it is not
            confirmed that history was lost.

        Raises:
            StoreError: if the store cannot be used.
        """
        store = self._coordinator.store
        store.watch_history()
        if store.history_lost():
            return {}
        with self._turn:
            grown = store.last_growth(-1 if self._known is None else self._known)
            if grown != self._known:
                for campaign in store.campaigns(_ENDED):
                    self._join(campaign.request_id)
                self._known = grown
        due = store.due_destructions()
        return {
            campaign.request_id: (
                grown,
                store.answered_roots(campaign.request_id),
                0 < campaign.deadline_us <= now_us(),
            )
            for campaign in store.campaigns(_DRIVEN, also=due)
            if campaign.state in _DRIVEN
            or (campaign.request_id in due and not campaign.state.stopped)
        }

    def _join(self, request_id: str) -> None:
        try:
            self._coordinator.submit(self._coordinator.store.request(request_id), notes=False)
        except InputError as error:  # one campaign's trouble must not hold up the others
            _LOG.warning("campaign %s cannot take in late versions: %s", request_id, error)
