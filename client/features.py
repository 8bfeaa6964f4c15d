"""Logits of a model under changed parameters, computing as little as possible again.

Where only the linear head changes, everything before it is computed once and cached, so that a
candidate costs one matrix product; that is what makes a sweep of a hundred candidates cheap.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from disinherit.client.owner import Batches
from disinherit.common.errors import DataError, ScopeError
from disinherit.common.scope import Head, find_head


class Logits(Protocol):
    """Maps changed parameters (by name) to the logits `[n, C]` of a fixed set of samples."""

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the logits with these parameters in place of the model's own."""
        ...


class CachedLogits:
    """Logits of one model on one data set as a function of its parameters in scope.

    Args:
        model: the model, left as it is; evaluated in eval mode.
        batches: inputs and class indices.
        names: parameters that are going to change.
        device: where to compute.

    Attributes:
        targets: class indices `[n]`.

    Raises:
        DataError: if there is no sample.
    """

    def __init__(
        self, model: nn.Module, batches: Batches, names: frozenset[str], device: torch.device
    ) -> None:
        self._model = model.to(device).eval()
        self._head = _cacheable_head(model, names)
        inputs: list[Tensor] = []
        targets: list[Tensor] = []
        with torch.inference_mode():
            for batch, classes in batches:
                moved = batch.to(device)
                inputs.append(moved if self._head is None else self._features(moved))
                targets.append(classes.to(device))
        if not targets:
            raise DataError("Expected at least one sample to compute logits on, but got none.")
        self._inputs = inputs
        self.targets = torch.cat(targets)

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return logits `[n, C]` with `parameters` in place of the model's own."""
        with torch.inference_mode():
            if self._head is None:
                return torch.cat(
                    [functional_call(self._model, dict(parameters), (x,)) for x in self._inputs]
                )
            head = self._model.get_submodule(self._head.module)
            own = {f"{self._head.module}.{k}": v for k, v in head.named_parameters()}
            values = {**own, **parameters}
            bias = None if self._head.bias is None else values[self._head.bias]
            return nn.functional.linear(torch.cat(self._inputs), values[self._head.weight], bias)

    def _features(self, batch: Tensor) -> Tensor:
        assert self._head is not None
        caught: list[Tensor] = []
        module = self._model.get_submodule(self._head.module)
        hook = module.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        try:
            self._model(batch)
        finally:
            hook.remove()
        return caught[0]


def _cacheable_head(model: nn.Module, names: frozenset[str]) -> Head | None:
    """Return the head if all changing parameters belong to it."""
    try:
        head = find_head(model)
    except ScopeError:
        return None
    return head if names <= {head.weight, head.bias} else None
