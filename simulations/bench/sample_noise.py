"""How sure the accuracies of one seed are, by how many samples they were counted on.

Over several seeds a report has intervals over these.  Models of a case are measured with the same
samples, so that a mean over models is as sure as the figure of one of them.
"""

from collections.abc import Iterable, Mapping

from disinherit.documents.intervals import Share
from disinherit.simulations.bench.cells import Record
from disinherit.simulations.bench.markdown import NO_FIGURE, TextTable

_ACCURACIES = (
    ("forget", "forget accuracy, %"),
    ("retain", "retain accuracy, %"),
    ("test", "test accuracy, %"),
)
"""Kind of samples -> title."""


def noise_table(references: Iterable[Record], cells: Iterable[Record], label: str) -> TextTable:
    """Return Wilson's intervals of the accuracies of a case, metric x method, for one seed.

    Args:
        references: records of the cases.
        cells: records of cells.
        label: of the case.

    Returns:
        No rows, if the case has several seeds, or it is not known on how many samples it was
        measured.
    """
    found = [c for c in cells if c["label"] == label and c["not_applicable"] is None]
    tested = {
        model: one["tested"]
        for case in references
        for model, one in case["models"].items()
        if case["label"] == label and "tested" in one
    }
    if not tested or len({cell["case"] for cell in found}) != 1:
        return TextTable(("",), ())
    rows = []
    for kind, title in _ACCURACIES:
        sides = [_interval(found[0], tested, kind, "reference")]
        sides += [_interval(cell, tested, kind, "value") for cell in found]
        if any(side != NO_FIGURE for side in sides):
            rows.append((title, *sides))
    methods = (cell["method"] for cell in found)
    return TextTable(("95 % interval", "retrained", *methods), tuple(rows))


def _interval(cell: Record, tested: Mapping[str, Mapping[str, int]], kind: str, side: str) -> str:
    """Return the interval of the mean over models, for the fewest samples of one of them."""
    values, samples = [], []
    for name, model in cell["models"].items():
        value = model["metrics"].get(f"{kind}_accuracy", {}).get(side)
        if value is not None and not model["gone"]:
            values.append(value)
            samples.append(tested[name][kind] if name in tested else 0)
    if not min(samples, default=0):
        return NO_FIGURE
    interval = Share(sum(values) / len(values), min(samples)).interval
    assert interval is not None
    return f"{interval[0]:.1f} to {interval[1]:.1f}"
