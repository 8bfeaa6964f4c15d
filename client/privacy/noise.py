"""Gaussian noise on released Fisher information, equal for equal questions.

A caller that repeats a question could average fresh noise away.  So the generator is seeded by an
HMAC, under the owner's key, of the subject: model, samples, policy and parameter.  Each parameter
is clipped and noised by itself.  Its noise does not depend on the scope, and asking with other
scopes reveals nothing new.
"""

import hmac
from collections.abc import Mapping

import torch
from torch import Tensor

_CONTEXT = b"disinherit noise v1\0"


def add_noise(
    values: Mapping[str, Tensor], deviation: float, key: bytes, about: str
) -> tuple[dict[str, Tensor], int]:
    """Add noise to Fisher information, and set negative results to zero.

    Args:
        values: parameter name -> values.
        deviation: standard deviation of the noise.
        key: key of the owner.
        about: subject of the values, without the parameter.

    Returns:
        The new values, and the number of values set to zero.
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
