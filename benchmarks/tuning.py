"""Tuning alpha, lambda and the gauge against forward passes over the tuning split.

forward     the model over the tuning split once, in eval mode, without gradients
tuning      what an owner does: features once, then the grid of 108 strengths, six at a time
sweep       the part of it that comes after the features
one by one  features once, then each strength by itself
"""

import itertools
from typing import Any

import torch
from head_fisher import CASES, forward, random_batches
from measuring import Claim, Figures, Times, arguments, report, side_by_side
from torch import Tensor, nn

from disinherit.client.dampening.logits import CachedLogits
from disinherit.client.dampening.tuning import ALPHAS, GAUGES, LAMBDAS, FixedStrength, tune
from disinherit.common.fiun.unlearning import StrengthGrid, unlearn_parameters

HEAD = ("head.weight", "head.bias")
ROWS = (("cnn", "head", 1024), ("cnn", "head", 128), ("transformer", "head", 512))
LARGE_ROWS = (("resnet18", "head", 64), ("cnn", "all", 128))
Batches = list[tuple[Tensor, Tensor]]


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows, claims = [], []
    for name, scope, samples in ROWS[1:2] if options.reduced else ROWS + LARGE_ROWS:
        torch.manual_seed(0)
        model = CASES[name].build(seed=0).eval()
        batches = random_batches(CASES[name], samples)
        row = _measure(model, batches, scope, 1 if options.reduced else 5)
        rows.append({"network": name, "scope": scope, "samples": samples, **row})
        if scope == "head":
            what = f"tuning of the head / forward pass, {name}, {samples} samples"
            claims.append(Claim(9, what, row["tuning / forward"], at_most=2, limit=1.0))
    title = "Tuning: CPU seconds, and ratio to the forward pass over the tuning split"
    report(options, "tuning", title, rows, claims)


def _measure(model: nn.Module, batches: Batches, scope: str, repeats: int) -> Figures:
    case = Case(model, batches, scope)
    ways = {"forward": lambda: forward(model, batches), "tuning": case.tuning}
    if scope == "head":
        logits = case.logits()
        ways |= {"sweep": lambda: case.tuning(logits), "one by one": case.one_by_one}
    seconds: dict[str, Times] = side_by_side(ways, repeats)
    ratios = {
        f"{name} / forward": seconds[name].over(seconds["forward"])
        for name in ways
        if name != "forward"
    }
    return {**seconds, **ratios}


class Case:
    """A model that is to forget the class of its first sample, with random Fishers.

    Args:
        model: the model.
        batches: its tuning split.
        scope: `head` or `all`.
    """

    def __init__(self, model: nn.Module, batches: Batches, scope: str) -> None:
        self._model, self._batches = model, batches
        self._forgotten = int(batches[0][1][0])
        self._parameters = {
            name: value.detach()
            for name, value in model.named_parameters()
            if scope == "all" or name in HEAD
        }
        self._fishers = [{n: torch.rand_like(v) for n, v in self._parameters.items()} for _ in "fr"]
        self._rule: dict[str, Any] = {
            "exponent": 1.0,
            "bound": 1.0,
            "heads": [HEAD],
            "forgotten_rows": None,  # rows that are taken out are not tuned
        }

    def logits(self) -> CachedLogits:
        """Cache what can be."""
        names = frozenset(self._parameters)
        return CachedLogits(self._model, self._batches, names, torch.device("cpu"))

    def tuning(self, logits: CachedLogits | None = None) -> None:
        """Choose a strength."""
        forget, reference = self._fishers
        sweep = StrengthGrid(self._parameters, forget, reference, **self._rule)
        tune(sweep, logits or self.logits(), [self._forgotten], FixedStrength())

    def one_by_one(self) -> None:
        """Try one strength after the other."""
        logits = self.logits()
        forget, reference = self._fishers
        forgotten = logits.targets == self._forgotten
        for alpha, lam, gauge in itertools.product(ALPHAS, LAMBDAS, GAUGES):
            new = unlearn_parameters(
                self._parameters,
                forget,
                reference,
                alpha=alpha,
                lam=lam,
                gauge=gauge,
                **self._rule,
            ).parameters
            right = torch.cat(list(logits([new])))[:, 0].argmax(dim=1) == logits.targets
            right[forgotten].double().mean().item()
            right[~forgotten].double().mean().item()


if __name__ == "__main__":
    main()
