"""Plans of requests that are not submitted yet."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from disinherit.common.errors import RequestError
from disinherit.common.limits import shown
from disinherit.common.wire.received import received_request
from disinherit.server.planning.previews import PlannedModel, Preview
from disinherit.server.service.packing import (
    MOST_NOTES,
    note_to_proto,
    planned_to_proto,
    some_notes,
)
from disinherit.server.service.paging import fitting, page_size
from disinherit.server.store.presence import find_presence
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1.unlearning_pb2 import UnlearningRequest

if TYPE_CHECKING:
    from disinherit.server.campaign.coordinator import Coordinator


class Plans:
    """Handlers of calls about what a submission would do.

    Args:
        coordinator: plans requests.
    """

    def __init__(self, coordinator: "Coordinator") -> None:
        self._coordinator = coordinator
        self._store = coordinator.store

    def plan(self, request: UnlearningRequest, size: int, token: str) -> pb.PlanRequestResponse:
        """Return a page of what a submission would do; nothing is stored.

        Args:
            request: the request.
            size: page size; 0 for the default.
            token: the last version of the page before; `""` for the first page, which also has the
                notes and the summary.

        Raises:
            InputError: if the request would be refused, or the token is invalid.
        """
        found = self._coordinator.preview(received_request(request), notes=not token)
        start = _place(found.models, token) + 1 if token else 0
        some = found.models[start : start + page_size(size)]
        with self._store.reading() as db:
            owners = {one.owner for one in (some if token else found.models)}
            present = find_presence(db, owners)
        models = [planned_to_proto(one, present.get(one.owner), found) for one in some]
        models = models[: fitting(models)]
        more = start + len(models) < len(found.models)
        answer = pb.PlanRequestResponse(
            models=models, next_page_token=models[-1].model_id if more else ""
        )
        if not token:
            online = {owner for owner, presence in present.items() if presence.online}
            answer.notes.extend(some_notes(found.notes))
            remarks = sorted(found.remarks, key=lambda note: not note.warning)
            answer.details.extend(note_to_proto(note) for note in remarks[:MOST_NOTES])
            answer.summary.CopyFrom(_summary(found, owners, online))
        return answer


def _place(models: Sequence[PlannedModel], token: str) -> int:
    for place, model in enumerate(models):
        if model.model_id == token:
            return place
    raise RequestError(f"Expected the page token of an earlier answer, but got {shown(token)}.")


def _summary(found: Preview, owners: set[str], online: set[str]) -> pb.PlanSummary:
    return pb.PlanSummary(
        states=Counter(model.state.value for model in found.models),
        owners=len(owners),
        owners_online=len(online),
        bytes_from_roots=found.bytes_from_roots,
        bytes_to_owners=found.bytes_to_owners,
        missing_summaries=found.missing_summaries,
    )
