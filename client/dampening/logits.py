"""Logits of a model under changed parameters, with cached features.

If only the linear head changes, its features are computed once.  Each candidate then costs one
matrix product, so a grid of a hundred candidates is cheap.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from disinherit.client.owner.batches import ShrinkingBatches
from disinherit.client.owner.owner import Batches
from disinherit.common.errors import DataError, ScopeError
from disinherit.common.models.heads import HeadLayer, exact_layer
from disinherit.common.models.inputs import to_device
from disinherit.common.models.substitution import call_with

_PROBED = 8
"""Samples for the comparison of the cached computation with the whole model."""
_PIECE = 2**18
"""Number of logits per matrix product with cached features."""


class Logits(Protocol):
    """Function from changed parameters (by name) to the logits of a fixed set of samples.

    Attributes:
        targets: class indices `[n]` of the samples.
    """

    targets: Tensor

    def __call__(self, candidates: Sequence[Mapping[str, Tensor]]) -> Iterator[Tensor]:
        """Yield logits `[m, K, C]` of K candidates, some samples at a time, in order.

        Args:
            candidates: parameters that replace the model's own; they differ in the head only.
        """
        ...


class CachedLogits:
    """Logits of one model on one data set as a function of its parameters in scope.

    If the logits are a linear function of features, candidates with the same features share one
    matrix product.  If only the head changes, features are computed once.  Linearity is tested with
    other weights on a few samples, not read from the module: a temperature, a mask, a tied weight
    or a second use of the layer would make the cache wrong.

    Args:
        model: the model; its parameters stay unchanged.
        batches: inputs and class indices.
        names: parameters that will change.
        device: device of the computation.

    Attributes:
        targets: class indices `[n]`.
        shared: whether candidates share features.
        cached: whether features are computed only once.

    Raises:
        DataError: if the batches have no sample.
    """

    @torch.inference_mode()
    def __init__(
        self, model: nn.Module, batches: Batches, names: frozenset[str], device: torch.device
    ) -> None:
        self._model = model.to(device).eval()
        self._device = device
        self._batches = ShrinkingBatches(batches)
        first = next((inputs for inputs, targets in self._batches if len(targets)), None)
        if first is None:
            raise DataError("Expected at least one sample to compute logits on, but got none.")
        few = to_device([tensor[:_PROBED] for tensor in first], device)
        self._head = self._separate_head(names, few)
        self.shared = self._head is not None
        self.cached = self._head is not None and names <= set(self._head.parameters)
        if self.cached:
            self._features, self.targets = self._batches.run(
                lambda batches: self._features_and_targets(batches, {})
            )
        else:
            # Keep the samples, so that a slow loader runs once and not per candidate.
            kept = [(inputs, targets) for inputs, targets in self._batches if len(targets)]
            self._batches = ShrinkingBatches(kept)
            self.targets = torch.cat([targets for _, targets in kept]).to(device)

    @torch.inference_mode()
    def __call__(self, candidates: Sequence[Mapping[str, Tensor]]) -> Iterator[Tensor]:
        """Yield logits `[m, K, C]` of candidates that differ in the head only."""
        if self._head is None:
            yield torch.stack([self._all_logits(parameters) for parameters in candidates], dim=1)
            return
        features = self._features if self.cached else self._changed_features(candidates[0])
        weight, bias = self._stacked_heads(self._head, candidates)
        classes = len(weight) // len(candidates)
        for piece in features.split(max(1, _PIECE // len(weight))):
            yield nn.functional.linear(piece, weight, bias).view(-1, len(candidates), classes)

    def _separate_head(self, names: frozenset[str], inputs: Sequence[Tensor]) -> HeadLayer | None:
        """Return the head if the logits are linear in features that do not depend on it."""
        try:
            head = exact_layer(self._model, inputs)
        except ScopeError:
            return None
        if head is None or not isinstance(self._model.get_submodule(head.module), nn.Linear):
            return None
        deeper = names - set(head.parameters)
        # Weights near the original ones, so that logits stay finite.
        changed = {name: 0.9 * self._model.get_parameter(name) + 0.01 for name in deeper}
        features = self._features_of(head, inputs, changed)
        if features is None or features.ndim != 2:
            return None
        changed |= {name: 1 - self._model.get_parameter(name) for name in head.parameters}
        linear = nn.functional.linear(features, *self._stacked_heads(head, [changed]))
        whole = self._outputs(inputs, changed)
        same = linear.shape == whole.shape and torch.allclose(linear, whole, rtol=1e-3, atol=1e-5)
        return head if same else None

    def _stacked_heads(
        self, head: HeadLayer, candidates: Sequence[Mapping[str, Tensor]]
    ) -> tuple[Tensor, Tensor | None]:
        """Return the weights `[K C, d]` and biases `[K C]` of the candidates' heads."""
        own = {name: self._model.get_parameter(name) for name in head.parameters}
        values = [{**own, **parameters} for parameters in candidates]
        bias = None if head.bias is None else torch.cat([value[head.bias] for value in values])
        return torch.cat([value[head.weight] for value in values]), bias

    def _changed_features(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self._batches.run(lambda batches: self._features_and_targets(batches, parameters))[0]

    def _features_and_targets(
        self,
        batches: Iterable[tuple[Sequence[Tensor], Tensor]],
        parameters: Mapping[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        assert self._head is not None
        features, targets = [], []
        for inputs, classes in batches:
            if len(classes):
                found = self._features_of(self._head, to_device(inputs, self._device), parameters)
                assert found is not None
                features.append(found)
                targets.append(classes.to(self._device))
        return torch.cat(features), torch.cat(targets)

    def _features_of(
        self, head: HeadLayer, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]
    ) -> Tensor | None:
        """Return the head's input, `[n, d]`; `None` unless it is called once with one tensor."""
        calls: list[tuple[Any, ...]] = []
        module = self._model.get_submodule(head.module)
        hook = module.register_forward_pre_hook(lambda _, args: calls.append(args))
        try:
            self._outputs(inputs, parameters)
        finally:
            hook.remove()
        return calls[0][0] if len(calls) == 1 and len(calls[0]) == 1 else None

    def _all_logits(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self._batches.run(
            lambda batches: torch.cat(
                [
                    self._outputs(to_device(inputs, self._device), parameters)
                    for inputs, _ in batches
                ]
            )
        )

    def _outputs(self, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = call_with(self._model, parameters, tuple(inputs))
        return logits
