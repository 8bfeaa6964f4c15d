"""Several runs as one: the cases, methods and cells of all on one page."""

from collections.abc import Sequence
from typing import Any

from disinherit.common.errors import InputError
from disinherit.simulations.bench.cells import Record

Run = tuple[Record, list[Record], list[Record]]
"""Declaration with environment, references, and cells, as `read_run` returns them."""


def join_runs(runs: Sequence[Run]) -> Run:
    """Return several runs as one; a single one as it is.

    The suites stay apart under `parts` of the record.  All aims are judged against the rival of the
    first suite that has aims.

    Args:
        runs: one or more.

    Raises:
        InputError: if two of them have the same case.
    """
    if len(runs) == 1:
        return runs[0]
    records = [record for record, _, _ in runs]
    references = [one for _, found, _ in runs for one in found]
    known: set[str] = set()
    for one in references:
        if one["case"] in known:
            raise InputError(f"Expected runs of different cases, but {one['case']} is in two.")
        known.add(one["case"])
    suites = [record["suite"] for record in records]
    environments = [record["environment"] for record in records]
    joined: Record = {
        "suite": {
            "name": " and ".join(suite["name"] for suite in suites),
            "methods": _union([suite["methods"] for suite in suites]),
            "aims": _aims([suite["aims"] for suite in suites if suite.get("aims")]),
        },
        "parts": suites,
        "environment": {
            key: "; ".join(dict.fromkeys(str(one[key]) for one in environments if key in one))
            for key in environments[0]
        },
    }
    return joined, references, [one for _, _, found in runs for one in found]


def suites_of(run: Record) -> list[Record]:
    """Return the suites of a run's record: one, or those of a joined one."""
    parts: list[Record] = run.get("parts", [run["suite"]])
    return parts


def _union(methods: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the methods of all suites, each label once."""
    return list({one["label"]: one for found in methods for one in found}.values())


def _aims(aims: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    if not aims:
        return None
    methods = dict.fromkeys(method for one in aims for method in one["methods"])
    return {"methods": list(methods), "rival": aims[0]["rival"]}
