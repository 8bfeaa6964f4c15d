"""New weights of a dampened model, in memory or in files, and its network, loaded when needed."""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Self

from torch import Tensor, nn

from disinherit.client.dampening.known_heads import outlined_network
from disinherit.client.dampening.problem import DampeningProblem
from disinherit.client.owner.owner import Owner, load_network
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.identity import manifest_digest
from disinherit.common.tensors.shards import ShardWriter
from disinherit.common.tensors.stored import (
    StoredTensors,
    bytes_of,
    kinds_of,
    manifest_of,
    verify,
)

IN_MEMORY = 64 << 20
"""Bytes of weights that are held while they are dampened; those of larger models are in files."""


class LoadedOnce:
    """The network of a model, loaded when its weights are first needed.

    Args:
        owner: the owner of the model.
        record: the model.
        weights: its weights.

    Attributes:
        outline: its module, with any weights.
    """

    def __init__(self, owner: Owner, record: ModelRecord, weights: Mapping[str, Tensor]) -> None:
        self._load = partial(load_network, owner, record, weights)
        self._weights = weights
        self.outline, self._is_loaded = outlined_network(owner, record, weights)

    @cached_property
    def network(self) -> nn.Module:
        """The module with the weights."""
        network = self.outline if self._is_loaded else self._load()
        self._is_loaded = True
        return network

    def verify(self) -> None:
        """Verify all weights, unless they were when they were loaded.

        Raises:
            CheckpointError: if a tensor is damaged.
        """
        if not self._is_loaded:
            verify(self._weights)


class NewWeights:
    """The new weights of a model: in memory, or those of a large one in files.

    Args:
        owner: the owner of the model.
        record: the model.
        stored: its weights.
        problem: what may change.

    Attributes:
        staged: where they are written; `None` where they are in memory.  It is closed after an
            error, else by whoever takes them.
    """

    def __init__(
        self,
        owner: Owner,
        record: ModelRecord,
        stored: Mapping[str, Tensor],
        problem: DampeningProblem,
    ) -> None:
        self._stored, self._problem = stored, problem
        self._new: dict[str, Tensor] = {}
        self.staged: ShardWriter | None = None
        if sum(bytes_of(stored).values()) > IN_MEMORY:
            self.staged = owner.store.stage(kinds_of(stored), record.id)
            own = {alias for name in problem.names for alias in problem.aliases[name]}
            for name in self.staged.names:
                if name not in own:
                    self.staged.keep(name, stored)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.staged is not None:
            self.staged.close()

    def write(self, name: str, value: Tensor) -> None:
        """Take the new value of a parameter."""
        if self.staged is None:
            self._new[name] = value
            return
        for alias in self._problem.aliases[name]:
            self.staged.write(alias, value.cpu())

    def in_scope(self) -> dict[str, Tensor]:
        """Return the new values of all parameters in scope."""
        if self.staged is None:
            return self._new
        written = self.staged.opened()
        return {name: written[name] for name in self._problem.names}

    def weights(self) -> Mapping[str, Tensor]:
        """Return all new weights, on the CPU."""
        if self.staged is not None:
            return self.staged.opened()
        return dict(self._stored) | self._problem.under_all_names(self._new)

    def before(self) -> Mapping[str, Tensor]:
        """Return the weights where nothing was selected."""
        return dict(self._stored) if self.staged is None else self.staged.opened()

    def changed(self) -> bool | None:
        """Return whether any value changed; `None` where they are to be compared."""
        if self.staged is None:
            return None
        return self.staged.digest != manifest_digest(manifest_of(self._stored))


def copy_of(weights: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a tensor that may be changed: stored ones are read anew each time."""
    return weights[name] if isinstance(weights, StoredTensors) else weights[name].clone()
