"""Branches of a network: figures of every model beside the roots above it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import networkx as nx

from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.markdown import NO_FIGURE, TextTable, number
from disinherit.simulations.bench.means import Side, panel_of
from disinherit.simulations.bench.statistics import interval


def branch_labels(references: Iterable[Record]) -> list[str]:
    """Return the labels of cases with several roots."""
    return list(dict.fromkeys(one["label"] for one in references if len(_roots(one)) > 1))


def branch_table(
    references: Sequence[Record], cells: Sequence[Record], label: str, metric: str, side: Side
) -> TextTable:
    """Return a metric by model and method, with the roots that each model comes from.

    Args:
        references: of a run.
        cells: of the run.
        label: of a case with several roots.
        metric: of the panel.
        side: of the metric.
    """
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if cell["label"] != label or cell["not_applicable"]:
            continue
        for model, measured in cell["models"].items():
            value = panel_of({**cell, "models": {model: measured}}).get(metric, {}).get(side)
            if value is not None:
                values[cell["method"]][model].append(value)
    first = next(one for one in references if one["label"] == label)
    rows = []
    for model, roots in _upstream(first).items():
        figures = (
            number(interval(found[model]), 1) if model in found else NO_FIGURE
            for found in values.values()
        )
        rows.append((model, ", ".join(roots), *figures))
    return TextTable(("model", "from", *values), tuple(rows))


def _roots(reference: Record) -> list[str]:
    return list(reference["declaration"]["settings"]["forget"])


def _upstream(reference: Record) -> dict[str, list[str]]:
    """Return the roots that each model comes from, itself included."""
    graph = nx.DiGraph()
    graph.add_nodes_from(reference["models"])
    edges = reference["declaration"]["settings"]["scenario"]["edges"]
    graph.add_edges_from(edge["edge"].split(" -> ") for edge in edges)
    return {
        model: [root for root in _roots(reference) if root in {model, *nx.ancestors(graph, model)}]
        for model in reference["models"]
    }
