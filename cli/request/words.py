"""Short texts about a request: what it asks for, and how far it is."""

from collections.abc import Mapping
from typing import Any


def in_words(tasks: Mapping[str, int]) -> str:
    """Return the number of models in each state as text.

    Example:
        >>> in_words({"verified": 4, "pending": 1})
        '4 verified, 1 pending'
    """
    return ", ".join(f"{count} {state}" for state, count in tasks.items()) or "none"


def asked(shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is to be forgotten, and at which model.

    Args:
        shown: the status of a request, as JSON values.
    """
    return [
        (
            ", ".join(root["classes"])
            or (f"{root['sample_count']} samples" if root["sample_count"] else "")
            or f"all of {shown['client']}",
            root["model"],
        )
        for root in shown["roots"]
    ]
