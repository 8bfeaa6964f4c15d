"""Quantisation to eight and to four bits, as edge devices do: forgetting must survive it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from disinherit.simulations.bench.panel.accuracies import forget_accuracy, retain_accuracy
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest

_LEVELS = 127
_LEVELS_OF_FOUR_BITS = 7


def int8_accuracy(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Forget and retain accuracy with all weight matrices and kernels rounded to eight bits."""
    return _accuracies(exam, candidate, "int8", quantise)


def int4_accuracy(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Forget and retain accuracy with them rounded to four bits, each output by a scale of its own.

    With one scale for a whole tensor most weights would become zero, which nobody would deploy.
    """
    return _accuracies(exam, candidate, "int4", quantise_rows)


def _accuracies(
    exam: EvaluationContext,
    candidate: ModelUnderTest,
    name: str,
    rounded: Callable[[Tensor], Tensor],
) -> dict[str, float]:
    weights = {name: value.clone() for name, value in candidate.network.state_dict().items()}
    parameters: dict[str, nn.Parameter] = dict(candidate.network.named_parameters())
    for key, value in parameters.items():
        if value.ndim > 1:  # biases and normalisation stay wide, as on real devices
            weights[key] = rounded(value.detach())
    quantised = exam.candidate(weights)
    found = forget_accuracy(exam, quantised) | retain_accuracy(exam, quantised)
    return {f"{name}_{metric}": value for metric, value in found.items()}


def quantise(weight: Tensor) -> Tensor:
    """Return a tensor rounded to 255 levels: symmetric, one scale for the whole tensor.

    `s = max |w| / 127`, `w' = s round(w / s)`; ties are rounded to even.

    Example:
        >>> quantise(torch.tensor([-2.0, 0.9, 0.001])).tolist()
        [-2.0, 0.8976377844810486, 0.0]
    """
    scale = weight.abs().max() / _LEVELS
    return weight.clone() if scale == 0 else torch.round(weight / scale) * scale


def quantise_rows(weight: Tensor) -> Tensor:
    """Return a tensor rounded to 15 levels: symmetric, one scale for each row of its first axis.

    `s = max |row| / 7`, `w' = s round(w / s)`; ties are rounded to even.

    Example:
        >>> quantise_rows(torch.tensor([[7.0, 1.4], [0.5, 0.7]])).tolist()
        [[7.0, 1.0], [0.5, 0.699999988079071]]
    """
    scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    scale = scale / _LEVELS_OF_FOUR_BITS
    return torch.where(scale == 0, weight, torch.round(weight / scale) * scale)
