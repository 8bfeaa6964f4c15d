"""The exact Fisher of all layers against a training step, and against general ways to it.

step    forward and backward pass and an SGD step over the same batches
layers  `fisher_diagonal` over all parameters by closed forms
vmap    `fisher_diagonal` by `vmap(grad)`, in chunks
single  one backward pass per sample; measured on few samples and scaled up
"""

import torch
from head_fisher import cases, few_of, random_batches
from measuring import Claim, Figures, arguments, peak_bytes, report, side_by_side
from torch import Tensor, nn

from disinherit.common.fisher.diagonal import fisher_diagonal

_FEW = 16
Batches = list[tuple[Tensor, Tensor]]


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows = []
    for name, spec in cases(options.reduced).items():
        torch.manual_seed(0)
        samples = {"resnet18": 32}.get(name, 256) // (8 if options.reduced else 1)
        batches = random_batches(spec, samples)
        figures = _measure(spec.build(seed=0), batches, 1 if options.reduced else 5)
        rows.append({"network": name, "samples": samples, **figures})
    claims = []
    for row in rows:
        network = row["network"]
        step, vmap, memory = (row[k] for k in ("layers / step", "vmap / layers", "memory / step"))
        claims += [
            Claim(2, f"all-layer Fisher / training step, {network}", step, at_most=3),
            Claim(2, f"vmap(grad) / all-layer Fisher, {network}", vmap, at_least=4),
            Claim(2, f"peak memory / training step's, {network}", memory, at_most=2.5),
        ]
    title = "Fisher of all layers: CPU seconds, ratio to a training step, peak memory"
    report(options, "layer_fisher", title, rows, claims)


def _measure(model: nn.Module, batches: Batches, repeats: int) -> Figures:
    seconds = side_by_side(
        {
            "step": lambda: steps(model, batches),
            "layers": lambda: fisher_diagonal(model, batches, scope="all", method="layers"),
        },
        repeats,
    )
    # In one run, but with fewer turns: they are slow.
    vmap = side_by_side(
        {"": lambda: fisher_diagonal(model, batches, scope="all", method="vmap")}, 1
    )[""].seconds
    few = few_of(batches, _FEW)
    one_by_one = side_by_side({"": lambda: single(model, few)}, 1)[""].seconds
    one_by_one *= sum(len(targets) for _, targets in batches) / _FEW
    memory = {
        "step": peak_bytes(lambda: steps(model, batches[:1])),
        "layers": peak_bytes(
            lambda: fisher_diagonal(model, batches[:1], scope="all", method="layers")
        ),
    }
    return {
        **seconds,
        "layers / step": seconds["layers"].over(seconds["step"]),
        "vmap / step": vmap / seconds["step"].seconds,
        "single / step": one_by_one / seconds["step"].seconds,
        "vmap / layers": vmap / seconds["layers"].seconds,
        "memory / step": memory["layers"] / memory["step"],
    }


def steps(model: nn.Module, batches: Batches) -> None:
    """Train: one step per batch, at a rate that changes nothing to speak of."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)
    for inputs, targets in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad()


def single(model: nn.Module, batches: Batches) -> dict[str, Tensor]:
    """Sum squared gradients of all parameters, one backward pass per sample."""
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    model.eval()
    for inputs, targets in batches:
        for one, target in zip(inputs, targets, strict=True):
            loss = nn.functional.cross_entropy(model(one[None]), target[None])
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            for name, gradient in zip(parameters, gradients, strict=True):
                sums[name] += gradient.square()
    return sums


if __name__ == "__main__":
    main()
