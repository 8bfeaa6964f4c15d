"""The exact Fisher of a head against a bare forward pass, the published way, and a naive one.

forward     the model over all samples, in eval mode, without gradients
exact       `fisher_diagonal`, per-sample Fisher of the head
per class   the same with the sums of each class kept apart
published   the published code: squares of batch-mean gradients, everything outside the head frozen
naive       one backward pass per sample; measured on few samples and scaled up
"""

import torch
from measuring import Claim, Figures, arguments, report, side_by_side
from torch import Tensor, nn

from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.simulations.networks.networks import NetworkSpec

_BATCH = 64
_FEW = 32


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    samples, repeats = (64, 1) if options.reduced else (1024, 7)
    rows = []
    for name, spec in cases(options.reduced).items():
        torch.manual_seed(0)
        model = spec.build(seed=0).eval()
        n = samples // 8 if name == "resnet18" else samples
        batches = random_batches(spec, n)
        rows.append({"network": name, "samples": n, **_measure(model, batches, repeats)})
    claims = []
    for row in rows:
        for kind, most in (("exact", 1.05), ("per class", 1.15)):
            what = f"head Fisher, {kind} / forward pass, {row['network']}"
            claims.append(Claim(1, what, row[f"{kind} / forward"], at_most=most, limit=1.0))
    title = "Fisher of the head: CPU seconds, and ratio to the forward pass"
    report(options, "head_fisher", title, rows, claims)


CASES = {
    "cnn": NetworkSpec("cnn", (1, 28, 28), 10),
    "resnet18": NetworkSpec("resnet18", (3, 32, 32), 100),
    "transformer": NetworkSpec("transformer", (64,), 10, vocabulary=5000),
}


def cases(reduced: bool) -> dict[str, NetworkSpec]:
    """Return the networks to measure: without the largest where it is only about running."""
    return {name: spec for name, spec in CASES.items() if not (reduced and name == "resnet18")}


def random_batches(
    spec: NetworkSpec, samples: int, size: int = _BATCH
) -> list[tuple[Tensor, Tensor]]:
    """Return batches of random inputs and classes for a network."""
    shape = (samples, *spec.input_shape)
    inputs = torch.randint(1, spec.vocabulary, shape) if spec.vocabulary else torch.rand(shape)
    targets = torch.randint(spec.classes, (samples,))
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def few_of(batches: list[tuple[Tensor, Tensor]], count: int) -> list[tuple[Tensor, Tensor]]:
    """Return one batch of the first samples."""
    inputs, targets = batches[0]
    return [(inputs[:count], targets[:count])]


def _measure(model: nn.Module, batches: list[tuple[Tensor, Tensor]], repeats: int) -> Figures:
    seconds = side_by_side(
        {
            "forward": lambda: forward(model, batches),
            "exact": lambda: fisher_diagonal(model, batches),
            "per class": lambda: fisher_diagonal(model, batches, per_class=True),
            "published": lambda: published(model, batches),
        },
        repeats,
    )
    few = few_of(batches, _FEW)
    naive_seconds = side_by_side({"naive": lambda: naive(model, few)}, 1)["naive"].seconds
    samples = sum(len(targets) for _, targets in batches)
    forward_once = seconds["forward"].seconds
    return {
        **seconds,
        **{
            f"{k} / forward": v.over(seconds["forward"])
            for k, v in seconds.items()
            if k != "forward"
        },
        "naive / forward": naive_seconds * samples / _FEW / forward_once,
    }


@torch.inference_mode()
def forward(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Run the model over all samples."""
    for inputs, _ in batches:
        model(inputs)


def published(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Sum squares of batch-mean gradients of the head, as the published code does."""
    head = dict(model.get_submodule("head").named_parameters(prefix="head"))
    frozen = [p for name, p in model.named_parameters() if name not in head]
    for parameter in frozen:
        parameter.requires_grad_(False)
    sums = {name: torch.zeros_like(parameter) for name, parameter in head.items()}
    try:
        for inputs, targets in batches:
            model.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            for name, parameter in head.items():
                assert parameter.grad is not None
                sums[name] += parameter.grad.square() / len(batches)
    finally:
        model.zero_grad()
        for parameter in frozen:
            parameter.requires_grad_(True)
    return sums


def naive(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Sum squared gradients of the head, one backward pass per sample."""
    head = dict(model.get_submodule("head").named_parameters(prefix="head"))
    sums = {name: torch.zeros_like(parameter) for name, parameter in head.items()}
    for inputs, targets in batches:
        for one, target in zip(inputs, targets, strict=True):
            loss = nn.functional.cross_entropy(model(one[None]), target[None])
            gradients = torch.autograd.grad(loss, list(head.values()))
            for name, gradient in zip(head, gradients, strict=True):
                sums[name] += gradient.square()
    return sums


if __name__ == "__main__":
    main()
