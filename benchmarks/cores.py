"""What an owner computes, on one core and on all: seconds on the clock.

fisher  `fisher_diagonal` of all layers by closed forms
apply   dampening in place, of tensors as large as the network's

An owner's process has as many threads as PyTorch gives it. In the simulation engine it has one, and
there are as many owners at once as cores.
"""

import os
from collections.abc import Callable

import torch
from head_fisher import cases, random_batches
from measuring import Claim, Figures, arguments, report, side_by_side

from disinherit.common.dampening import dampen_
from disinherit.common.fisher import fisher_diagonal


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    cores = os.cpu_count() or 1
    rows: list[Figures] = []
    for name, spec in cases(options.reduced).items():
        torch.manual_seed(0)
        model = spec.build(seed=0)
        batches = random_batches(spec, 32 if name == "resnet18" and not options.reduced else 16)
        theta = {n: p.detach().clone() for n, p in model.named_parameters()}
        forget, reference = ({n: torch.rand_like(p) for n, p in theta.items()} for _ in range(2))
        work: dict[str, Callable[[], object]] = {
            "fisher": lambda m=model, b=batches: fisher_diagonal(
                m, b, scope="all", method="layers"
            ),
            "apply": lambda t=theta, f=forget, r=reference: dampen_(t, f, r, 1.0, 0.5),
        }
        row: Figures = {"network": name, "cores": cores}
        for what, run in work.items():
            times = side_by_side(
                {
                    f"{what}, one": lambda run=run: _on(1, run),
                    f"{what}, all": lambda run=run: _on(cores, run),
                },
                1 if options.reduced else 9,
            )
            clock = {key: sorted(value.wall)[len(value.wall) // 2] for key, value in times.items()}
            row |= clock
            row[f"{what}, one / all"] = clock[f"{what}, one"] / clock[f"{what}, all"]
        rows.append(row)
    claims: list[Claim] = []
    report(options, "cores", "An owner's work on one core and on all: seconds", rows, claims)


def _on(threads: int, run: Callable[[], object]) -> None:
    torch.set_num_threads(threads)
    run()


if __name__ == "__main__":
    main()
