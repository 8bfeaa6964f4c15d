"""Logits of a model under changed parameters, computing as little as possible again.

Where only the linear head changes, everything before it is computed once and cached, so that a
candidate costs one matrix product; that is what makes a sweep of a hundred candidates cheap.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from disinherit.client.memory import ShrinkingBatches
from disinherit.client.owner import Batches
from disinherit.common.errors import DataError, ScopeError
from disinherit.common.scope import Head, find_head

_PROBED = 8
"""Samples on which the cached computation is compared with the whole model."""


class Logits(Protocol):
    """Maps changed parameters (by name) to the logits `[n, C]` of a fixed set of samples."""

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the logits with these parameters in place of the model's own."""
        ...


class CachedLogits:
    """Logits of one model on one data set as a function of its parameters in scope.

    Features are cached if only the head changes and the head is all there is after them.  That is
    tried out with other weights on a few samples, not read from the module: a temperature, a mask,
    a tied weight or a second use of the layer would all make the cache wrong.

    Args:
        model: the model; its parameters are left as they are.
        batches: inputs and class indices.
        names: parameters that are going to change.
        device: where to compute.

    Attributes:
        targets: class indices `[n]`.
        cached: whether a candidate costs one matrix product instead of a forward pass.

    Raises:
        DataError: if there is no sample.
    """

    @torch.inference_mode()
    def __init__(
        self, model: nn.Module, batches: Batches, names: frozenset[str], device: torch.device
    ) -> None:
        self._model = model.to(device).eval()
        self._device = device
        self._batches = ShrinkingBatches(batches)
        first = next((inputs for inputs, targets in batches if len(targets)), None)
        if first is None:
            raise DataError("Expected at least one sample to compute logits on, but got none.")
        self._head = self._cacheable_head(names, first[:_PROBED].to(device))
        self.cached = self._head is not None
        if self._head is None:
            # The samples themselves, so that a slow loader is asked once and not per candidate.
            kept = [(inputs, targets) for inputs, targets in batches if len(targets)]
            self._batches = ShrinkingBatches(kept)
            self.targets = torch.cat([targets for _, targets in kept]).to(device)
        else:
            self._features, self.targets = self._batches.run(self._all_features)

    @torch.inference_mode()
    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return logits `[n, C]` with `parameters` in place of the model's own."""
        if self._head is not None:
            return self._linear(self._head, self._features, parameters)
        return self._batches.run(
            lambda batches: torch.cat(
                [self._whole(inputs.to(self._device), parameters) for inputs, _ in batches]
            )
        )

    def _cacheable_head(self, names: frozenset[str], inputs: Tensor) -> Head | None:
        try:
            head = find_head(self._model)
        except ScopeError:
            return None
        if not names <= set(head.parameters):
            return None
        features = self._features_of(head, inputs)
        if features is None:
            return None
        changed = {name: 1 - self._model.get_parameter(name) for name in head.parameters}
        linear = self._linear(head, features, changed)
        whole = self._whole(inputs, changed)
        same = linear.shape == whole.shape and torch.allclose(linear, whole, rtol=1e-3, atol=1e-5)
        return head if same else None

    def _all_features(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        assert self._head is not None
        features, targets = [], []
        for inputs, classes in batches:
            if len(classes):
                found = self._features_of(self._head, inputs.to(self._device))
                assert found is not None
                features.append(found)
                targets.append(classes.to(self._device))
        return torch.cat(features), torch.cat(targets)

    def _features_of(self, head: Head, inputs: Tensor) -> Tensor | None:
        """Return what the head gets, `[n, d]`; `None` unless it is called once, with a tensor."""
        calls: list[tuple[Any, ...]] = []
        module = self._model.get_submodule(head.module)
        hook = module.register_forward_pre_hook(lambda _, args: calls.append(args))
        try:
            self._model(inputs)
        finally:
            hook.remove()
        return calls[0][0] if len(calls) == 1 and len(calls[0]) == 1 else None

    def _linear(self, head: Head, features: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        own = {name: self._model.get_parameter(name) for name in head.parameters}
        values = {**own, **parameters}
        bias = None if head.bias is None else values[head.bias]
        return nn.functional.linear(features, values[head.weight], bias)

    def _whole(self, inputs: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = functional_call(self._model, dict(parameters), (inputs,))
        return logits
