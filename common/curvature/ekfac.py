"""Gauss-Newton curvature of a classifier, Kronecker-factored with corrected eigenvalues (EK-FAC).

For a layer y = W x, gradients of a sample are g xᵀ, with g the gradient of the output.  EK-FAC
(George et al. 2018, arXiv 1806.03884) takes the eigenvectors V of Σ x xᵀ and U of Σ g gᵀ, and sums
the squares of all gradients in that basis::

    Λ = Σᵢ Σ_c (Uᵀ g_ic xᵢᵀ V)²,    G ≈ (U ⊗ V) diag(Λ) (U ⊗ V)ᵀ

The g_ic come from the columns of a square root of the Hessian of the cross-entropy, diag(p) - ppᵀ,
so that sums over c are exact expectations over the model's own labels: G is the Gauss-Newton matrix
of the summed loss, not the empirical Fisher information.  The loss of a sequence is the mean of
those of its tokens, so for a language model c goes over the tokens and, for each, the vocabulary.

Λ is a sum over samples.  What some samples add to it can be subtracted again, exactly for at most
`COLUMNS` classes: what remains is the curvature of the others, in the same basis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from disinherit.common.curvature.sweeping import (
    Batches,
    Layers,
    coverable,
    loss_gradients,
    parameter_names,
    square_root,
    sweep,
)
from disinherit.common.errors import FisherError
from disinherit.common.fisher.gradients import widest
from disinherit.common.models.inputs import unpack_batch

_CHUNK = 2**24
_OUTPUTS, _INPUTS, _VALUES, _BIAS = "outputs:", "inputs:", "values:", "bias:"
_COUNT = "count"


@dataclass(frozen=True, slots=True, eq=False)
class LayerCurvature:
    """Curvature of one layer's weight `[o, d]`, with its bias, if covered, as the last input.

    Attributes:
        with_bias: whether the bias is covered.
        outputs: eigenvectors of output gradients, in columns, `[o, o]`.
        inputs: eigenvectors of inputs, in columns, `[d, d]`.
        values: curvature along each pair of them, summed over samples, `[o, d]`.
    """

    with_bias: bool
    outputs: Tensor
    inputs: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """Curvature of the summed loss of a model.

    Attributes:
        layers: by dotted name.
        count: number of samples.
    """

    layers: Mapping[str, LayerCurvature]
    count: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the covered parameters."""
        layers = self.layers.items()
        return tuple(name for path, one in layers for name in parameter_names(path, one.with_bias))


def measure(
    model: nn.Module, names: Sequence[str], batches: Batches, device: torch.device
) -> Curvature:
    """Compute the curvature of the summed cross-entropy, in two passes over the samples.

    Args:
        model: maps inputs to logits `[n, C]`; it runs in eval mode and is restored.
        names: parameters to cover where possible (`disinherit.common.curvature.sweeping`).
        batches: inputs and targets; each iteration starts again.
        device: for the inputs.

    Raises:
        FisherError: if there are no samples, no layer can be covered, or a result is not finite.
    """
    layers = coverable(model, names, batches, device)
    if not layers:
        raise FisherError(
            f"Expected a linear layer or convolution that is used once among {', '.join(names)}, "
            "but got none, so there is no curvature to register."
        )
    outputs: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for part in sweep(model, layers, batches, square_root, device):
        x, g = part.inputs.flatten(0, 1), part.gradients.flatten(0, 1)
        _add(outputs, part.path, g.mT @ g)
        if part.first:
            _add(inputs, part.path, x.mT @ x)
    basis = {
        path: LayerCurvature(
            with_bias,
            _eigenvectors(path, outputs.pop(path), _stored(model, path)),
            _eigenvectors(path, inputs.pop(path), _stored(model, path)),
            torch.empty(0),
        )
        for path, with_bias in layers.items()
    }
    values = squares(model, Curvature(basis, 0), batches, device)
    count = sum(len(unpack_batch(item, index)[1]) for index, item in enumerate(batches))
    return Curvature({p: replace(one, values=values[p]) for p, one in basis.items()}, count)


def squares(
    model: nn.Module, curvature: Curvature, batches: Batches, device: torch.device
) -> dict[str, Tensor]:
    """Return what some samples add to the curvature of each layer, in its basis, `[o, d]`.

    Args:
        model: the model, with the weights that the curvature was computed at.
        curvature: the basis.
        batches: inputs and targets.
        device: for the inputs.

    Raises:
        FisherError: if the model calls its layers otherwise than before.
    """
    totals: dict[str, Tensor] = {}
    for part in sweep(model, _layers(curvature), batches, square_root, device):
        one = curvature.layers[part.path]
        g = part.gradients @ one.outputs.to(part.gradients)
        x = part.inputs @ one.inputs.to(part.inputs)
        if g.shape[1] == 1:
            _add(totals, part.path, g[:, 0].square().mT @ x[:, 0].square())
            continue
        rows = max(1, _CHUNK // (g.shape[2] * x.shape[2]))
        for some, others in zip(g.split(rows), x.split(rows), strict=True):
            _add(totals, part.path, (some.mT @ others).square().sum(0))
    return {
        path: totals[path].to("cpu", one.inputs.dtype) for path, one in curvature.layers.items()
    }


def gradients(
    model: nn.Module, curvature: Curvature, batches: Batches, device: torch.device
) -> dict[str, Tensor]:
    """Return the gradient of the summed cross-entropy of some samples, in each layer's basis.

    The arguments are those of `squares`.

    Raises:
        FisherError: if the model calls its layers otherwise than before.
    """
    totals: dict[str, Tensor] = {}
    for part in sweep(model, _layers(curvature), batches, loss_gradients, device):
        _add(totals, part.path, part.gradients.flatten(0, 1).mT @ part.inputs.flatten(0, 1))
    found = {path: total.cpu() for path, total in totals.items()}
    return {
        path: one.outputs.to(found[path]).mT @ found[path] @ one.inputs.to(found[path])
        for path, one in curvature.layers.items()
    }


def as_tensors(curvature: Curvature) -> dict[str, Tensor]:
    """Return a curvature as tensors by name, as it is stored."""
    tensors = {_COUNT: torch.tensor(curvature.count)}
    for path, one in curvature.layers.items():
        tensors[_OUTPUTS + path] = one.outputs
        tensors[_INPUTS + path] = one.inputs
        tensors[_VALUES + path] = one.values
        tensors[_BIAS + path] = torch.tensor(one.with_bias)
    return tensors


def from_tensors(tensors: Mapping[str, Tensor]) -> Curvature:
    """Return the curvature of tensors of `as_tensors`."""
    # Sorted, since files do not keep an order: the same sums in each run.
    paths = sorted(name.removeprefix(_VALUES) for name in tensors if name.startswith(_VALUES))
    layers = {
        path: LayerCurvature(
            bool(tensors[_BIAS + path]),
            tensors[_OUTPUTS + path],
            tensors[_INPUTS + path],
            tensors[_VALUES + path],
        )
        for path in paths
    }
    return Curvature(layers, int(tensors[_COUNT]))


def _layers(curvature: Curvature) -> Layers:
    return {path: one.with_bias for path, one in curvature.layers.items()}


def _stored(model: nn.Module, path: str) -> torch.dtype:
    (name,) = parameter_names(path, with_bias=False)
    return torch.promote_types(model.get_parameter(name).dtype, torch.float32)


def _eigenvectors(path: str, matrix: Tensor, dtype: torch.dtype) -> Tensor:
    matrix = matrix.cpu()
    if not bool(matrix.isfinite().all()):
        raise FisherError(
            f"Expected finite inputs and gradients of layer {path!r}, but got others. Check the "
            "model's weights and data."
        )
    vectors: Tensor = torch.linalg.eigh((matrix + matrix.mT) / 2).eigenvectors
    return vectors.to(dtype)


def _add(totals: dict[str, Tensor], path: str, value: Tensor) -> None:
    value = value.to(widest(value.device))
    totals[path] = totals[path].add_(value) if path in totals else value
