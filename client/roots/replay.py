"""Replay: the owner trains this one model again, exactly, without the samples to forget.

Nothing else of the root's past changes: it starts from what its training started from, unmodified,
so that the changes of several roots add up.

A successor may have changed in other ways, too: what it inherited, or a class, was taken out of it,
and a replay from the start, or the start itself, would bring that back.  So, unless it is a replay
itself, it gets the difference between two replays, with and without the samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.client.owner.owner import ResolvesSamples, Retrains
from disinherit.client.privacy.remaining import cleared_samples
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.common.errors import CheckpointError, DataError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import REPLAY


@dataclass(frozen=True, slots=True)
class Replay:
    """Exact retraining of the root by its owner."""

    name: str = REPLAY

    def refusal(self, problem: RootProblem) -> str:
        """Refuse owners that cannot retrain, data that is gone, and scopes with a part only."""
        owner, record = problem.owner, problem.record
        if not isinstance(owner, Retrains):
            return (
                f"{owner.store.owner} cannot train model {record.id!r} again: give its owner "
                "`can_retrain` and `retrain`."
            )
        if not owner.can_retrain(record):
            return f"What model {record.id!r} was trained from is not kept."
        if problem.samples is not None and problem.retain is None:
            return f"The training data of model {record.id!r} is gone."
        left_out = {name for name, _ in owner.network(record).named_parameters()}
        left_out -= set(problem.names)
        if left_out:
            return (
                f"Replay changes all layers of model {record.id!r}, but {min(left_out)} is not in "
                f"scope {problem.method.scope!r}: ask with --scope all."
            )
        return ""

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        """Return the weights of the replay, checked.

        Raises:
            CheckpointError: if the owner returns other names, shapes or types.
            DataError: if they are not finite.
        """
        owner, record = problem.owner, problem.record
        assert isinstance(owner, Retrains)
        everything = problem.samples is None
        earlier = set(cleared_samples(owner, record))
        without = None if problem.samples is None else {*problem.samples, *earlier}
        weights = _replayed(problem, owner, without)
        note = "put back to its start" if everything else "trained again exactly"
        made = owner.store.made_by(record.id)
        if everything and not made:  # its data may be gone, and its start is known without
            return UnlearnedRoot(weights, exact=True, note=note)
        # What training gives can be believed only if it gives the model as it is, bit for bit.
        if everything and not earlier and not owner.store.destroyed(made[-1].model_id):
            before = owner.store.weights(made[-1].model_id)
        else:
            before = _replayed(problem, owner, earlier)
        if all(torch.equal(value, before[name]) for name, value in problem.weights.items()):
            return UnlearnedRoot(weights, exact=True, note=note)
        if not made:
            return UnlearnedRoot(
                weights, note="trained again, which does not give the model itself"
            )
        for name, value in problem.weights.items():
            if value.is_floating_point():
                weights[name] = value + (weights[name] - before[name])
        return UnlearnedRoot(weights, note=f"{note}, as a change of a successor")


def _replayed(problem: RootProblem, owner: Retrains, without: set[str] | None) -> dict[str, Tensor]:
    """Return the checked weights of a replay without some samples; `None` for all."""
    record = problem.record
    if (
        without is not None
        and isinstance(owner, ResolvesSamples)
        and without.issuperset(owner.sample_ids(record))
    ):
        without = None
    given = owner.retrain(record, None if without is None else sorted(without))
    return checked(record, problem.weights, given)


def checked(
    record: ModelRecord, known: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return weights that an owner's retraining gave, in the order of the model's.

    Args:
        record: the model.
        known: its weights.
        given: those of the retraining.

    Raises:
        CheckpointError: if there are other names, shapes or types.
        DataError: if a value is not finite.
    """
    what = f"Expected the retraining of model {record.id!r} to return"
    if odd := sorted(known.keys() ^ given.keys()):
        missing = "lacks" if odd[0] in known else "has"
        raise CheckpointError(
            f"{what} tensors with the names of the model, but it {missing} {odd[0]!r}. Let "
            "`retrain` return a state_dict of the same network."
        )
    weights = {}
    for name, old in known.items():
        new = given[name].detach().cpu().clone()  # the owner may train its network again
        if new.shape != old.shape or new.dtype != old.dtype:
            raise CheckpointError(
                f"{what} {name!r} as {old.dtype} of shape {list(old.shape)}, but got {new.dtype} "
                f"of shape {list(new.shape)}. Let `retrain` return a state_dict of the same "
                "network."
            )
        if new.is_floating_point() and not bool(new.isfinite().all()):
            raise DataError(
                f"{what} finite weights, but {name!r} has others: the training diverged without "
                "these samples. Choose another root method."
            )
        weights[name] = new
    return weights


def start_of(problem: RootProblem) -> dict[str, Tensor] | None:
    """Return the weights that a root's training started from; `None` if they are not known.

    Args:
        problem: the root.
    """
    owner, record = problem.owner, problem.record
    if not isinstance(owner, Retrains) or not owner.can_retrain(record):
        return None
    return checked(record, problem.weights, owner.retrain(record, None))
