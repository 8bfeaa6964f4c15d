"""What is left of a root's update in a model, where its owner has what it takes to measure it."""

from collections.abc import Mapping

from torch import Tensor

from disinherit.client.owner.owner import Owner, Retrains
from disinherit.common.deltas.changes import left_in
from disinherit.common.errors import DisinheritError, FisherError


def left_of_update(owner: Owner, root: str, weights: Mapping[str, Tensor]) -> float | None:
    """Return how much of a root's update is left in a model; `None` if that cannot be told.

    With weights θ_m of the model, θ_r of the root, and θ_p that the root's training started from,
    it is ⟨θ_m - θ_p, θ_r - θ_p⟩ / ‖θ_r - θ_p‖².

    Args:
        owner: the owner of the model.
        root: id of the root.
        weights: those of the model.

    Returns:
        1 for the root itself, about 1 for what was fine-tuned from it, about its share for an
        average, and about 0 for a model that has nothing of it.  `None` unless the owner holds the
        root and knows what its training started from.
    """
    if not isinstance(owner, Retrains):
        return None
    try:
        record = owner.store.record(root)
        if not owner.can_retrain(record):
            return None
        start = owner.retrain(record, None)
        return left_in(weights, start, owner.store.weights(root), start)
    except FisherError:  # it has no tensor of the root's
        return 0.0
    except DisinheritError:  # the root is another owner's, or its weights are gone
        return None
