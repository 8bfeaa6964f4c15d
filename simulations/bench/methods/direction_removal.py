"""DAMP: directions that only forgotten classes have, projected out of the inputs of each layer."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from disinherit.common.errors import NotApplicableError
from disinherit.simulations.bench.cases.subjects import MethodCase, MethodSubject, Samples, Weights
from disinherit.simulations.bench.methods.handing_down import trained_or_handed_down
from disinherit.simulations.bench.methods.method import Unlearned
from disinherit.simulations.bench.methods.tuning import Tuner
from disinherit.simulations.bench.panel.outputs import logits_of
from disinherit.simulations.bench.panel.probing import ridge_classifier

_LEAST = 1e-4
"""Part of a class's mean that has to lie outside the span of the kept classes' means: below that,
as in a layer with fewer inputs than there are kept classes, the direction is rounding."""


@dataclass(frozen=True)
class DirectionRemoval:
    """DAMP, depth-aware modulation by projection (Hatami et al. 2026, arXiv 2604.15166).

    With z the inputs of layer `l + 1`, l = 1..L, W its weights, and R the means of z over each kept
    class, as columns::

        d_f = mu_f - R R^+ mu_f                    of each forgotten class f, with mean mu_f
        W <- W (I - a_l Q Q^T)                     Q an orthonormal basis of all d_f
        a_l = min(1, max(0, 2 p_l - 1)) l / L      p_l the accuracy of a probe: forgotten or kept?

    Biases stay.  There is nothing to choose, and no training.  A model without samples to forget
    gets the difference that this made at the roots above it.

    The equations are those that descriptions of the paper agree on.  Not said there, and so ours:
    a convolution's inputs are its channels, averaged over places; the probe is linear, counts both
    sides alike, so that a guess has 1/2, and is fitted to one half of the training samples and
    tested on the other; all is measured once, in the original model; a stage is a layer.
    """

    def __call__(self, case: MethodCase) -> Unlearned:
        """Edit every model that has samples to forget, and hand the difference down.

        Raises:
            NotApplicableError: if samples are to be forgotten: they have no mean of their own.
        """
        if not case.by_class:
            raise NotApplicableError("a layer has a mean input for a class, but none for samples")
        return trained_or_handed_down(
            case, Tuner(case, (None,)), lambda subject, _: edited(case, subject)
        )


def edited(case: MethodCase, subject: MethodSubject) -> Weights:
    """Return a subject with samples to forget after the projections.

    Without retained samples there is nothing to tell them from, and it stays as it is.
    """
    if not len(subject.retain):
        return subject.original
    data = Samples.joined([subject.forget, subject.retain])
    forgotten = torch.arange(len(data)) < len(subject.forget)
    inputs = layer_inputs(subject.network(subject.original), data)
    weights = dict(subject.original)
    for place, (layer, features) in enumerate(inputs.items(), start=1):
        basis = forget_basis(features, data.targets, forgotten)
        strength = separability(features, forgotten, case.seed) * place / len(inputs)
        name = f"{layer}.weight"
        weights[name] = project_out(weights[name], basis, strength)
    return weights


def layer_inputs(network: nn.Module, samples: Samples) -> dict[str, Tensor]:
    """Return the inputs `[n, d]` of each linear layer and convolution after the first layer.

    They are in the order of the forward pass, and averaged over places.  Layers that are called
    more than once, and convolutions in groups, are left out.
    """
    called: list[str] = []
    kept: dict[str, list[Tensor]] = {}
    handles = []

    def watch(name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        called.append(name)
        if isinstance(module, nn.Linear):
            kept.setdefault(name, []).append(
                given[0].flatten(1, -2).mean(1) if given[0].ndim > 2 else given[0]
            )
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            kept.setdefault(name, []).append(given[0].mean(dim=(2, 3)))

    for name, module in network.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            handles.append(module.register_forward_pre_hook(partial(watch, name)))
    try:
        logits_of(network, samples)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: torch.cat(parts)
        for name, parts in kept.items()
        if name != called[0] and len(parts) == called.count(called[0])
    }


def forget_basis(features: Tensor, targets: Tensor, forgotten: Tensor) -> Tensor:
    """Return an orthonormal basis `[d, k]` of what only forgotten classes have.

    Args:
        features: inputs of a layer `[n, d]`.
        targets: class indices `[n]`.
        forgotten: which samples `[n]` are of forgotten classes.

    Returns:
        The basis in float64; k is at most the number of forgotten classes, and 0 where the kept
        classes' means span theirs.
    """
    wide = features.double()
    means = [
        torch.stack([wide[targets == c].mean(dim=0) for c in targets[side].unique()], dim=1)
        for side in (~forgotten, forgotten)
    ]
    kept, lost = means
    outside = lost - kept @ (torch.linalg.pinv(kept) @ lost)
    relative = outside / lost.norm(dim=0).clamp(min=1e-300)
    directions: Tensor
    directions, sizes, _ = torch.linalg.svd(relative, full_matrices=False)
    return directions[:, sizes > _LEAST]


def separability(features: Tensor, forgotten: Tensor, seed: int) -> float:
    """Return `min(1, max(0, 2 p - 1))` with the accuracy p of a probe on samples held out from it.

    Args:
        features: inputs of a layer `[n, d]`.
        forgotten: which samples `[n]` are of forgotten classes.
        seed: of which half of either side is held out.

    Returns:
        0 where a side has fewer than two samples, too.
    """
    generator = torch.Generator().manual_seed(seed)
    fitted = torch.zeros_like(forgotten)
    for side in (forgotten, ~forgotten):
        positions = side.nonzero().flatten()
        if len(positions) < 2:
            return 0.0
        order = torch.randperm(len(positions), generator=generator)
        fitted[positions[order[: len(positions) // 2]]] = True
    truth = forgotten.long()
    found = ridge_classifier(features[fitted], truth[fitted], 2, features[~fitted])
    right = (found == truth[~fitted]).double()
    sides = [right[truth[~fitted] == side].mean().item() for side in (0, 1)]
    return max(0.0, sum(sides) - 1)


def project_out(weight: Tensor, basis: Tensor, strength: float) -> Tensor:
    """Return `W (I - strength Q Q^T)`.

    Args:
        weight: `[c, d, ...]`; of a convolution, at each place of its kernel.
        basis: Q, orthonormal `[d, k]`.
        strength: in [0, 1].

    Example:
        >>> project_out(torch.ones(1, 2), torch.tensor([[1.0], [0.0]]).double(), 0.5)
        tensor([[0.5000, 1.0000]])
    """
    rows = weight.double().movedim(1, -1)
    edited_rows = rows - strength * (rows @ basis) @ basis.T
    return edited_rows.movedim(-1, 1).to(weight.dtype)
