"""Versions that were computed from parents without training, computed again after a request.

A recipe is believed only if it makes the version, bit for bit, of its parents as they were.  Then
the same computation with their new versions is what it would have been without the forgotten data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.client.owner.owner import Owner
from disinherit.common.deltas.averages import average
from disinherit.common.errors import DisinheritError
from disinherit.common.graph.records import ModelRecord
from disinherit.v1 import graph_pb2
from disinherit.v1 import unlearning_pb2 as pb

_EXACT = (pb.REMEDY_REPLAYED, pb.REMEDY_REBUILT)


@dataclass(frozen=True, slots=True, eq=False)
class Rebuilt:
    """A version that was computed again.

    Attributes:
        weights: the complete weights, with the names, order and dtypes of before.
        exact: whether all its parents are exact.
    """

    weights: dict[str, Tensor]
    exact: bool


def rebuild(
    owner: Owner,
    record: ModelRecord,
    weights: Mapping[str, Tensor],
    request_id: str,
    rebuilding: pb.Rebuilding,
) -> Rebuilt | None:
    """Compute a version again from what a request made of its parents.

    Args:
        owner: the owner of the version.
        record: the version.
        weights: its weights.
        request_id: the request.
        rebuilding: how it was computed.

    Returns:
        The new weights.  `None` unless the owner holds all parents as they were and as they are
        now, the request was applied to all that it affects, and the recipe makes the version.
    """
    if rebuilding.recipe != graph_pb2.RECIPE_AVERAGE:  # of a later release
        return None
    staying = [parent for parent in rebuilding.parents if not parent.leaves]
    if not staying or any(parent.model_id == record.id for parent in rebuilding.parents):
        return None
    share = math.fsum(parent.weight for parent in staying)
    if len(staying) == len(rebuilding.parents):
        share = 1.0  # not divided by: the same factors as before
    store = owner.store
    try:
        before = {p.model_id: store.present(p.model_id, request_id) for p in rebuilding.parents}
        after, exact = dict(before), True
        for parent in staying:
            if not parent.affected:
                continue
            old = before[parent.model_id]
            entry = store.applied(request_id, old.digest, old.id)
            if entry is None:
                return None
            exact = exact and pb.ModelResult.FromString(entry.result).remedy in _EXACT
            after[parent.model_id] = store.record(entry.successor_id)
        again = average(
            (store.weights(before[p.model_id].id), p.weight) for p in rebuilding.parents
        )
        if not _makes(again, weights):
            return None
        del again
        new = average((store.weights(after[p.model_id].id), p.weight / share) for p in staying)
    except DisinheritError:  # a parent is another owner's, or its weights are gone
        return None
    return Rebuilt({name: new[name].to(old.dtype) for name, old in weights.items()}, exact)


def _makes(made: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Whether a computation made these weights; integers may have been rounded towards zero."""
    return made.keys() == weights.keys() and all(
        torch.equal(made[name].to(value.dtype), value) for name, value in weights.items()
    )
