"""Replay: the owner trains this one model again, exactly, without the samples to forget.

Nothing else of the root's past changes: it starts from what its training started from, unmodified,
so that the changes of several roots add up.

A successor may have changed in other ways, too: what it inherited, or a class, was taken out of it,
and a replay from the start, or the start itself, would bring that back.  So, unless it is a replay
itself, it gets the difference between two replays, with and without the samples.

A replay takes the place of what another root method changed for the same samples before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.client.dampening.own_changes import change_again
from disinherit.client.owner.owner import Owner, ResolvesSamples, Retrains
from disinherit.client.privacy.own_deltas import own_delta, own_entries
from disinherit.client.privacy.remaining import cleared_samples
from disinherit.client.privacy.samples import known_samples
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.client.store.ledger import LedgerEntry
from disinherit.common.errors import CheckpointError, DataError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import REPLAY
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.samples import SampleDigests
from disinherit.v1.unlearning_pb2 import ModelResult


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
        if approximated := _approximated(problem):
            return _in_their_place(problem, owner, approximated, weights, note)
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


def _approximated(problem: RootProblem) -> list[LedgerEntry]:
    """Return the entries by which the root forgot some of the same samples otherwise before."""
    owner, replaced = problem.owner, _replaced(problem.owner, problem.record)
    found = []
    for entry in own_entries(owner, problem.record, problem.samples):
        own = own_delta(owner, entry)
        if own is not None and own.root_method != REPLAY and entry.request_id not in replaced:
            found.append(entry)
    return found


def _replaced(owner: Owner, record: ModelRecord) -> set[str]:
    """Return the requests in the place of whose changes a replay is already."""
    owns = (own_delta(owner, entry) for entry in owner.store.made_by(record.id))
    return {id for own in owns if own is not None for id in own.replaces}


def _in_their_place(
    problem: RootProblem,
    owner: Retrains,
    approximated: Sequence[LedgerEntry],
    weights: dict[str, Tensor],
    note: str,
) -> UnlearnedRoot:
    """Return the root with a replay in the place of earlier changes that were not.

    Args:
        problem: the root.
        owner: its owner.
        approximated: the entries of these changes.
        weights: of the replay without all that the root has forgotten, or forgets now.
        note: how these were made.

    Raises:
        DataError: if it cannot be known what the entries changed.
    """
    store, record = owner.store, problem.record
    made = store.made_by(record.id)
    origin = store.record(made[-1].model_id)
    replaces = tuple(entry.request_id for entry in approximated)
    gone = {*replaces, *_replaced(owner, record)}
    if all(entry.request_id in gone or _is_replay(owner, entry) for entry in made):
        sure = problem.samples is None
        if sure or weights_digest(_replayed(problem, owner, set())) == origin.digest:
            return UnlearnedRoot(weights, True, note=note, replaces=replaces)
    changed = change_again(owner, approximated, ())
    if not changed:
        raise DataError(
            f"Expected the weights of root {record.id!r} before {', '.join(replaces)}, to put a "
            "replay in the place of what that changed, but they are gone. Retire the root, or ask "
            "without a root method."
        )
    others = [entry for entry in made if entry not in approximated]
    left = {id for entry in others for id in _samples(problem, entry)}
    if left or store.destroyed(origin.id):
        before = _replayed(problem, owner, left)
    else:
        before = store.weights(origin.id)
    for name, value in problem.weights.items():
        if value.is_floating_point():
            own = changed[name] if name in changed else torch.zeros_like(value)
            weights[name] = value - own + (weights[name] - before[name])
    note = f"{note}, as a change of a successor, in the place of an earlier one"
    return UnlearnedRoot(weights, note=note, replaces=replaces)


def _is_replay(owner: Owner, entry: LedgerEntry) -> bool:
    """Whether an entry changed nothing in a root but by a replay of its own training."""
    applied = [one for one in ModelResult.FromString(entry.result).deltas if one.applied]
    own = own_delta(owner, entry)
    replays = own is not None and own.root_method == REPLAY and len(applied) == 1
    return replays or entry.digest_before == entry.digest_after


def _samples(problem: RootProblem, entry: LedgerEntry) -> list[str]:
    forgotten = entry.forgotten
    if forgotten is None or not forgotten.samples:
        return []
    listed = [SampleDigests(forgotten.salt, forgotten.samples)]
    return known_samples(problem.owner, problem.record, listed)


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
