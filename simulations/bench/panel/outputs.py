"""Outputs of a network on samples."""

import torch
from torch import Tensor, nn

from disinherit.simulations.bench.cases.subjects import Samples

_BATCH = 512


@torch.inference_mode()
def logits_of(network: nn.Module, samples: Samples) -> Tensor:
    """Return logits `[n, C]` of all samples, on the CPU."""
    device = next(network.parameters()).device
    parts = [network(inputs.to(device)).cpu() for inputs, _ in samples.batches(_BATCH)]
    return torch.cat(parts)
