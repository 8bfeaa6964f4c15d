"""Messages to owners: what each of their models is to be unlearned with."""

from collections.abc import Collection
from typing import Any

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.server.campaign.dry_pass import Collected, DryPass
from disinherit.server.planning.plan import Group
from disinherit.server.planning.recipes import Computed
from disinherit.server.store.audit_events import request_digest
from disinherit.v1 import unlearning_pb2 as pb

_WANTED = {False: "Fisher information", True: "change"}

_OTHER_WAYS = (
    "If that stays so, let its owner train such roots again (`retrain`), or ask with --mechanism "
    "fisher."
)


class Messages:
    """Messages of one request, one for each owner.

    Args:
        messages: owner -> its message; filled here.
        graph: the descendants of the roots.
        request: the request.
        created_us: creation time of the successors.
    """

    def __init__(
        self,
        messages: dict[str, pb.UnlearnTask],
        graph: InheritanceGraph,
        request: pb.UnlearningRequest,
        created_us: int,
    ) -> None:
        self._messages = messages
        self._graph = graph
        self._request = request
        self._created_us = created_us
        self._digest = request_digest(request)
        self._roots = {root.model_id: root for root in request.roots}
        # Not shared by digest, which does not cover the names of classes.  The packets are kept, so
        # that no other one gets the same id.
        self._places: dict[tuple[str, int], tuple[int, pb.FisherPacket]] = {}

    def place(self, packet: pb.FisherPacket, owner: str) -> int:
        """Return the index of a packet in the message of an owner; it is added once."""
        key = owner, id(packet)
        if key not in self._places:
            message = self._message(owner)
            self._places[key] = len(message.fishers), packet
            message.fishers.append(packet)
        return self._places[key][0]

    def add(self, model: ModelRecord, **described: Any) -> None:
        """Add a model to the message of its owner.

        Args:
            model: the version to unlearn.
            **described: fields of its `ModelTask` about packets.
        """
        root = self._roots.get(standing_for(self._graph, model.id, self._roots), pb.Root())
        self._message(model.owner).models.append(
            pb.ModelTask(
                model_id=model.id,
                digest=model.digest,
                samples=root.samples,
                sample_salt=root.sample_salt,
                ignore_unknown=root.ignore_unknown,
                created_us=_made_us(self._graph, model.id),
                **described,
            )
        )

    def _message(self, owner: str) -> pb.UnlearnTask:
        if owner not in self._messages:
            request, bounded = self._request, self._request.roll_out.HasField("max_retain_drop")
            self._messages[owner] = pb.UnlearnTask(
                request_id=request.id,
                method=request.method,
                created_us=self._created_us,
                measure_retain=bounded,
                max_retain_drop=request.roll_out.max_retain_drop if bounded else None,
                request_digest=self._digest,
                roots=[
                    root
                    for root in request.roots
                    if root.samples and self._graph.model(root.model_id).owner == owner
                ],
            )
        return self._messages[owner]


def leave_out(
    one: DryPass, collected: Collected, group: Group, spared: Collection[str] = ()
) -> bool:
    """Leave out a group if a root of it has not answered, and return whether it was left out.

    Args:
        one: gets the reason for each model.
        collected: the answers.
        group: the group.
        spared: models that can do without.
    """
    graph, prepared = one.graph, one.prepared
    missing = [root for root in group.roots if root in collected.errors]
    if not missing:
        return False
    later = collected.unreachable.issuperset(missing)
    for model in (graph.model(id) for id in group.models if id not in spared):
        reasons = "; ".join(
            f"{root}: {collected.reason(graph.model(root), model.owner, _reasons_in(one, root))}"
            for root in missing
        )
        reason = f"no {_WANTED[one.inherits_delta]} from upstream root {reasons}"
        if one.inherits_delta and not later:
            reason = f"{reason.rstrip('.')}. {_OTHER_WAYS}"
        (prepared.waiting if later else prepared.failed)[model.id] = reason
    return True


def rebuilding_of(computed: Computed, collected: Collected) -> pb.Rebuilding:
    """Return how a version is computed again, as its owner gets it.

    Args:
        computed: how.
        collected: the answers of the roots, which say whether it can be exact.
    """
    needs, known = computed.needs, collected.alone | collected.deltas
    return pb.Rebuilding(
        recipe=str(computed.recipe),
        parents=[
            pb.RebuildingParent(
                model_id=part.model, weight=part.weight, affected=part.affected, leaves=part.leaves
            )
            for part in computed.ingredients
        ],
        exact=needs is not None
        and all(root in known and known[root].delta.exact for root in needs),
        start=computed.start,
        kept=computed.kept,
    )


def _reasons_in(one: DryPass, root: str) -> str:
    """Return where to read why a root has not answered: a client's roots have own reasons."""
    return "the coordinator's log" if one.request.client else f"the coverage of {root}"


def _made_us(graph: InheritanceGraph, model: str) -> int:
    """Return when a model's present successor was made, to be made again; 0 without one.

    Models with a successor of another request are not unlearned.
    """
    made = map(graph.model, graph.successors(model))
    return next((one.created_us for one in made if one.status is not ModelStatus.RETIRED), 0)


def standing_for(graph: InheritanceGraph, model: str, roots: Collection[str]) -> str:
    """Return the root that a version is a successor of; else the first version of its line."""
    line = (model, *graph.origins(model))
    return next((version for version in line if version in roots), line[-1])
