"""Dampening with registered Fishers against a bound: every tensor read once, theta written once.

bound     time to copy as many bytes as theta, F_forget, F_ref (read) and theta (written) have
in place  `dampen_`: what an owner runs on the weights it has loaded
copies    `dampen`: new tensors
masks     the plain way: comparison, division, power, clamp and where() over whole tensors
loop      the published code: one tensor after another with index lists of what is selected
"""

import torch
from measuring import Claim, Figures, arguments, peak_bytes, report, side_by_side
from torch import Tensor

from disinherit.common.fiun.dampening import dampen, dampen_

ALPHA, LAM = 1.0, 0.5
Tensors = dict[str, Tensor]


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    cases = CASES[:1] if options.reduced else CASES
    rows = [_measure(name, shapes, 2 if options.reduced else 15) for name, shapes in cases]
    claims = []
    for name in LARGE:
        for row in (row for row in rows if row["tensors"] == name):
            ratio, extra = row["in place / bound"], row["extra memory"]
            claims.append(Claim(3, f"apply / memory bound, {name}", ratio, at_most=2, limit=1.0))
            claims.append(Claim(3, f"extra memory / largest tensor, {name}", extra, at_most=0.1))
    title = "Apply: CPU seconds, ratio to the bound, extra memory over the largest tensor"
    report(options, "apply", title, rows, claims)


CASES: list[tuple[str, list[tuple[int, ...]]]] = [
    ("head 10 x 64", [(10, 64), (10,)]),
    ("head 1000 x 2048", [(1000, 2048), (1000,)]),
    ("11 M in 20 convolutions", [(256, 256, 3, 3)] * 19),
    ("one of 64 M", [(8192, 8192)]),
]
LARGE = ("11 M in 20 convolutions", "one of 64 M")


def _measure(name: str, shapes: list[tuple[int, ...]], repeats: int) -> Figures:
    torch.manual_seed(0)
    theta = {str(i): torch.randn(shape) for i, shape in enumerate(shapes)}
    forget = {name: torch.rand(value.shape) for name, value in theta.items()}
    reference = {name: torch.rand(value.shape) for name, value in theta.items()}
    targets = {name: torch.empty_like(value) for name, value in theta.items()}

    def bound() -> None:
        for _ in range(2):  # a copy reads once and writes once: two have three reads and a write
            for name, value in theta.items():
                targets[name].copy_(value)

    seconds = side_by_side(
        {
            "bound": bound,
            "in place": lambda: dampen_(theta, forget, reference, ALPHA, LAM),
            "copies": lambda: dampen(theta, forget, reference, ALPHA, LAM),
            "masks": lambda: masks(theta, forget, reference),
            "loop": lambda: indexed(theta, forget, reference),
        },
        repeats,
    )
    largest = max(value.numel() * value.element_size() for value in theta.values())
    extra = peak_bytes(lambda: dampen_(theta, forget, reference, ALPHA, LAM))
    ratios = {f"{k} / bound": v.over(seconds["bound"]) for k, v in seconds.items() if k != "bound"}
    return {"tensors": name, **seconds, **ratios, "extra memory": extra / largest}


def masks(theta: Tensors, forget: Tensors, reference: Tensors) -> Tensors:
    """Dampen with masks over whole tensors."""
    new = {}
    for name, value in theta.items():
        selected = forget[name] > ALPHA * reference[name]
        factor = (LAM * reference[name] / forget[name]).pow(1.0).clamp(max=1.0)
        new[name] = torch.where(selected, value * factor, value)
    return new


def indexed(theta: Tensors, forget: Tensors, reference: Tensors) -> None:
    """Dampen in place as the published code does: with the indices of what is selected."""
    for name, value in theta.items():
        weight = ((reference[name] * LAM) / forget[name]).pow(1.0)
        locations = torch.where(forget[name] > reference[name] * ALPHA)
        update = weight[locations]
        update[update > 1.0] = 1.0
        value[locations] = value[locations].mul(update)


if __name__ == "__main__":
    main()
