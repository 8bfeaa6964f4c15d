"""Inputs and output gradients of layers, batch after batch.

A layer is covered if its gradients are sums over positions of g xᵀ: linear layers, and convolutions
without groups, that are called once with the samples in the first dimension, and whose parameters
are used nowhere else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disinherit.common.errors import FisherError
from disinherit.common.fisher.gradients import residuals, right_norm_gradients, widest
from disinherit.common.fisher.layers import needs_dims, patches
from disinherit.common.models.forward import (
    Call,
    check_logits,
    count_uses,
    observe,
    observed,
    prepared,
)
from disinherit.common.models.inputs import first_inputs, unpack_batch
from disinherit.common.models.sequences import IGNORED, AnswersSequences

COLUMNS = 16
"""Most backward passes for a batch; for more classes, random combinations of their columns."""

TOKEN_COLUMNS = 4
"""The same for a batch of sequences, each of which has many choices to average over."""

WIDEST = 8192
"""Most inputs or outputs of a layer: its curvature holds the square of both."""

Batches = Iterable[object]

Layers = Mapping[str, bool]
"""Layer -> whether its bias is covered with its weight."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What the losses of a batch are made of: choices among classes, or among tokens.

    The loss of a sample is the sum of the cross-entropies of its choices by their weights: of one
    with weight 1 for a classifier, and of the mean of those that count for a language model.

    Attributes:
        logits: `[m, C]`.
        targets: class indices `[m]`.
        weights: `[m]`; `None` if all are 1.
        places: of each in its sample, from 0, `[m]`.
    """

    logits: Tensor
    targets: Tensor
    weights: Tensor | None
    places: Tensor


Columns = Callable[[Predictions, int], Iterator[Tensor]]
"""From predictions and index of the batch: gradients of the logits, `[m, C]` each."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Inputs and output gradients of one layer for one batch.

    Attributes:
        path: the layer.
        inputs: `[n, positions, d]`; with a bias, the last of them is 1.
        gradients: `[n, positions, o]`.
        first: whether these are the first gradients of the batch.
    """

    path: str
    inputs: Tensor
    gradients: Tensor
    first: bool


def parameter_names(path: str, with_bias: bool) -> tuple[str, ...]:
    """Return the full names of a layer's weight and, if covered, bias."""
    prefix = f"{path}." if path else ""
    return (f"{prefix}weight", f"{prefix}bias") if with_bias else (f"{prefix}weight",)


def coverable(
    model: nn.Module, names: Sequence[str], batches: Batches, device: torch.device
) -> dict[str, bool]:
    """Return the layers that can be covered, and whether with their bias.

    Args:
        model: maps inputs to logits `[n, C]`.
        names: parameters to cover where possible.
        batches: inputs and targets; one sample is tried.
        device: for the inputs.

    Raises:
        FisherError: if there is no sample.
    """
    wanted = set(names)
    layers: dict[str, bool] = {}
    for path, layer in model.named_modules():
        weight, bias = parameter_names(path, with_bias=True)
        if weight in wanted and _is_covered(layer):
            layers[path] = bias in wanted
    inputs, _ = first_inputs(batches)
    size = 3 if len(inputs[0]) == 2 else 2
    few = tuple(tensor[:1].repeat(size, *[1] * (tensor.ndim - 1)).to(device) for tensor in inputs)
    flat = [name for path, with_bias in layers.items() for name in parameter_names(path, with_bias)]
    with prepared(model, flat), torch.enable_grad():
        logits, calls = observe(model, {path: model.get_submodule(path) for path in layers}, few)
        uses = count_uses(logits, {name: model.get_parameter(name) for name in flat})
    return {
        path: with_bias
        for path, with_bias in layers.items()
        if all(uses[name] == 1 for name in parameter_names(path, with_bias))
        and len(calls[path]) == 1
        and _is_sound(model.get_submodule(path), calls[path][0], size)
    }


def sweep(
    model: nn.Module, layers: Layers, batches: Batches, columns: Columns, device: torch.device
) -> Iterator[Part]:
    """Yield inputs and output gradients of all layers, batch after batch, column after column.

    Args:
        model: runs in eval mode and is restored.
        layers: as `coverable` returns them.
        batches: inputs and targets.
        columns: gradients of the logits.
        device: for the inputs.

    Raises:
        FisherError: if a layer is called otherwise than in the batch that was tried.
    """
    modules = {path: model.get_submodule(path) for path in layers}
    names = [name for path, bias in layers.items() for name in parameter_names(path, bias)]
    with prepared(model, names):
        for index, item in enumerate(batches):
            arguments, targets = unpack_batch(item, index)
            if not len(targets):
                continue
            inside = [one.to(device) for one in arguments]
            with torch.enable_grad(), right_norm_gradients(model), observed(modules) as calls:
                predictions = _predictions(model, inside, targets.to(device))
            made = {
                path: _checked(path, modules[path], calls[path], len(targets)) for path in layers
            }
            edges = [call.edge for call in made.values() if call.edge is not None]
            inputs = {
                path: _inputs(modules[path], call.input.detach(), layers[path])
                for path, call in made.items()
            }
            for place, column in enumerate(columns(predictions, index)):
                logits = predictions.logits
                found = torch.autograd.grad(
                    logits, edges, column.to(logits.dtype), retain_graph=True
                )
                for path, gradient in zip(made, found, strict=True):
                    g = _outputs(modules[path], gradient)
                    yield Part(path, inputs[path], g, first=place == 0)


def square_root(predictions: Predictions, index: int) -> Iterator[Tensor]:
    """Yield the columns √p_c (e_c - p) of a square root of diag(p) - ppᵀ, or random combinations.

    These are sums of the columns with random signs: the expectation of their squares is the same.
    Columns of several choices of one sample are columns of their own.
    """
    p = predictions.logits.detach().to(widest(predictions.logits.device)).softmax(1)
    root = p.sqrt()
    if predictions.weights is not None:
        root = root * predictions.weights.to(root).sqrt().unsqueeze(1)
    classes = p.shape[1]
    several = int(predictions.places.max()) + 1
    if classes * several <= COLUMNS:
        for place in range(several):
            here = (predictions.places == place).unsqueeze(1)
            for one in torch.eye(classes, dtype=p.dtype, device=p.device):
                chosen = root * one * here
                yield chosen - p * chosen.sum(1, keepdim=True)
        return
    generator = torch.Generator().manual_seed(index)
    columns = COLUMNS if predictions.weights is None else TOKEN_COLUMNS
    for _ in range(columns):
        signs = torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1
        signed = root * signs / columns**0.5
        yield signed - p * signed.sum(1, keepdim=True)


def loss_gradients(predictions: Predictions, _: int) -> Iterator[Tensor]:
    """Yield the gradients of the cross-entropies by their weights."""
    directions, scales = residuals(predictions.logits, predictions.targets)
    if predictions.weights is not None:
        scales = scales * predictions.weights.to(scales)
    yield directions * scales.unsqueeze(1)


def _predictions(model: nn.Module, inputs: Sequence[Tensor], targets: Tensor) -> Predictions:
    if not isinstance(model, AnswersSequences):
        logits = check_logits(model(*inputs), len(targets))
        return Predictions(logits, targets, None, torch.zeros_like(targets))
    logits, labels = model.token_logits(*inputs)
    following = labels[:, 1:]
    counted = following != IGNORED
    counts = counted.sum(1, keepdim=True)
    weights = (1 / counts.clamp(min=1).double()).expand(counted.shape)
    places = counted.cumsum(1) - 1
    return Predictions(
        logits[:, :-1][counted], following[counted], weights[counted], places[counted]
    )


def _is_covered(layer: nn.Module) -> bool:
    if type(layer) is nn.Linear:
        return max(layer.weight.shape) < WIDEST
    if isinstance(layer, nn.Conv1d | nn.Conv2d) and type(layer) in (nn.Conv1d, nn.Conv2d):
        return layer.groups == 1 and max(layer.weight.flatten(1).shape) < WIDEST
    return False


def _is_sound(layer: nn.Module, call: Call | None, size: int) -> bool:
    return (
        call is not None
        and call.edge is not None
        and call.is_input_intact
        and call.input.ndim >= needs_dims(layer)
        and call.input.shape[0] == call.output.shape[0] == size
    )


def _checked(path: str, layer: nn.Module, calls: Sequence[Call | None], size: int) -> Call:
    call = calls[0] if len(calls) == 1 else None
    if call is None or not _is_sound(layer, call, size):
        raise FisherError(
            f"Expected one call of layer {path!r} for each batch, with the samples in the first "
            f"dimension, but got {len(calls)} for {size} samples. Choose another root method."
        )
    return call


def _inputs(layer: nn.Module, x: Tensor, with_bias: bool) -> Tensor:
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        x = patches(layer, x).mT
    else:
        x = x.flatten(1, -2) if x.ndim > 2 else x.unsqueeze(1)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2) if with_bias else x


def _outputs(layer: nn.Module, g: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        g = g.flatten(2).mT
    else:
        g = g.flatten(1, -2) if g.ndim > 2 else g.unsqueeze(1)
    return g.to(torch.promote_types(g.dtype, torch.float32))
