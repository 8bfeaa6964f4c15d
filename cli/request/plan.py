"""Plan of a request for its approver: method, roll-out and owners."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from disinherit.common.method import Method
from disinherit.documents.campaign.status_values import method_dict
from disinherit.v1 import coordinator_pb2

_SHOWN = 20


def changed_method(method: Mapping[str, Any]) -> list[str]:
    """Return the values that differ from the defaults, each as `name value`.

    Example:
        >>> from disinherit.common.method import Method
        >>> changed_method(method_dict(Method(scope="all", alpha=1e-12).to_proto()))
        ['scope all', 'alpha 1e-12']
    """
    defaults = method_dict(Method().to_proto())
    return [f"{name} {value}" for name, value in method.items() if value != defaults.get(name)]


def describe_roll_out(roll_out: Mapping[str, Any]) -> list[str]:
    """Return waves and thresholds of a staged roll-out, each as a short text.

    Example:
        >>> describe_roll_out({"canaries": ["anna"], "canary_count": 0, "waves": [0.1, 5],
        ...     "min_success": None, "max_retain_drop": 100.0, "max_error_rate": None})
        ['canaries anna', 'waves 10%, 5 owners', 'halts above max drop 100 points']
    """
    words = []
    if roll_out["canaries"]:
        words.append(f"canaries {', '.join(roll_out['canaries'])}")
    if roll_out["canary_count"]:
        words.append(f"{roll_out['canary_count']} canaries")
    if roll_out["waves"]:
        sizes = (
            f"{100 * size:g}%" if isinstance(size, float) else f"{size} owners"
            for size in roll_out["waves"]
        )
        words.append(f"waves {', '.join(sizes)}")
    if roll_out["min_success"] is not None:
        words.append(f"next wave at {100 * roll_out['min_success']:g}% verified")
    if roll_out["max_retain_drop"] is not None:
        words.append(f"halts above max drop {roll_out['max_retain_drop']:g} points")
    if roll_out["max_error_rate"] is not None:
        words.append(f"halts above {100 * roll_out['max_error_rate']:g}% failed")
    return words


def by_owner(coverage: Iterable[coordinator_pb2.ModelCoverage]) -> dict[str, list[str]]:
    """Return owner -> its affected versions, as `id` or `id (state)`."""
    owners: dict[str, list[str]] = {}
    for one in coverage:
        plain = one.state in ("pending", "sent", "applied", "verified")
        owners.setdefault(one.owner, []).append(
            one.model_id if plain else f"{one.model_id} ({one.state})"
        )
    return owners


def some(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others.

    Example:
        >>> some([f"m{i}" for i in range(22)])[-14:]
        'm19 and 2 more'
    """
    listed = ", ".join(names[:_SHOWN])
    return listed if len(names) <= _SHOWN else f"{listed} and {len(names) - _SHOWN} more"
