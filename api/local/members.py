"""Models of a network in one process, and the owner that answers for all of them."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from disinherit.client.dampening.known_heads import seen_structure
from disinherit.client.dampening.summaries import class_fishers
from disinherit.client.owner.owner import Batches, load_network
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DisinheritError, InputError, ScopeError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.inputs import Inputs
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope
from disinherit.common.text import one_line
from disinherit.local.arguments import shown
from disinherit.local.loaders import SomeSamples, all_sample_ids

Retrain = Callable[[Iterable[tuple[Inputs, Tensor]] | None], Mapping[str, Tensor]]
"""Trains a model again on some of its data, or on none (`Network.add`)."""


@dataclass(slots=True, eq=False)
class Member:
    """A model that was added to a network.

    Attributes:
        module: the user's own.
        loader: what it was trained on directly.
        evaluate: held-out data, if any.
        tune: other held-out data to choose strengths by, if any.
        retrain: trains it again, if that can be done.
        trained: class name -> training samples.
        held_out: `evaluation` and `tuning` -> number of classes with samples there.
        record: its version as it is now.
    """

    module: nn.Module
    loader: Iterable[object]
    evaluate: Iterable[object] | None
    tune: Iterable[object] | None
    retrain: Retrain | None
    trained: dict[str, int]
    held_out: dict[str, int]
    record: ModelRecord

    def retain_source(self, forgotten: int) -> str | None:
        """Return on which held-out data all but some classes are measured; `None` for none.

        Args:
            forgotten: number of classes to forget, at most.
        """
        for source, classes in self.held_out.items():
            return source if classes > forgotten else None
        return None


class LoaderOwner:
    """The owner of all models of a network.

    Args:
        store: keeps the versions.
        members: name -> model.

    Attributes:
        device: where to compute.
    """

    def __init__(self, store: ModelStore, members: dict[str, Member]) -> None:
        self.store = store
        self.device = torch.device("cpu")
        self._members = members

    def register(
        self, record: ModelRecord, model: nn.Module, inputs: Inputs, scope: str
    ) -> ModelRecord:
        """Compute and keep the Fisher information of a model.

        Args:
            record: the model's version.
            model: the module.
            inputs: the inputs of a batch.
            scope: scope of the Fisher information.

        Returns:
            The stored record.

        Raises:
            LabelError: if there are more or fewer labels than logits.
            FisherError: if a batch is no pair, or the model does not return logits.
            ScopeError: if the model has no parameters in scope.
        """
        weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        network = load_network(self, record, weights)
        structure = seen_structure(record, network, inputs)
        if is_head_scope(scope) and structure.head is None:
            raise ScopeError(structure.reason)
        names = resolve_scope(network, scope, structure.head)
        fishers = class_fishers(self, record, network, names, self.training_data(record))
        record = self.store.add(record, weights, fishers, scope)
        self.store.set_structure(record.id, structure)
        return record

    def network(self, record: ModelRecord) -> nn.Module:
        """Return a copy of the model's module; its weights are overwritten.

        Raises:
            InputError: if it cannot be copied.
        """
        try:
            return copy.deepcopy(self._member(record).module)
        except Exception as error:
            raise InputError(
                f"Expected a module that copy.deepcopy can copy as model {record.id!r}, but got "
                f"{type(error).__name__}: {one_line(str(error))}"
            ) from error

    def training_data(self, record: ModelRecord) -> Batches:
        """Return what the model was trained on directly."""
        return cast("Batches", self._member(record).loader)

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return held-out data to choose strengths by."""
        return cast("Batches | None", self._member(record).tune)

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return held-out data to measure by."""
        return cast("Batches | None", self._member(record).evaluate)

    def sample_ids(self, record: ModelRecord) -> list[str]:
        """Return the ids of all training samples: digests of their values."""
        return all_sample_ids(self.training_data(record))

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        """Return some training samples, and all others."""
        batches, ids = self.training_data(record), frozenset(samples)
        return SomeSamples(batches, ids, among=True), SomeSamples(batches, ids, among=False)

    def can_retrain(self, record: ModelRecord) -> bool:
        """Return whether the model was added with a way to train it again."""
        return self._member(record).retrain is not None

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> Mapping[str, Tensor]:
        """Return the weights of the model trained again without some samples.

        Raises:
            InputError: if the training fails, or returns something other than weights.
        """
        retrain = self._member(record).retrain
        assert retrain is not None
        kept = None
        if without is not None:
            kept = SomeSamples(self.training_data(record), frozenset(without), among=False)
        try:
            weights = cast("object", retrain(kept))
        except DisinheritError:
            raise
        except Exception as error:
            raise InputError(
                f"Expected retrain of model {record.id!r} to train it again, but got "
                f"{type(error).__name__}: {one_line(str(error))}"
            ) from error
        if not isinstance(weights, Mapping):
            raise InputError(
                f"Expected retrain of model {record.id!r} to return a state_dict, but got "
                f"{shown(weights)}."
            )
        return weights

    def _member(self, record: ModelRecord) -> Member:
        return self._members[record.id.partition("~")[0]]
