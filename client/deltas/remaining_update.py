"""What is left of a root's update in a model, where its owner has what it takes to measure it."""

from collections.abc import Mapping

from torch import Tensor

from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.common.deltas.changes import left_in
from disinherit.common.errors import FisherError


def left_of_update(inputs: TaskInputs, root: str, weights: Mapping[str, Tensor]) -> float | str:
    """Return how much of a root's update is left in a model, or why that cannot be told.

    With weights θ_m of the model, θ_r of the root, and θ_p that the root's training started from,
    it is ⟨θ_m - θ_p, θ_r - θ_p⟩ / ‖θ_r - θ_p‖².

    Args:
        inputs: inputs from the request's message.
        root: id of the root.
        weights: those of the model.

    Returns:
        1 for the root itself, about 1 for what was fine-tuned from it, about its share for an
        average, and about 0 for a model that has nothing of it.  A clause unless the owner holds
        the root and knows what its training started from.
    """
    update = inputs.update(root)
    if isinstance(update, str):
        return update
    try:
        return left_in(weights, update.start, update.weights, update.start)
    except FisherError:  # it has no tensor of the root's
        return 0.0
