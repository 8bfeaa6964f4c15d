"""Spread of the reference: roots that were retrained with several other seeds."""

from collections.abc import Iterable, Sequence
from math import fsum
from statistics import fmean, variance

from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.markdown import TextTable
from disinherit.simulations.bench.means import PANEL


def spread_labels(references: Iterable[Record]) -> list[str]:
    """Return the labels of cases whose roots were retrained with other seeds."""
    return list(dict.fromkeys(one["label"] for one in references if one.get("spread")))


def spread_table(references: Sequence[Record], label: str) -> TextTable:
    """Return each metric of the roots: the reference, the other seeds, and their deviation.

    The deviation is the standard deviation over the seeds of a root, pooled over roots and cases.

    Args:
        references: of a run.
        label: of a case with such roots.
    """
    rows = []
    for metric in PANEL:
        mine, others, variances = [], [], []
        for one in references:
            if one["label"] != label:
                continue
            for root, seeds in one.get("spread", {}).items():
                known = one["models"][root]["retrained"]["values"].get(metric.name)
                values = [seed[metric.name] for seed in seeds if metric.name in seed]
                if known is not None and len(values) > 1:
                    mine.append(known)
                    others += values
                    variances.append(variance(values))
        if mine:
            deviation = (fsum(variances) / len(variances)) ** 0.5
            figures = (f"{v:.{metric.digits}f}" for v in (fmean(mine), fmean(others), deviation))
            rows.append((metric.title, *figures))
    return TextTable(("", "retrained", "other seeds", "standard deviation"), tuple(rows))
