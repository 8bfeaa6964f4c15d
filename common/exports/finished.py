"""A request that has ended, as other tools may be told of it.

What is exported is copied, and cannot be called back.  So it has, like the audit log, no reason, no
class name, no sample id, and no text that an owner wrote.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from disinherit.common.graph.identifiers import check_id

_REQUEST = (
    *("id", "state", "tasks", "method", "roll_out", "retention_seconds", "created", "updated"),
    "waves",
)
_STRENGTH = ("alpha", "lam", "gauge", "inheritance", "scale", "repair_steps")
_RETAINED = ("retain_before", "retain_after")
_MEASURED = (
    *("before", "after", "floor", "margin", "samples", "loss_before", "loss_after"),
    *("named_before", "named_after", "named_chance", "found_before", "found_after", "unseen"),
)


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """A request that has ended, with its evidence.

    Attributes:
        predicate: the predicate of its attestation.
        attestation: the file with the attestation, byte for byte.
        report: its report, by `without_words`.

    Raises:
        InputError: if an id is malformed.
    """

    predicate: Mapping[str, Any]
    attestation: bytes
    report: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_id(self.id, "request id")
        for model in self.models:
            for name in (model["id"], model["successor"], model["owner"]):
                check_id("none" if name is None else name)

    @property
    def id(self) -> str:
        """Id of the request."""
        return str(self.predicate["request"]["id"])

    @property
    def request_sha256(self) -> str:
        """SHA-256 of the request without its reason."""
        return str(self.predicate["request"]["sha256"])

    @property
    def state(self) -> str:
        """State of the campaign."""
        return str(self.predicate["state"])

    @property
    def models(self) -> Sequence[Mapping[str, Any]]:
        """Entries of the affected versions in the attestation, ancestors first."""
        found: Sequence[Mapping[str, Any]] = self.predicate["models"]
        return found

    @property
    def attestation_sha256(self) -> str:
        """SHA-256 of the file with the attestation."""
        return hashlib.sha256(self.attestation).hexdigest()

    @property
    def begun_us(self) -> int:
        """When it was received, in microseconds since the epoch."""
        return int(min(self.predicate["times_us"].values()))

    @property
    def ended_us(self) -> int:
        """When its campaign ended, in microseconds since the epoch."""
        times = self.predicate["times_us"]
        return int(times.get("ended") or max(times.values()))

    def counts(self) -> dict[str, int]:
        """Return how many roots, different classes, and samples it named."""
        request = self.report["request"]
        roots = request["roots"]
        return {
            "roots": len(roots),
            "classes": request["classes"],
            "samples": sum(root["samples"] for root in roots),
        }


def without_words(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report without what persons wrote and owners said, and with counts for names.

    Args:
        report: as `disinherit request report --format json` prints it.
    """
    request = {name: report["request"][name] for name in _REQUEST}
    request["roots"] = [
        {"model": root["model"], "classes": len(root["classes"]), "samples": root["sample_count"]}
        for root in report["request"]["roots"]
    ]
    roots = report["request"]["roots"]
    request["classes"] = len({name for root in roots for name in root["classes"]})
    models = [{k: v for k, v in model.items() if k != "reason"} for model in report["models"]]
    for model in models:
        applied = model["applied"]
        if applied and "changes" in applied:
            changes = [{k: v for k, v in one.items() if k != "note"} for one in applied["changes"]]
            model["applied"] = {**applied, "changes": changes}
    return {**report, "request": request, "models": models}


def remedy_of(model: Mapping[str, Any]) -> str:
    """Return the remedy of a version's entry in an attestation; `""` where there is none."""
    return str((model["parameters"] or {}).get("remedy", ""))


def figures_of(model: Mapping[str, Any]) -> dict[str, float]:
    """Return what is measured of a version: finite numbers by name.

    Args:
        model: its entry in an attestation.

    Example:
        >>> forget = {"measure": "accuracy", "before": "0.9", "after": "0.0"}
        >>> figures_of({"parameters": {"forget": forget}, "selected": {"values": 3, "of": 8}})
        {'forget_before': 0.9, 'forget_after': 0.0, 'changed_values': 3.0}
    """
    parameters = model["parameters"] or {}
    forget = parameters.get("forget", {})
    found = {name: parameters[name] for name in _STRENGTH if name in parameters}
    found |= {f"forget_{name}": forget[name] for name in _MEASURED if name in forget}
    found |= {name: parameters[name] for name in _RETAINED if name in parameters}
    if model["selected"] is not None:
        found["changed_values"] = model["selected"]["values"]
    numbers = {name: float(value) for name, value in found.items()}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def as_instant(microseconds: int) -> str:
    """Return a time as ISO 8601 in UTC.

    Example:
        >>> as_instant(1_500_000)
        '1970-01-01T00:00:01.500000Z'
    """
    when = datetime.fromtimestamp(microseconds / 1e6, UTC)
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")
