"""Gaussian noise on Fisher information that is released, the same for the same question.

Whoever could ask again and again would average the noise away.  So it is drawn from a generator
that is seeded by an HMAC, under the owner's key, of what it is about: the model, the samples, the
policy and the parameter.  Each parameter is clipped and noised by itself, so that what is said of
it does not depend on the scope, and asking with other scopes tells nothing new.
"""

import hmac
from collections.abc import Mapping

import torch
from torch import Tensor

_CONTEXT = b"disinherit noise v1\0"


def add_noise(
    values: Mapping[str, Tensor], deviation: float, key: bytes, about: str
) -> tuple[dict[str, Tensor], int]:
    """Add noise to a Fisher information, and set what is negative then to zero.

    Args:
        values: parameter name -> values.
        deviation: standard deviation of the noise.
        key: the owner's.
        about: what the values are of, but for the parameter.

    Returns:
        The new values, and how many of them were set to zero.
    """
    noisy: dict[str, Tensor] = {}
    clamped = 0
    for name, value in values.items():
        seed = hmac.digest(key, _CONTEXT + f"{about}\0{name}".encode(), "sha256")
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:8]) >> 1)
        noise = torch.randn(value.shape, dtype=torch.float64, generator=generator)
        moved = value + (noise * deviation).to(value.device, value.dtype)
        clamped += int((moved < 0).sum())
        noisy[name] = moved.clamp_(min=0)
    return noisy, clamped
