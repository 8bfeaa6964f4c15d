"""Where figures are stored, and how one is shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures" / "performance"


def wanted(claim: Mapping[str, Any]) -> str:
    """Return the target of a claim in words."""
    if claim["at_most"] is not None:
        return f"at most {claim['at_most']:g}"
    return "no target" if claim["at_least"] is None else f"at least {claim['at_least']:g}"


def cell(value: object) -> str:
    """Return a value as it stands in a table."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
