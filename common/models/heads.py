"""The head of a classifier: the linear layers that make its logits, found by forward passes.

A layer's name or position does not identify the head, so a small batch does.  The head is

- the one layer with the model's output as its *own* output, or
- several layers, if the logits are a sum of their outputs with fixed positive coefficients, such as
  the mean of two heads or of an ensemble's members, also over positions or after a temperature.
  With their outputs replaced by zeros all logits are equal, so nothing else contributes.

Each row of such a layer is a class.  A layer that no sample of the batch reaches is not found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from disinherit.common.errors import LabelError, ScopeError
from disinherit.common.models.inputs import Inputs
from disinherit.common.models.observation import ObservedModel, observed

_SHARES_AGREE = 1e-2


@dataclass(frozen=True, slots=True)
class HeadLayer:
    """A layer of the head, with one row per class.

    Attributes:
        module: dotted name of the layer, `""` if the model is this layer.
        weight: full name of its weight `[C, d]`, or `[C, d, ...]` of a convolution, as in
            `named_parameters()`.
        bias: full name of its bias `[C]`, or `None` for a layer without one.
    """

    module: str
    weight: str
    bias: str | None

    @property
    def parameters(self) -> tuple[str, ...]:
        """Full names of the weight and, if present, the bias."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class Head:
    """The layers that make the logits.

    Attributes:
        layers: one, or several with summed outputs.
        exact: whether the model returns the unchanged output of its one layer.
        gauge_free: whether softmax does not change when all rows of a layer move by one vector;
            false if a weight is also used elsewhere.
    """

    layers: tuple[HeadLayer, ...]
    exact: bool = True
    gauge_free: bool = True

    @property
    def parameters(self) -> tuple[str, ...]:
        """Full names of all weights and biases, each once."""
        return tuple(dict.fromkeys(name for layer in self.layers for name in layer.parameters))

    @property
    def names(self) -> tuple[tuple[str, str | None], ...]:
        """Names of each layer's weight and bias."""
        return tuple((layer.weight, layer.bias) for layer in self.layers)

    def __str__(self) -> str:
        return ", ".join(f"{layer.module}.*" if layer.module else "*" for layer in self.layers)


def check_differentiable(model: nn.Module) -> None:
    """Refuse a model without computable gradients.

    Raises:
        ScopeError: if a parameter has no shape yet, a tensor was made in inference mode, or a part
            of the model was compiled by TorchScript.
    """
    scripted = [n for n, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    if scripted:
        named = "the whole model" if scripted[0] == "" else _quoted(scripted)
        raise ScopeError(
            f"Expected a model of Python modules, but got {named} compiled by TorchScript, which "
            "hides its layers. Give the module that it was made from, with its weights."
        )
    lazy = [name for name, p in model.named_parameters() if is_lazy(p)]
    if lazy:
        raise ScopeError(
            f"Expected parameters with a shape, but got uninitialized {lazy}; run the model once "
            f"on an example first."
        )
    held = chain(model.named_parameters(), model.named_buffers())
    inferred = [name for name, tensor in held if tensor.is_inference()]
    if inferred:
        raise ScopeError(
            f"Expected tensors that gradients can be computed with, but got {_quoted(inferred)}, "
            "made in inference mode. Make the model outside of torch.inference_mode(), or load its "
            "state into one that was."
        )


def find_head(model: nn.Module, inputs: Inputs) -> Head:
    """Find the layers that make a classifier's logits, by forward passes on a few samples.

    The model runs in eval mode and is restored.  A weight that is tied to an earlier layer has the
    name of the earlier one, because `named_parameters()` lists only that name.

    Args:
        model: maps inputs to logits `[n, C]`.
        inputs: a tensor `[n, ...]`, or several, passed as positional arguments.

    Returns:
        The head.

    Raises:
        ScopeError: if linear layers alone do not make the logits; the message lists the layers with
            C rows, and a scope to use instead. Also if a parameter has no shape yet, a tensor was
            made in inference mode, or a part of the model was compiled by TorchScript.
        FisherError: if the inputs are no tensors, or the model does not return logits.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> find_head(model, torch.randn(2, 4)).layers
        (HeadLayer(module='2', weight='2.weight', bias='2.bias'),)
    """
    check_differentiable(model)
    with observed(model, inputs) as seen:
        return _Search(model, seen).head()


def count_logits(model: nn.Module, inputs: Inputs) -> int:
    """Return the number of logits per sample, by one forward pass.

    Args:
        model: as for `find_head`, like all that follows.
        inputs: a few samples.

    Raises:
        FisherError: likewise.
    """
    with observed(model, inputs) as seen:
        return seen.classes


def exact_layer(model: nn.Module, inputs: Inputs) -> HeadLayer | None:
    """Return the layer with the model's output as its own, by one forward pass; else `None`.

    Args:
        model: as for `find_head`, like all that follows.
        inputs: a few samples.

    Raises:
        FisherError: likewise.
        ScopeError: if its weight is computed from others.
    """
    with observed(model, inputs) as seen:
        return _Search(model, seen).exact()


class _Search:
    """The search for the head of an observed model.

    Args:
        model: the model.
        seen: the same model, observed.
    """

    def __init__(self, model: nn.Module, seen: ObservedModel) -> None:
        self._model = model
        self._seen = seen
        self._generator = torch.Generator().manual_seed(0)

    def head(self) -> Head:
        """Return the head, or raise the reason why there is none."""
        exact = self.exact()
        if exact is not None:
            return Head((exact,), gauge_free=self._is_gauge_free([exact]))
        found = [path for path in self._seen.layers if self._is_summand(path)]
        if not found:
            raise self._error(self._why_no_head())
        if not self._is_constant(self._seen.changed(dict.fromkeys(found, torch.zeros_like))):
            raise self._error(f"they are not those of {_quoted(found)} alone")
        layers = tuple(self._head_layer(path) for path in found)
        return Head(layers, exact=False, gauge_free=self._is_gauge_free(layers))

    def exact(self) -> HeadLayer | None:
        """Return the layer with the model's output as its own."""
        for path in self._seen.layers:
            if self._seen.returns(path):
                return self._head_layer(path)
        return None

    def _is_summand(self, path: str) -> bool:
        """Whether each output of a layer adds to its own logit only, with a positive weight."""
        if not self._seen.is_called(path):
            return False
        shares = []
        for _ in range(2):
            delta = self._seen.step * torch.randn(self._seen.classes, generator=self._generator)
            share = self._share(self._seen.added(path, delta), delta)
            if share is None:
                return False
            shares.append(share)
        share = torch.cat(shares)
        least, most = float(share.min()), float(share.max())
        return least > 0 and most - least <= max(_SHARES_AGREE, 4 * self._seen.relative) * most

    def _share(self, logits: Tensor, delta: Tensor) -> Tensor | None:
        """Return the factor of `delta` in each sample's logits, `[n]`; `None` if not linear."""
        moved = (logits - self._seen.logits).double().cpu()
        moved, delta = moved - moved.mean(1, keepdim=True), (delta - delta.mean()).double()
        share = moved @ delta / delta.square().sum()
        off = (moved - share[:, None] * delta).abs().max()
        tolerance = self._seen.tolerance(logits)
        # Responses below the rounding error do not count.
        if not off <= tolerance or not (share * delta.abs().max() > 3 * tolerance).all():
            return None
        return share

    def _is_gauge_free(self, layers: Sequence[HeadLayer]) -> bool:
        """Whether logits move together when all rows of a layer do, for any weights."""
        own = {
            name: self._model.get_parameter(name) for layer in layers for name in layer.parameters
        }
        noisy = {name: value + self._noise(value, value.shape) for name, value in own.items()}
        shifted = {
            name: value + self._noise(value, (1, *value.shape[1:])) for name, value in noisy.items()
        }
        before, after = self._seen.run(noisy), self._seen.run(shifted)
        return self._is_constant(after - before, self._seen.tolerance(before, after))

    def _noise(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        scale = float(like.float().std()) if like.numel() > 1 else 0.0
        noise = torch.randn(list(shape), generator=self._generator) * (scale or 0.1)
        return noise.to(like.device, like.dtype)

    def _is_constant(self, logits: Tensor, tolerance: float | None = None) -> bool:
        """Whether the logits of each sample are equal for all classes."""
        spread = (logits.amax(1) - logits.amin(1)).max()
        return bool(spread <= (self._seen.tolerance(logits) if tolerance is None else tolerance))

    def _head_layer(self, path: str) -> HeadLayer:
        own = dict(self._seen.layers[path].named_parameters(recurse=False))
        if "weight" not in own:
            computed = sorted(dict(self._seen.layers[path].named_parameters()))
            raise self._error(
                f"the weight of {path!r} is computed from {', '.join(computed)}: remove the "
                "parametrization to unlearn in it"
            )
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        bias = own.get("bias")
        return HeadLayer(path, names[id(own["weight"])], None if bias is None else names[id(bias)])

    def _why_no_head(self) -> str:
        if not self._seen.layers:
            return f"no linear layer has {self._seen.classes} rows"
        called = [path for path in self._seen.layers if self._seen.is_called(path)]
        if not called:
            return f"{_quoted(list(self._seen.layers))} is not called as a layer"
        return f"they are no sum of the outputs of {_quoted(called)}"

    def _error(self, reason: str) -> ScopeError:
        globs = ",".join(f"{path}.*" if path else "*" for path in self._seen.layers)
        scope = f"{globs!r} or 'all'" if globs else "'all'"
        return ScopeError(
            f"Expected the {self._seen.classes} logits of {type(self._model).__name__} to be the "
            f"outputs of linear layers, which are its head, but {reason}. Give another scope, such "
            f"as {scope}."
        )


def _quoted(paths: Sequence[str]) -> str:
    shown = ", ".join(repr(path) for path in paths[:8])
    return f"{shown} and {len(paths) - 8} more" if len(paths) > 8 else shown


def check_labels(labels: Sequence[str], weights: Mapping[str, Tensor], model: str) -> None:
    """Refuse labels that cannot be those of a head's rows, as no tensor has so many.

    Args:
        labels: class names in the order of the rows.
        weights: name -> tensor, of the whole model.
        model: id of the model, for the error.

    Raises:
        LabelError: if no tensor has an axis of so many entries.

    Example:
        >>> check_labels(["cat", "dog"], {"weight": torch.zeros(2, 3)}, "m")
    """
    if any(len(labels) in value.shape for value in weights.values()):
        return
    matrices = {name: len(value) for name, value in weights.items() if value.dim() == 2}
    rows = ", ".join(f"{name}: {count}" for name, count in matrices.items())
    raise LabelError(
        f"Expected a label for each row of the head of model {model!r}, but got {len(labels)}, and "
        f"no tensor of it has so many rows. Matrices and their rows: {rows or 'none'}."
    )
