"""Tensors and heads by whose numbers the method is tested."""

import torch
from hypothesis import settings
from torch import Tensor

from disinherit.common.fiun.gauge import LinearHead

untimed = settings(deadline=None)  # a busy machine is not a wrong result


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[n], right[n]) for n in left)


def published_rule(
    theta: float, forget: float, full: float, alpha: float, lam: float, exponent: float
) -> tuple[float, bool]:
    """SSD as published, one value at a time: a factor above 1 is set to 1."""
    if not forget > alpha * full:
        return theta, False
    factor = (lam * full / forget) ** exponent
    if factor > 1:
        factor = 1.0
    return theta * factor, True


def random_head(seed: int, classes: int = 5, features: int = 4) -> LinearHead:
    generator = torch.Generator().manual_seed(seed)
    return LinearHead(
        torch.randn(classes, features, generator=generator, dtype=torch.float64),
        torch.randn(classes, generator=generator, dtype=torch.float64),
    )


def logits_of(weight: Tensor, bias: Tensor | None, features: Tensor) -> Tensor:
    return features @ weight.T + (0 if bias is None else bias)


def model(head: LinearHead) -> dict[str, Tensor]:
    assert head.bias is not None
    return {"conv": f64(1, 2), "out.weight": head.weight, "out.bias": head.bias}
