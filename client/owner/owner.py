"""The interface of an owner: store, networks, data and device."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from disinherit.client.owner.failures import one_line
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CheckpointError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import Inputs

Batches = Iterable[tuple[Inputs, Tensor]]
"""Batches of inputs and class indices `[n]`; each iteration starts again.

The inputs are one tensor `[n, ...]`, or a tuple of several, in the order of the model's arguments.
"""


class Owner(Protocol):
    """An owner of models: its store, networks and data, which never leave it."""

    @property
    def store(self) -> ModelStore:
        """The owner's models, Fisher summaries and ledger."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of computations."""
        ...

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a module of the model's architecture; its weights are overwritten."""
        ...

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return exactly the data of the model's direct training; `None` if it is gone."""
        ...

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return data for tuning, disjoint from training and evaluation; `None` without any."""
        ...

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return data unseen by training, Fisher and tuning; `None` without any."""
        ...


@runtime_checkable
class ResolvesSamples(Owner, Protocol):
    """An owner with ids of its training samples, as needed to forget single samples.

    Ids never leave it: requests name samples by salted digests (`SampleDigests`).
    """

    def sample_ids(self, record: ModelRecord) -> Iterable[str]:
        """Return the ids of all samples of the model's direct training; empty if they are gone.

        An id is one sample's, in all models of the owner: it tells what two of them share.
        """
        ...

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        """Split the model's direct training data into some samples and all others.

        Args:
            record: the model.
            samples: ids among its `sample_ids`.

        Raises:
            DataError: if the data is gone.
        """
        ...


@runtime_checkable
class KeepsCurvature(Owner, Protocol):
    """An owner that registers the curvature of some of its models with their Fisher summaries.

    With it, samples can be taken out of a root without retained data, and a descendant loses less
    by the changes that it inherits.  It takes memory: for each
    layer with o outputs and d inputs, o² + d² + o d numbers.
    """

    def keeps_curvature(self, record: ModelRecord) -> bool:
        """Return whether to register the model's curvature while its training data is there."""
        ...


@runtime_checkable
class Retrains(Owner, Protocol):
    """An owner that can train one of its models again exactly, from what was recorded.

    With it, a root is replayed without its samples to forget, instead of being approximated.
    """

    def can_retrain(self, record: ModelRecord) -> bool:
        """Return whether start, data, order and seeds of the model's training are still there."""
        ...

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        """Return the weights that the model's own training gives without some of its samples.

        It starts as the training did, with the same data, order and seeds.  Without any sample left
        out, it gives the weights of the model, bit for bit, where the machine allows.

        Args:
            record: the model, or a successor of it by unlearning, whose training is the model's.
            without: ids to leave out, among `sample_ids`; `None` for no direct training at all: the
                weights that the training started from.
        """
        ...


@runtime_checkable
class MakesAgain(Owner, Protocol):
    """An owner whose versions may be made again for a request before it is applied to them.

    That is so where a whole training of several owners is repeated without what is to be forgotten:
    each version gets the weights that it would have had, and no change of a root.
    """

    def made_again(self, record: ModelRecord, request_id: str) -> Mapping[str, Tensor] | None:
        """Return the weights of a version that was made again for a request, else `None`.

        Args:
            record: the version.
            request_id: the request.
        """
        ...


@runtime_checkable
class OutlinesNetworks(Owner, Protocol):
    """An owner that can give a module without weights, for what depends on structure alone.

    With it, a large model is changed without memory for its weights.
    """

    def outline(self, record: ModelRecord) -> nn.Module:
        """Return `network(record)` with parameters that take no memory."""
        ...


def outline_network(owner: Owner, record: ModelRecord) -> nn.Module:
    """Return a module of a model's architecture, of which the weights are of no use."""
    return owner.outline(record) if isinstance(owner, OutlinesNetworks) else owner.network(record)


@runtime_checkable
class LoadsEach(Protocol):
    """A module that loads weights one by one, so that no second copy of them is in memory."""

    def load_each(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights as `load_state_dict` does, each when it is asked for."""
        ...


def load_network(owner: Owner, record: ModelRecord, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a model's network with given weights, in eval mode on the owner's device.

    Args:
        owner: the owner of the model.
        record: the model.
        weights: present or intended weights; those that are not held are read one by one.

    Raises:
        CheckpointError: if the owner's network has other names or shapes.
    """
    network = owner.network(record)
    try:
        if isinstance(weights, dict):
            network.load_state_dict(weights)
        elif isinstance(network, LoadsEach):
            network.load_each(weights)
        elif not _loads_piecewise(network, weights):
            network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise CheckpointError(
            f"Expected a network with the names and shapes of model {record.id!r}, but the owner's "
            f"{type(network).__name__} is another",
            foreign=one_line(error),
        ) from error
    return network.to(owner.device).eval()


def _loads_piecewise(network: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Load weights module by module, where that does the same as all of them at once.

    Returns:
        Whether they are loaded.
    """
    names: dict[str, list[str]] = {}
    for name in weights:
        names.setdefault(name.rpartition(".")[0], []).append(name)
    own = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    own |= {name for name, _ in network.named_buffers(remove_duplicate=False)}
    if own != weights.keys() or own != network.state_dict().keys():
        return False
    if any(_loads_in_its_own_way(module) for module in network.modules()):
        return False
    for module, listed in names.items():
        network.get_submodule(module).load_state_dict(
            {name.rpartition(".")[2]: weights[name] for name in listed}, strict=False
        )
    return True


def _loads_in_its_own_way(module: nn.Module) -> bool:
    """Whether a module has hooks for loading, or methods of its own that see all weights."""
    hooks = module._load_state_dict_pre_hooks, module._load_state_dict_post_hooks
    return any(hooks) or type(module).load_state_dict is not nn.Module.load_state_dict
