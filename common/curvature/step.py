"""One damped Gauss-Newton step that takes samples out of a model.

With g the gradient of the summed loss of the samples to forget, and G' the curvature of all others
(EK-FAC), the minimum of the others' loss is, to second order, at::

    δ = (G' + λ)⁻¹ g

away from that of all.  λ is a share of the mean curvature of each layer, as for influence functions
(Grosse et al. 2023, arXiv 2308.03296).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.common.curvature.ekfac import Curvature
from disinherit.common.curvature.sweeping import parameter_names

DAMPING = 0.1
"""λ as a share of the mean curvature of a layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A step at strength 1.

    Attributes:
        change: change of each covered parameter, in its shape up to trailing dimensions of kernels.
        rise: predicted rise of the mean loss of the remaining samples, for the square of the
            strength.
    """

    change: Mapping[str, Tensor]
    rise: float


def newton_step(
    curvature: Curvature,
    gradients: Mapping[str, Tensor],
    removed: Mapping[str, Tensor],
    samples: int,
    damping: float = DAMPING,
) -> Step:
    """Return the step that takes samples out.

    Args:
        curvature: of all samples.
        gradients: of the summed loss of the samples to forget, in the basis of the curvature.
        removed: what these samples add to the curvature.
        samples: their number.
        damping: share of each layer's mean curvature that is added.
    """
    change: dict[str, Tensor] = {}
    rise = 0.0
    for path, one in curvature.layers.items():
        # Where these samples are nearly all of it, the difference is rounding.
        values = (one.values - removed[path]).clamp_min_(0).to(gradients[path])
        damped = values + damping * values.mean()
        solved = torch.where(damped > 0, gradients[path] / damped, 0)
        rise += (values * solved.square()).sum().item() / 2
        matrix = one.outputs.to(solved) @ solved @ one.inputs.to(solved).mT
        weight, *bias = parameter_names(path, one.with_bias)
        change[weight] = matrix[:, :-1] if bias else matrix
        if bias:
            change[bias[0]] = matrix[:, -1]
    return Step(change, rise / max(1, curvature.count - samples))
