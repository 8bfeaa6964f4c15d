"""Attacks on the change of a root (Bertran et al., 2024, arXiv 2405.20272).

To second order, taking samples out moves weights by the inverse curvature times their gradient. So
an attacker with samples of the same kind multiplies the change by *their* curvature, and has the
gradient of the deleted samples, approximately. Images with that gradient are then searched for
(gradient matching, Geiping et al., 2020, arXiv 2003.14053); of a linear model, the gradient of one
sample is the sample itself, times its residual.

The attacker is a strong one: it knows the root's weights before, its loss, its damping, how many
samples were deleted, and their classes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from disinherit.simulations.bench.reconstruction.roots import (
    DAMPING,
    Root,
    flat,
    gradients,
    product,
    solved,
)

_SPEED = 0.05
_SMOOTHNESS = 0.02
_FEW = 300
_FILTERING = 20


def estimated_gradients(root: Root, change: Mapping[str, Tensor], public: Tensor) -> list[Tensor]:
    """Return estimates of the gradient `[d]` of the deleted samples, up to a factor.

    These are H Δ, by second order; Δ itself, which is better after a brief training; and
    H (1 + H / d)⁻¹ Δ, which is between them, for changes with noise: as a rule, noise has far more
    of a direction with high curvature than a change has.  With the damping d, it is the best
    linear estimate for noise as large as the change, if gradients have the covariance H.

    Args:
        root: the root before.
        change: its change.
        public: images of other people, of the same kind.
    """
    moved = flat(change)

    def weaker(vector: Tensor) -> Tensor:
        return vector + product(root, public[:_FEW], vector) / DAMPING

    filtered = solved(weaker, moved, _FILTERING)
    return [
        one.detach()
        for one in (product(root, public, moved), moved, product(root, public, filtered))
    ]


def closed_form(gradient: Tensor, public: Tensor) -> Tensor:
    """Return the one deleted sample of a linear root, `[1, 1, H, W]`, up to a factor.

    Args:
        gradient: of the weights `[classes, pixels]`, then the bias, in one vector.
        public: images of other people, of the same kind.
    """
    pixels = public[0].numel()
    matrix = gradient[: gradient.numel() // (pixels + 1) * pixels].view(-1, pixels)
    direction = torch.linalg.svd(matrix, full_matrices=False)[2][0]
    # The sign of a singular vector is free, that of pixels is not.
    return _in_range((direction * direction.sum().sign()).view(1, *public.shape[1:]))


def matched(root: Root, gradient: Tensor, targets: Tensor, public: Tensor, steps: int) -> Tensor:
    """Return images `[k, 1, H, W]` whose gradient has the direction of a given one.

    Args:
        root: the root before.
        gradient: estimate of the gradient of the deleted samples.
        targets: their classes `[k]`.
        public: images of other people, of the same kind: the search starts from their mean.
        steps: number of steps.
    """
    noise = torch.rand(len(targets), *public.shape[1:], generator=torch.Generator().manual_seed(0))
    images = (0.7 * public.mean(0) + 0.3 * noise).requires_grad_()
    optimizer = torch.optim.Adam([images], _SPEED)
    slower = torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4], 0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        own = flat(gradients(root, images, targets, differentiable=True))
        loss = 1 - torch.cosine_similarity(own, gradient, 0) + _SMOOTHNESS * _roughness(images)
        loss.backward()
        optimizer.step()
        slower.step()
        with torch.no_grad():
            images.clamp_(0, 1)
    return images.detach()


def _roughness(images: Tensor) -> Tensor:
    across, down = images.diff(dim=-1), images.diff(dim=-2)
    return across.abs().mean() + down.abs().mean()


def _in_range(image: Tensor) -> Tensor:
    image = image.clamp(min=0)
    return image / image.max().clamp(min=1e-12)
