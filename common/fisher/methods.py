"""Three methods with equal sums, from the fastest and narrowest to the general one.

A method inspects the model once (`Probe`), then adds one batch at a time.  Where its formula would
be wrong it raises `Unsupported`, before it adds anything of that batch.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from disinherit.common.errors import FisherError
from disinherit.common.fisher.gradients import residuals, right_norm_gradients, sparse_tables
from disinherit.common.fisher.layers import Sink, needs_dims, rule_for
from disinherit.common.fisher.sums import MOST_ELEMENTS, Batch, Sums
from disinherit.common.models.forward import (
    Call,
    Calls,
    Unsupported,
    check_logits,
    count_uses,
    observe,
)
from disinherit.common.models.substitution import call_with

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """Observations of one small forward pass.

    Attributes:
        model: the model, in eval mode, with gradients for `parameters` only.
        parameters: the parameters in scope.
        layers: the layers of these parameters, by dotted name.
        size: number of samples probed; it differs from the size of the first batch.  So a layer
            with this first dimension here and the batch's there has the samples in that dimension.
        inputs: the samples.
        logits: the model's output for them, `[size, C]`.
        calls: the calls of `layers`.
        uses: number of uses of each parameter in the computation.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    layers: Mapping[str, nn.Module]
    size: int
    inputs: tuple[Tensor, ...]
    logits: Tensor
    calls: Calls
    uses: Mapping[str, int]


def probe(
    model: nn.Module, names: Sequence[str], sample: Sequence[Tensor], batch_size: int
) -> Probe:
    """Run the model on one sample, repeated two or three times.

    Args:
        model: the model, in eval mode.
        names: the parameters in scope.
        sample: the first row of every input.
        batch_size: size of the first batch.

    Returns:
        The observations.
    """
    parameters = {name: model.get_parameter(name) for name in names}
    paths = dict.fromkeys(name.rpartition(".")[0] for name in names)
    layers = {path: model.get_submodule(path) for path in paths}
    size = 3 if batch_size == 2 else 2
    few = tuple(tensor.repeat(size, *[1] * (tensor.ndim - 1)) for tensor in sample)
    with torch.enable_grad():
        logits, calls = observe(model, layers, few)
    uses = count_uses(logits, parameters)
    # Without the graph, which would keep what each layer saved for a backward pass.
    ended = {path: [one and one.without_graph() for one in made] for path, made in calls.items()}
    return Probe(model, parameters, layers, size, few, logits.detach(), ended, uses)


class FisherMethod(Protocol):
    """A way to add a batch to the sums."""

    def add(self, batch: Batch, sums: Sums) -> None:
        """Add the batch, or raise `Unsupported` and add nothing."""


class HeadMethod:
    """Closed form for a linear head: one forward pass, no backward.

    With features A `[n, d]` and residuals R `[n, C]`, sample i has the gradient rᵢ aᵢᵀ, thus
    F_W = (R∘R)ᵀ(A∘A) and F_b = Σ R∘R.
    """

    def __init__(self, seen: Probe) -> None:
        if len(seen.layers) != 1:
            raise Unsupported(f"{sorted(seen.parameters)} do not belong to one layer")
        self._model = seen.model
        ((self._path, self._layer),) = seen.layers.items()
        self._names = tuple(seen.parameters)
        if type(self._layer) is not nn.Linear:
            raise Unsupported(f"the layer {self._path!r} is a {type(self._layer).__name__}")
        if reused := [name for name in self._names if seen.uses[name] > 1]:
            raise Unsupported(f"{reused} are used elsewhere too")

    def add(self, batch: Batch, sums: Sums) -> None:
        """Add the batch by the closed form."""
        path = self._path
        with torch.no_grad():
            logits, calls = observe(self._model, {path: self._layer}, batch.inputs)
            call = calls[path][0] if len(calls[path]) == 1 else None
            if call is None or not call.is_input_intact or not call.is_model_output(logits):
                raise Unsupported(
                    f"the model's output is not that of one call of its layer {path!r}"
                )
            directions, scales = residuals(logits, batch.targets)
            found = directions * scales.unsqueeze(1)
            for name in self._names:
                if name.endswith("weight"):
                    sums.add_outer(name, batch, found, call.input)
                else:
                    sums.add(name, batch, found, slice(None))


class LayersMethod:
    """Closed forms layer by layer: one forward and one backward pass of the summed loss."""

    def __init__(self, seen: Probe) -> None:
        self._model = seen.model
        self._layers = seen.layers
        self._parameters = seen.parameters
        self._names: dict[str, dict[str, str]] = {path: {} for path in seen.layers}
        for name in seen.parameters:
            path, _, local = name.rpartition(".")
            layer = seen.layers[path]
            if rule_for(layer) is None or local not in ("weight", "bias"):
                raise Unsupported(f"there is no formula for {name!r} of {type(layer).__name__}")
            self._names[path][local] = name
        self._check(seen.calls, seen.size)

    def add(self, batch: Batch, sums: Sums) -> None:
        """Add the batch layer by layer."""
        with torch.enable_grad(), right_norm_gradients(self._model):
            logits, calls = observe(self._model, self._layers, batch.inputs)
            used = self._check(calls, batch.size)
            directions, scales = residuals(logits, batch.targets)
        reached = {path: call for path, call in used.items() if call.edge is not None}
        uses = count_uses(logits, self._parameters)
        edges = [call.edge for call in reached.values() if call.edge is not None]
        found: Sequence[Tensor | None] = [None] * len(edges)
        if edges and logits.requires_grad:
            found = torch.autograd.grad(
                logits, edges, directions.to(logits.dtype), allow_unused=True
            )
        gradients = {
            path: _scaled(g, scales, sums.dtype)
            for path, g in zip(reached, found, strict=True)
            if g is not None
        }
        for path, names in self._names.items():
            for name in names.values():
                if uses[name] != int(path in gradients):
                    raise Unsupported(f"{name!r} is used outside one call of its layer")
        with torch.no_grad():
            for path, g in gradients.items():
                self._add_layer(path, reached[path].input, g, batch, sums)

    def _check(self, calls: Calls, size: int) -> dict[str, Call]:
        """Return the single call of each called layer, with samples in dimension 0."""
        used: dict[str, Call] = {}
        for path, made in calls.items():
            if not made:
                continue
            call = made[0]
            if len(made) > 1 or call is None:
                raise Unsupported(f"layer {path!r} is called {len(made)} times or with keywords")
            shapes = call.input.shape, call.output.shape
            if call.input.ndim < needs_dims(self._layers[path]) or any(
                s[0] != size for s in shapes
            ):
                raise Unsupported(f"the first dimension of layer {path!r} is not that of samples")
            if not call.is_input_intact:
                raise Unsupported(f"the input of layer {path!r} is changed in place afterwards")
            used[path] = call
        return used

    def _add_layer(self, path: str, x: Tensor, g: Tensor, batch: Batch, sums: Sums) -> None:
        layer = self._layers[path]
        rule = rule_for(layer)
        assert rule is not None  # checked at the start
        x = x.detach()
        if x.is_floating_point():
            x = x.to(sums.dtype)
        rule(layer, x, g, Sink(self._names[path], batch, sums))


class SamplesMethod:
    """One gradient per sample: by `torch.func.vmap` in chunks, or by one backward pass each.

    Parameters too large for the gradients of two samples at a time have a backward pass for each,
    of which only the gradient of one parameter is in memory at a time.
    """

    def __init__(self, seen: Probe, vmap_only: bool) -> None:
        self._model = seen.model
        self._parameters = seen.parameters
        self._elements = sum(p.numel() for p in seen.parameters.values())
        self._vmap_only = vmap_only
        self._vmap = vmap_only or 2 * self._elements <= MOST_ELEMENTS
        if not self._vmap:
            return
        self._detached = {
            name: p.detach().requires_grad_(p.requires_grad)
            for name, p in seen.model.named_parameters()
        }
        scoped = {name: self._detached[name] for name in seen.parameters}
        with torch.enable_grad():
            logits = call_with(seen.model, self._detached, seen.inputs)
        if count_uses(check_logits(logits, seen.size), scoped) != seen.uses:
            # The model refers to parameters in other ways than by its attributes; a substitute
            # would silently be ignored, with a gradient of zero.
            self._give_up_vmap("it does not use the substituted parameters")

    def add(self, batch: Batch, sums: Sums) -> None:
        """Add the batch in chunks."""
        for rows in sums.chunks(batch, self._elements):
            found = self._vmapped(batch, rows) if self._vmap else None
            if found is None:
                self._add_one_by_one(batch, rows, sums)
                continue
            gradients, scales = found
            for name, gradient in gradients.items():
                sums.add(name, batch, _scaled(gradient, scales, sums.dtype), rows)

    def _vmapped(self, batch: Batch, rows: slice) -> tuple[dict[str, Tensor], Tensor] | None:
        """Return the gradients along the residuals, `[m, *shape]`, and their scales, `[m]`."""
        scoped = {name: self._detached[name].detach() for name in self._parameters}
        fixed = {n: p.detach() for n, p in self._detached.items() if n not in scoped}

        def along(
            parameters: dict[str, Tensor], inputs: tuple[Tensor, ...], target: Tensor
        ) -> tuple[Tensor, Tensor]:
            one = tuple(tensor.unsqueeze(0) for tensor in inputs)
            logits = check_logits(call_with(self._model, {**fixed, **parameters}, one), 1)
            directions, scales = residuals(logits, target.unsqueeze(0))
            return (logits * directions.to(logits.dtype)).sum(), scales[0]

        inputs = tuple(tensor[rows] for tensor in batch.inputs)
        try:
            with torch.no_grad():
                found: tuple[dict[str, Tensor], Tensor] = vmap(
                    grad(along, has_aux=True), in_dims=(None, 0, 0)
                )(scoped, inputs, batch.targets[rows])
        except (torch.OutOfMemoryError, FisherError):
            raise
        except Exception as error:  # vmap fails with any type of error
            self._give_up_vmap(f"{type(error).__name__}: {error}")
            return None
        return found

    def _add_one_by_one(self, batch: Batch, rows: slice, sums: Sums) -> None:
        for i in range(rows.start, rows.stop):
            one = slice(i, i + 1)
            with torch.enable_grad(), right_norm_gradients(self._model), sparse_tables(self._model):
                logits = check_logits(self._model(*(t[one] for t in batch.inputs)), 1)
            if not logits.requires_grad:
                continue
            directions, scales = residuals(logits, batch.targets[one])

            def add(name: str, gradient: Tensor, scale: Tensor = scales[0], i: int = i) -> None:
                sums.add_sample(name, batch, gradient, scale, i)

            with taken_gradients(self._parameters, add):
                logits.backward(directions.to(logits.dtype))

    def _give_up_vmap(self, reason: str) -> None:
        if self._vmap_only:
            raise Unsupported(f"vmap cannot handle it: {reason}")
        _log.info("One backward pass per sample: vmap cannot handle the model (%s)", reason)
        self._vmap = False


@contextmanager
def taken_gradients(
    parameters: Mapping[str, nn.Parameter], take: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Give each gradient of a backward pass away as soon as it is whole, and keep none.

    Args:
        parameters: leaves with gradients, by name.
        take: called with a name and its gradient, without gradients of its own.
    """
    before = [(parameter, parameter.grad) for parameter in parameters.values()]

    def hook(name: str, parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None:
            with torch.no_grad():
                take(name, gradient)

    handles = []
    try:
        for name, parameter in parameters.items():
            parameter.grad = None
            taking = partial(hook, name)
            handles.append(parameter.register_post_accumulate_grad_hook(taking))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, gradient in before:
            parameter.grad = gradient


def _scaled(gradients: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Return gradients `[n, ...]` times the factors `[n]` that were split off the residuals."""
    return gradients.to(dtype) * scales.to(dtype).view(-1, *[1] * (gradients.ndim - 1))
