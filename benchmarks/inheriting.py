"""A root replayed, and its change applied to its descendants, against replaying all of them.

change     the root's owner replays it without the samples to forget, sends its change and commits;
           another owner adds the change to N descendants: `root_deltas` and `unlearn`, with real
           stores and ledgers, from the question to the last commit
replay     the root and its descendants trained again, each with as many steps as the root
published  the published loop over root and descendants: Fisher information of the head by batch
           gradients over the data of each, then load, dampen, save; no digest, no ledger
bound      for one descendant: to read the weights and the change, and to write the weights
hash       one SHA-256 of the weights: it is three of them, of what is read, made and stored

CPU seconds on one thread. Replay and published loop are measured on one model and multiplied by the
number of models. The training is short, 512 samples in 4 epochs: a longer one only makes replaying
dearer.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from inheriting_fleet import Fleet
from many_models import LABELS
from measuring import Claim, Figures, arguments, report

from disinherit.simulations.networks.networks import NetworkSpec

SAMPLES = 512
COUNTS = (1, 5, 20, 100)
CASES = (("mlp", (1, 28, 28)), ("cnn", (3, 64, 64)))


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows: list[Figures] = []
    claims: list[Claim] = []
    counts, samples = ((1, 3), 64) if options.reduced else (COUNTS, SAMPLES)
    cases = CASES[:1] if options.reduced else CASES
    with tempfile.TemporaryDirectory(prefix="disinherit-", dir=".") as folder:
        fleets = {}
        for network, shape in cases:
            torch.manual_seed(0)
            spec = NetworkSpec(network, shape, len(LABELS))
            fleets[network] = Fleet(Path(folder) / network, spec, samples, counts)
        made = [fleet.measure(1 if options.reduced else 2) for fleet in fleets.values()]
        memory = [fleet.memory() for fleet in fleets.values()]
    for (network, fleet), measured, used in zip(fleets.items(), made, memory, strict=True):
        name = f"{network}, {fleet.parameters:,} parameters"
        for row, size in zip(measured[:-1], used, strict=True):
            row["MB of memory"] = size / 1e6
        rows += [{"network": name, **row} for row in measured]
        claims += _claims(name, counts, measured)
    title = "By the change of a root: CPU seconds, peak memory; one descendant in ms, packets in KB"
    report(options, "inheriting", title, rows, claims)


def _claims(name: str, counts: Sequence[int], measured: Sequence[Figures]) -> list[Claim]:
    """Return what the targets are about, for models of one network."""
    first, most, one = measured[0], measured[-2], measured[-1]
    what = f"{counts[-1]} descendants, {name}"
    files = one["read / weights"] + one["written / weights"]
    grown = most["MB of memory"] / first["MB of memory"]
    return [
        Claim(10, f"replay of all / by change, {what}", most["replay / change"], at_least=20),
        Claim(10, f"published loop / by change, {what}", most["published / change"]),
        Claim(
            10,
            f"one descendant / memory bound, {name}",
            one["one / bound"],
            at_most=2,
            limit=1.0,
        ),
        Claim(
            10,
            f"bytes of files read and written / bytes of weights, {name}",
            files,
            at_most=2.2,
            limit=2.0,
        ),
        Claim(
            10,
            f"peak memory of {counts[-1]} descendants / of {counts[0]}, {name}",
            grown,
            at_most=1.2,
        ),
    ]


if __name__ == "__main__":
    main()
