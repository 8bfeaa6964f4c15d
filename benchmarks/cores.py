"""What an owner computes, on one core and on all: seconds on the clock.

fisher  `fisher_diagonal` of all layers by closed forms
apply   dampening in place, of tensors as large as the network's

An owner's process has as many threads as PyTorch gives it. In the simulation engine it has one, and
there are as many owners at once as cores.
"""

import os
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from head_fisher import cases, random_batches
from measuring import Figures, arguments, report, side_by_side

from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.fiun.dampening import dampen_
from disinherit.simulations.networks.networks import NetworkSpec


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows = []
    for name, spec in cases(options.reduced).items():
        samples = 32 if name == "resnet18" and not options.reduced else 16
        rows.append({"network": name, **_measure(spec, samples, 1 if options.reduced else 9)})
    report(options, "cores", "An owner's work on one core and on all: seconds", rows, ())


def _measure(spec: NetworkSpec, samples: int, repeats: int) -> Figures:
    torch.manual_seed(0)
    model = spec.build(seed=0)
    batches = random_batches(spec, samples)
    theta = {n: p.detach().clone() for n, p in model.named_parameters()}
    forget, reference = ({n: torch.rand_like(p) for n, p in theta.items()} for _ in range(2))
    work: dict[str, Callable[[], object]] = {
        "fisher": lambda: fisher_diagonal(model, batches, scope="all", method="layers"),
        "apply": lambda: dampen_(theta, forget, reference, 1.0, 0.5),
    }
    cores = os.cpu_count() or 1
    figures: Figures = {"cores": cores}
    for what, run in work.items():
        ways = {"one": partial(_on, 1, run), "all": partial(_on, cores, run)}
        clock = {w: median(t.wall) for w, t in side_by_side(ways, repeats).items()}
        figures |= {f"{what}, {way}": seconds for way, seconds in clock.items()}
        figures[f"{what}, one / all"] = clock["one"] / clock["all"]
    return figures


def _on(threads: int, run: Callable[[], object]) -> None:
    torch.set_num_threads(threads)
    run()


if __name__ == "__main__":
    main()
