"""Quality of reconstructions: similar to deleted samples, and more so than to unrelated ones."""

import torch
from torch import Tensor, nn

from disinherit.simulations.bench.reconstruction.roots import Root, flat, gradients

_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2


def reconstruction_quality(found: Tensor, true: Tensor, unrelated: Tensor, mean: Tensor) -> Tensor:
    """Return cosine, SSIM and recognition `[3]`, as means over the true samples.

    Args:
        found: reconstructions `[m, 1, H, W]`.
        true: deleted samples `[k, 1, H, W]`.
        unrelated: images of other people `[u, 1, H, W]`.
        mean: mean image `[1, H, W]`.
    """
    to_true, to_others = _cosines(found, true, mean), _cosines(found, unrelated, mean)
    recognised = (to_true > to_others.amax(1, keepdim=True)).any(0).float()
    return torch.stack(
        [to_true.amax(0).mean(), ssims(found, true).amax(0).mean(), recognised.mean()]
    )


def nearest(true: Tensor, unrelated: Tensor, mean: Tensor) -> tuple[float, float]:
    """Return cosine and SSIM of the unrelated image that is most similar to each true sample."""
    cosines = _cosines(unrelated, true, mean).amax(0).mean()
    return float(cosines), float(ssims(unrelated, true).amax(0).mean())


def told_apart(gradient: Tensor, deleted: Tensor, others: Tensor) -> float:
    """Return the area under the curve of a test of known samples for having been deleted.

    Args:
        gradient: estimate of the gradient of all deleted samples, `[d]`.
        deleted: gradients of the deleted samples `[k, d]`, as `directions`.
        others: gradients of unrelated samples `[u, d]`, as `directions`.
    """
    differences = (deleted @ gradient)[:, None] - others @ gradient
    return float(((differences > 0).double() + (differences == 0).double() / 2).mean())


def directions(root: Root, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of each sample at the root before, of length 1, `[n, d]`."""
    found = [
        flat(gradients(root, inputs[i : i + 1], targets[i : i + 1])) for i in range(len(targets))
    ]
    return nn.functional.normalize(torch.stack(found))


def ssims(one: Tensor, other: Tensor) -> Tensor:
    """Return the structural similarity `[m, k]` of all pairs, in windows of 7 x 7 pixels."""
    own, theirs = _windows(one), _windows(other)
    mean_x, mean_y = own.mean(1)[:, None], theirs.mean(1)[None]
    rows = []
    for index, window in enumerate(own):  # one image at a time, for memory
        mixed = (window * theirs).mean(1) - mean_x[index] * mean_y[0]
        var_x, var_y = window.var(0, correction=0), theirs.var(1, correction=0)
        light = (2 * mean_x[index] * mean_y[0] + _C1) / (mean_x[index] ** 2 + mean_y[0] ** 2 + _C1)
        rows.append((light * (2 * mixed + _C2) / (var_x + var_y + _C2)).mean(1))
    return torch.stack(rows)


def _windows(images: Tensor) -> Tensor:
    """Return the pixels of each window, `[n, pixels, windows]`."""
    return nn.functional.unfold(images, _WINDOW, stride=3)


def _cosines(one: Tensor, other: Tensor, mean: Tensor) -> Tensor:
    rows = [nn.functional.normalize((images - mean).flatten(1)) for images in (one, other)]
    return rows[0] @ rows[1].T
