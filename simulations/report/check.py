"""Check of a dict that was read from a file, with messages that name the place."""

from typing import cast

from disinherit.common.errors import DataError, InputError
from disinherit.common.settings import check
from disinherit.simulations.report.document import RunReport


def check_report(value: object) -> RunReport:
    """Return `value` as a `RunReport` if it is one; keys that are not known are left alone.

    Args:
        value: what `json.load` gave.

    Returns:
        The same object.

    Raises:
        DataError: if a key is missing, a value has the wrong type, or ids do not fit together; the
            message names the place, e.g. `models[3].before.forget_accuracy`.

    Example:
        >>> check_report({"schema_version": 2})
        Traceback (most recent call last):
        ...
        disinherit.common.errors.DataError: Expected 1 as schema_version in \
the report, but got 2.
    """
    try:
        check(RunReport, value, "the report")
    except InputError as error:
        raise DataError(str(error)) from None
    report = cast("RunReport", value)
    _check_ids(report)
    for i, model in enumerate(report["models"]):
        for key in ("before", "after", "retrained", "published"):
            evaluation = model[key]
            if evaluation is not None:
                _check_square(evaluation["confusion"], f"models[{i}].{key}.confusion")
        for j, selection in enumerate(model["selections"]):
            if sum(selection["rows"]) > selection["total"]:
                raise _refuse(
                    f"models[{i}].selections[{j}]",
                    f"at most total = {selection['total']} selected values",
                    sum(selection["rows"]),
                )
    return report


def _check_ids(report: RunReport) -> None:
    """Raise unless every model is one node and every edge joins two nodes."""
    nodes = [node["id"] for node in report["graph"]["nodes"]]
    generation = {node["id"]: node["generation"] for node in report["graph"]["nodes"]}
    models = [model["id"] for model in report["models"]]
    if sorted(nodes) != sorted(set(models)) or len(models) != len(set(models)):
        raise _refuse("models", f"one model for each graph node {sorted(nodes)}", sorted(models))
    for i, edge in enumerate(report["graph"]["edges"]):
        for end in (edge["parent"], edge["child"]):
            if end not in generation:
                raise _refuse(f"graph.edges[{i}]", "ids of graph nodes", end)
        if generation[edge["parent"]] >= generation[edge["child"]]:
            raise _refuse(f"graph.edges[{i}]", "a parent of an earlier generation", edge)


def _check_square(confusion: list[list[int]], place: str) -> None:
    for row in confusion:
        if len(row) != len(confusion):
            raise _refuse(place, f"rows of {len(confusion)} counts", row)


def _refuse(place: str, expected: str, value: object) -> DataError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return DataError(f"Expected {expected} as {place} in the report, but got {shown}.")
