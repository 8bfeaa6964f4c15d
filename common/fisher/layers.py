"""Squared per-sample gradients of single layers, from their inputs and output gradients.

Every rule receives the layer, its input `x` `[n, ...]`, the gradient `g` `[n, ...]` of the summed
loss with respect to its output (row i depends on sample i only), and a sink for the parameters in
scope.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disinherit.common.fisher.sums import Batch, Sums
from disinherit.common.models.devices import is_accelerator

_PADDING_MODES = {"zeros": "constant"}


@dataclass(frozen=True, slots=True)
class Sink:
    """Adds a layer's squared gradients to the sums.

    Attributes:
        names: the layer's own parameter name -> full name, of the parameters in scope.
        batch: the batch of the gradients.
        sums: the sums to add to.
    """

    names: Mapping[str, str]
    batch: Batch
    sums: Sums

    def chunks(self, elements: int) -> Iterator[slice]:
        """Yield slices of samples that fit the memory budget, at `elements` numbers a sample."""
        return self.sums.chunks(self.batch, elements, cached=True)

    def add(self, name: str, gradients: Tensor, rows: slice = slice(None)) -> None:
        """Add the squares of the per-sample gradients `[m, *shape]` of the samples `rows`."""
        self.sums.add(self.names[name], self.batch, gradients, rows)


def linear(layer: nn.Linear, x: Tensor, g: Tensor, sink: Sink) -> None:
    """F_W = (G∘G)ᵀ(X∘X) for `[n, d]`; with further dimensions, the square of Σ_t g_t x_tᵀ."""
    if x.ndim == 2:
        if "weight" in sink.names:
            sink.sums.add_outer(sink.names["weight"], sink.batch, g, x)
        if "bias" in sink.names:
            sink.add("bias", g)
        return
    x, g = x.flatten(1, -2), g.flatten(1, -2)
    if "weight" in sink.names:
        for rows in sink.chunks(layer.weight.numel()):
            sink.add("weight", g[rows].mT @ x[rows], rows)
    if "bias" in sink.names:
        sink.add("bias", g.sum(1))


def convolution(layer: nn.Conv1d | nn.Conv2d, x: Tensor, g: Tensor, sink: Sink) -> None:
    """A convolution as a linear layer on unfolded patches, summed over positions."""
    if "bias" in sink.names:
        sink.add("bias", g.flatten(2).sum(2))
    if "weight" not in sink.names:
        return
    g = g.reshape(
        g.shape[0], layer.groups, layer.out_channels // layer.groups, -1
    )  # [n, groups, o, positions]
    patch = layer.in_channels * math.prod(layer.kernel_size) * g.shape[-1]
    for rows in sink.chunks(max(layer.weight.numel(), patch)):
        columns = patches(layer, x[rows])
        columns = columns.reshape(
            columns.shape[0], layer.groups, -1, g.shape[-1]
        )  # [m, groups, i * kernel, positions]
        gradients = (g[rows] @ columns.mT).reshape(-1, *layer.weight.shape)
        sink.add("weight", gradients, rows)


def patches(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """Return the part of the input that each position of the output sees.

    Args:
        layer: the convolution.
        x: its input, `[n, channels, ...]`.

    Returns:
        `[n, channels * kernel, positions]`, channels first, as in the flattened weight.
    """
    x = F.pad(x, _padding(layer), _PADDING_MODES.get(layer.padding_mode, layer.padding_mode))
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if isinstance(layer, nn.Conv1d):
        x = x.unsqueeze(2)
        kernel, stride, dilation = (1, *kernel), (1, *stride), (1, *dilation)
    if is_accelerator(x.device):
        return windows(x, kernel, dilation, stride)
    return F.unfold(x, kernel, dilation=dilation, stride=stride)


def windows(
    x: Tensor, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Return what `F.unfold` does, `[n, channels * kernel, positions]`, by one copy.

    On an accelerator PyTorch starts a kernel for each sample.

    Args:
        x: padded input, `[n, channels, height, width]`.
        kernel: height and width of the kernel.
        dilation: steps between its values.
        stride: steps between positions.
    """
    for dim in (0, 1):
        span = dilation[dim] * (kernel[dim] - 1) + 1
        x = x.unfold(2 + dim, span, stride[dim])[..., :: dilation[dim]]
    x = x.permute(0, 1, 4, 5, 2, 3)  # [n, channels, kernel, kernel, positions, positions]
    return x.reshape(x.shape[0], math.prod(x.shape[1:4]), math.prod(x.shape[4:]))


def batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, g: Tensor, sink: Sink) -> None:
    """Scale and shift, y = w x̂ + b per channel, x̂ by the running statistics, as in eval mode."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    normal = F.batch_norm(
        x, layer.running_mean.to(x.dtype), layer.running_var.to(x.dtype), eps=layer.eps
    )
    _affine_channels(normal, g, sink)


def group_norm(layer: nn.GroupNorm, x: Tensor, g: Tensor, sink: Sink) -> None:
    """Scale and shift, y = w x̂ + b per channel."""
    _affine_channels(F.group_norm(x, layer.num_groups, eps=layer.eps), g, sink)


def layer_norm(layer: nn.LayerNorm, x: Tensor, g: Tensor, sink: Sink) -> None:
    """Scale and shift, y = w x̂ + b, shared by the dimensions before `normalized_shape`."""
    shape = layer.normalized_shape
    normal = F.layer_norm(x, shape, eps=layer.eps)
    for name, gradients in (("weight", g * normal), ("bias", g)):
        if name in sink.names:
            sink.add(name, gradients.reshape(g.shape[0], -1, *shape).sum(1))


def embedding(layer: nn.Embedding, x: Tensor, g: Tensor, sink: Sink) -> None:
    """The gradient of a row is the sum over its occurrences in the sample, squared afterwards."""
    samples = torch.arange(x.shape[0], device=x.device)
    places = (samples * layer.num_embeddings).reshape(-1, *[1] * (x.ndim - 1)) + x
    places, g = places.flatten(), g.reshape(-1, layer.embedding_dim)
    if layer.padding_idx is not None:
        kept = (x != layer.padding_idx).flatten()
        places, g = places[kept], g[kept]
    distinct, occurrence = torch.unique(places, return_inverse=True)
    rows = g.new_zeros(distinct.shape[0], layer.embedding_dim).index_add_(0, occurrence, g)
    sink.sums.add_lookups(sink.names["weight"], sink.batch, distinct, rows)


def _affine_channels(normal: Tensor, g: Tensor, sink: Sink) -> None:
    for name, gradients in (("weight", g * normal), ("bias", g)):
        if name in sink.names:
            sink.add(name, gradients.reshape(*g.shape[:2], -1).sum(2))


def _padding(layer: nn.Conv1d | nn.Conv2d) -> list[int]:
    """Return the padding in the order of `F.pad`: last dimension first, before and after."""
    pads: list[int] = []
    for axis in reversed(range(len(layer.kernel_size))):
        if layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            pads += [total // 2, total - total // 2]
        elif layer.padding == "valid":
            pads += [0, 0]
        else:
            pads += [int(layer.padding[axis])] * 2
    return pads


def rule_for(layer: nn.Module) -> Callable[[Any, Tensor, Tensor, Sink], None] | None:
    """Return the rule for exactly this type of layer; a subclass may compute something else."""
    if isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.scale_grad_by_freq):
        return None
    return _RULES.get(type(layer))


def needs_dims(layer: nn.Module) -> int:
    """Return the least number of dimensions of the layer's input, with the batch first."""
    match layer:
        case nn.Conv2d():
            return 4
        case nn.Conv1d():
            return 3
        case nn.LayerNorm():
            return 1 + len(layer.normalized_shape)
        case nn.Embedding():
            return 1
        case _:
            return 2


_RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor, Sink], None]] = {
    nn.Linear: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.Embedding: embedding,
}
