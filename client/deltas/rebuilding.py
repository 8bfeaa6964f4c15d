"""Versions that were computed from parents without training, computed again after a request.

A recipe is believed only if it makes the version, bit for bit, of its parents as they were.  Then
the same computation with their new versions is what it would have been without the forgotten data.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from disinherit.client.dampening.unlearned_model import UnlearnedModel
from disinherit.client.owner.owner import Owner
from disinherit.common.errors import DisinheritError
from disinherit.common.graph.recipes import Recipe, as_recipe
from disinherit.common.graph.records import ModelRecord
from disinherit.common.recipes.computing import Parent, compute
from disinherit.common.tensors.stored import kinds_of
from disinherit.v1 import unlearning_pb2 as pb

_log = logging.getLogger(__name__)

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
        now, the request was applied to all that it affects, and the recipe makes the version; or if
        a parent leaves that is not one of an average.
    """
    staying = [parent for parent in rebuilding.parents if not parent.leaves]
    if not staying or any(parent.model_id == record.id for parent in rebuilding.parents):
        return None
    store, share = owner.store, 1.0  # not divided by: the same factors as before
    try:
        recipe = as_recipe(rebuilding.recipe)
        if len(staying) < len(rebuilding.parents):
            if recipe != Recipe.AVERAGE:
                return None
            share = math.fsum(parent.weight for parent in staying)
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
        again = _computed(owner, recipe, before, rebuilding.parents, 1.0, weights)
        if not all(torch.equal(again[name], value) for name, value in weights.items()):
            return None
        del again
        return Rebuilt(_computed(owner, recipe, after, staying, share, weights), exact)
    except DisinheritError as error:
        # A parent is another owner's, its weights are gone, or the recipe is not known here.
        _log.info("model %s is not computed again from its parents: %s", record.id, error)
        return None


def recompute(
    owner: Owner, record: ModelRecord, request_id: str, rebuilding: pb.Rebuilding
) -> UnlearnedModel | None:
    """Compute a version again from what a request for classes made of its parents.

    These are dampened, so no data is needed and nothing of it is exact.  Nothing is stored.  What
    its computation does to rows that were taken out of the parents' heads only a measurement shows.

    Args:
        owner: the owner of the version.
        record: the version.
        request_id: the request.
        rebuilding: how it was computed.

    Returns:
        The version, or `None` as in `rebuild`.

    Raises:
        StoreError: if its weights are gone.
        CheckpointError: if they are damaged.
    """
    started = time.perf_counter()
    with owner.store.opened(record.id) as weights:
        made = rebuild(owner, record, weights, request_id, rebuilding)
        if made is None:
            return None
        result = pb.ModelResult(
            model_id=record.id,
            outcome=pb.OUTCOME_APPLIED,
            remedy=pb.REMEDY_SUPPRESSED,
            scale=1.0,
        )
        report_changes(result, count_changes(weights, made.weights), weights)
    result.apply_seconds = time.perf_counter() - started
    return UnlearnedModel(result, made.weights, None, keeps_summary=True)


def count_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, int]:
    """Return name -> number of values that changed.

    Args:
        before: name -> values.
        after: the same names, with values of the same shapes.
    """
    return {name: int((after[name] != old).sum()) for name, old in before.items()}


def report_changes(
    result: pb.ModelResult, counts: Mapping[str, int], weights: Mapping[str, Tensor]
) -> None:
    """Report how many values of each tensor changed.

    Args:
        result: of the model.
        counts: name -> number of values that changed.
        weights: the model's weights, of which only shapes matter.
    """
    kinds = kinds_of(weights)
    result.selections.extend(
        pb.Selection(parameter=name, rows=[count], total=math.prod(kinds[name][1]))
        for name, count in counts.items()
        if count
    )


def _computed(
    owner: Owner,
    recipe: Recipe,
    versions: Mapping[str, ModelRecord],
    parents: Sequence[pb.RebuildingParent],
    share: float,
    like: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Compute a version of versions of its parents, with weights that are parts of a share."""
    given = [
        Parent(partial(owner.store.weights, versions[parent.model_id].id), parent.weight / share)
        for parent in parents
    ]
    return compute(recipe, given, like)
