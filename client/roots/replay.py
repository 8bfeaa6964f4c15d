"""Replay: the owner trains this one model again, exactly, without the samples to forget.

Nothing else of the root's past changes: it starts from what its training started from, unmodified,
so that the changes of several roots add up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from disinherit.client.owner.owner import ResolvesSamples, Retrains
from disinherit.client.privacy.remaining import cleared_samples
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.common.errors import CheckpointError, DataError
from disinherit.common.graph.records import ModelRecord


@dataclass(frozen=True, slots=True)
class Replay:
    """Exact retraining of the root by its owner."""

    name: str = "replay"

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
        for entry in owner.store.made_by(record.id):
            if entry.forgotten is None or not entry.forgotten.samples:
                return (
                    f"Request {entry.request_id!r} made model {record.id!r} forget what is not "
                    "single samples of its own, which a replay would bring back."
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
        without: set[str] | None = None
        if problem.samples is not None:
            without = {*problem.samples, *cleared_samples(owner, record)}
            if isinstance(owner, ResolvesSamples) and without.issuperset(owner.sample_ids(record)):
                without = None
        given = owner.retrain(record, None if without is None else sorted(without))
        weights = checked(record, problem.weights, given)
        note = "trained again exactly" if without is not None else "put back to its start"
        return UnlearnedRoot(weights, exact=True, note=note)


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
        new = given[name].detach().cpu()
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
