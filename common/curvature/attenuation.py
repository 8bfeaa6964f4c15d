"""Attenuation of a change that a model inherits, by the model's own curvature.

A model that was trained on data of its own after it inherited a change holds on to it most where
that data says least.  With curvature Λ in the basis U, V of a layer (EK-FAC), a change δ becomes::

    δ' = U (Uᵀ δ V ∘ λ / (Λ + λ)) Vᵀ

so that it is left out along directions in which the model's own data would suffer from it.  What
that is worth was measured (docs/method.md, section 14).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from disinherit.common.curvature.ekfac import Curvature
from disinherit.common.curvature.sweeping import parameter_names

DAMPING = 10.0
"""λ as a share of the mean curvature of a layer; measured in docs/method.md, section 14."""


@torch.no_grad()
def attenuated(
    change: Mapping[str, Tensor], curvature: Curvature, damping: float = DAMPING
) -> dict[str, Tensor]:
    """Return a change as a model takes it.

    Args:
        change: name -> change; a layer that lacks its weight or, where it is covered, its bias
            keeps what there is of it.
        curvature: of the model, over its own data.
        damping: λ, as a share of the mean curvature of each layer.
    """
    taken = dict(change)
    for path, one in curvature.layers.items():
        names = parameter_names(path, one.with_bias)
        if not all(name in change for name in names):
            continue
        weight, *bias = (change[name] for name in names)
        columns = [weight.flatten(1), *(value[:, None] for value in bias)]
        matrix = torch.cat(columns, dim=1).to(one.values)
        share = damping * one.values.mean()
        inner = one.outputs.mT @ matrix @ one.inputs
        inner *= torch.where(share > 0, share / (one.values + share), 1)
        matrix = one.outputs @ inner @ one.inputs.mT
        taken[names[0]] = matrix[:, : matrix.shape[1] - len(bias)].reshape(weight.shape).to(weight)
        for value in bias:
            taken[names[1]] = matrix[:, -1].to(value)
    return taken
