"""The interface of an owner: store, networks, data and device."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from disinherit.client.owner.failures import one_line
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CheckpointError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import Inputs

Batches = Iterable[tuple[Inputs, Tensor]]
"""Batches of inputs and class indices `[n]`; iterating again starts again.

The inputs are one tensor `[n, ...]`, or a tuple of several, in the order of the model's arguments.
"""


class Owner(Protocol):
    """An owner of models: its store, its networks and its data, all of which stay with it."""

    @property
    def store(self) -> ModelStore:
        """The owner's models, Fisher summaries and ledger."""
        ...

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        ...

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a module of the model's architecture; its weights are overwritten."""
        ...

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return exactly the data the model was trained on directly; `None` if it is gone."""
        ...

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return data for tuning, disjoint from training and evaluation; `None` without any."""
        ...

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return data that neither training, Fisher nor tuning has seen; `None` without any."""
        ...


@runtime_checkable
class ResolvesSamples(Owner, Protocol):
    """An owner that knows its training samples by id: what it takes to forget single samples.

    Ids stay here: a request names samples by salted digests (`disinherit.client.privacy.samples`).
    """

    def sample_ids(self, record: ModelRecord) -> Iterable[str]:
        """Return the ids of all samples that the model was trained on directly; none if gone."""
        ...

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        """Return the model's direct training data in two parts: some samples, and all others.

        Args:
            record: the model.
            samples: ids among its `sample_ids`.

        Raises:
            DataError: if the data is gone.
        """
        ...


def load_network(owner: Owner, record: ModelRecord, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a model's network with given weights, in eval mode on the owner's device.

    Args:
        owner: the owner of the model.
        record: the model.
        weights: its weights, or what is to become of them.

    Raises:
        CheckpointError: if the owner's network has other names or shapes.
    """
    network = owner.network(record)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"Expected a network with the names and shapes of model {record.id!r}, but the owner's "
            f"{type(network).__name__} is another",
            said=one_line(error),
        ) from error
    return network.to(owner.device).eval()
