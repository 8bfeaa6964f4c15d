"""Quantisation to eight bits, as edge devices do: forgetting must survive it."""

import torch
from torch import Tensor, nn

from disinherit.simulations.bench.panel.accuracies import forget_accuracy, retain_accuracy
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest

_LEVELS = 127


def int8_accuracy(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Forget and retain accuracy with all weight matrices and kernels rounded to eight bits."""
    weights = {name: value.clone() for name, value in candidate.network.state_dict().items()}
    parameters: dict[str, nn.Parameter] = dict(candidate.network.named_parameters())
    for name, value in parameters.items():
        if value.ndim > 1:  # biases and normalisation stay wide, as on real devices
            weights[name] = quantise(value.detach())
    quantised = exam.candidate(weights)
    found = forget_accuracy(exam, quantised) | retain_accuracy(exam, quantised)
    return {f"int8_{name}": value for name, value in found.items()}


def quantise(weight: Tensor) -> Tensor:
    """Return a tensor rounded to 255 levels: symmetric, one scale for the whole tensor.

    `s = max |w| / 127`, `w' = s round(w / s)`; ties are rounded to even.

    Example:
        >>> quantise(torch.tensor([-2.0, 0.9, 0.001])).tolist()
        [-2.0, 0.8976377844810486, 0.0]
    """
    scale = weight.abs().max() / _LEVELS
    return weight.clone() if scale == 0 else torch.round(weight / scale) * scale
