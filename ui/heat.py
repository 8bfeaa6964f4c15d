"""Heat maps of benchmarks: how far each method is from exact retraining, case by case."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disinherit.common.errors import DisinheritError, NotFoundError
from disinherit.common.extras import explained
from disinherit.common.text import load_json

STEPS = 10
"""Shades of a cell; the style sheet has a class for each."""

_KEYS = (0.0, 1.0, 5.0, 20.0)


def heat_map(path: Path) -> Mapping[str, Any]:
    """Return the heat map of a benchmark as values of JSON, with the reason where there is none.

    Args:
        path: its `results.jsonl`.
    """
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except (DisinheritError, ImportError) as error:
        return {"problem": str(error)}
    except OSError as error:
        return {"problem": f"Expected to read {str(path)!r}, but: {error.strerror}."}


@functools.lru_cache(maxsize=32)
def _read(path: Path, changed: int, size: int) -> Mapping[str, Any]:
    """Return the heat map of a file that is as it was when it changed last.

    Raises:
        NotFoundError: if the file holds no finished cells.
        ImportError: if what computes intervals is not installed.
    """
    try:
        # Imported here: only benchmarks need it.
        from disinherit.simulations.bench.means import summarise
        from disinherit.simulations.bench.report.heat import FIGURES, FULL, case_map, shade
    except Exception as error:
        raise explained(error, "heat maps of benchmarks") from None
    try:
        cells = [load_json(line) for line in path.read_text("utf-8").splitlines()]
        tables = {label: table for label, table in summarise(cells).items() if table}
        kinds = {cell["label"]: cell["granularity"] for cell in cells}
        found = case_map(tables, kinds, FIGURES, "Largest gap")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotFoundError(
            f"Expected the cells of a benchmark in {str(path)!r}, but it is damaged: {error!r}. "
            f"Write it again: disinherit bench run SUITE --out {path.parent}"
        ) from None
    if not found.rows:
        raise NotFoundError(f"Expected finished cells in {str(path)!r}, but there is none yet.")
    return {
        "problem": None,
        "figures": [{"sign": one.sign, "title": one.title} for one in FIGURES],
        "kinds": [
            {"kind": kind, "number": len(columns), "cases": [column.label for column in columns]}
            for kind, columns in found.groups
        ],
        "methods": [
            {
                "method": method,
                "gaps": [
                    {"text": one.text, "figure": one.sign, "step": round(STEPS * one.shade)}
                    for one in row
                ],
            }
            for method, row in found.rows
        ],
        "keys": [
            {"points": points, "step": round(STEPS * shade(points))} for points in (*_KEYS, FULL)
        ],
    }
