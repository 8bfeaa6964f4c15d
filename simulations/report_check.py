"""Check that a dict read from a file is a report, with messages that name the place."""

import math
import types
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from disinherit.common.errors import DataError
from disinherit.simulations.report_schema import RunReport


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
        disinherit.common.errors.DataError: Expected 1 at schema_version of the report, but got 2.
    """
    _check(value, RunReport, "")
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


def _check(value: object, hint: Any, place: str) -> None:
    """Raise unless `value` has the type `hint`, a closed set of JSON-like types."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        options = [arg for arg in args if arg is not types.NoneType]
        if value is None and len(options) < len(args):
            return
        if len(options) == 1:
            _check(value, options[0], place)
        elif isinstance(value, bool) or not isinstance(value, tuple(options)):
            raise _refuse(place, " or ".join(option.__name__ for option in options), value)
    elif origin is Literal:
        if isinstance(value, bool) or value not in args:
            raise _refuse(place, " or ".join(map(repr, args)), value)
    elif origin is list:
        if not isinstance(value, list):
            raise _refuse(place, "a list", value)
        for i, item in enumerate(value):
            _check(item, args[0], f"{place}[{i}]")
    elif origin is dict or is_typeddict(hint):
        _check_dict(value, hint, place)
    elif hint in (int, float):
        number = isinstance(value, int if hint is int else int | float)
        if not number or isinstance(value, bool) or not math.isfinite(cast("float", value)):
            raise _refuse(place, "a whole number" if hint is int else "a finite number", value)
    elif not isinstance(value, hint):
        raise _refuse(place, f"a {hint.__name__}", value)


def _check_dict(value: object, hint: Any, place: str) -> None:
    """Raise unless `value` is a dict with the keys and value types of `hint`."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _refuse(place, "an object", value)
    if get_origin(hint) is dict:
        hints = dict.fromkeys(value, get_args(hint)[1])
        optional: frozenset[str] = frozenset()
    else:
        hints, optional = get_type_hints(hint), hint.__optional_keys__
    for key, item in hints.items():
        inner = f"{place}.{key}" if place else key
        if key in optional and key not in value:
            continue
        if key not in value:
            raise DataError(f"Expected the key {inner} in the report, but it is missing.")
        _check(value[key], item, inner)


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
    return DataError(f"Expected {expected} at {place or 'the top'} of the report, but got {shown}.")
