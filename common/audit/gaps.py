"""Gaps of a campaign: what it did not reach or does not show.

Gaps follow from the method and the versions in an attestation, so a verifier can recompute them and
detect an omission.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class GapKind(StrEnum):
    """Kind of a gap."""

    SUPPRESSION = "suppression"
    PARTIAL_SCOPE = "partial_scope"
    PENDING = "pending"
    FAILED = "failed"
    INEFFECTIVE = "ineffective"
    NOT_REACHED = "not_reached"
    HARMFUL = "harmful"
    HALTED = "halted"
    NOT_VERIFIED = "not_verified"
    EXEMPT = "exempt"
    ROLLED_BACK = "rolled_back"
    LATE = "late"
    UNAPPROVED = "unapproved"
    NOT_TUNED = "not_tuned"
    OUT_OF_SCOPE = "out_of_scope"
    NOT_COVERED = "not_covered"
    TIED = "tied"
    APPROXIMATED = "approximated"
    NOT_MEASURED = "not_measured"
    FEW_MEASURED = "few_measured"
    BELIEVED = "believed"
    CLEARED_UNRECORDED = "cleared_unrecorded"
    OLD_KEPT = "old_kept"
    HELD_BY_ANOTHER = "held_by_another"
    NOT_NOTIFIED = "not_notified"


DESCRIPTIONS = {
    GapKind.SUPPRESSION: "Only the last layer was changed. The features below it may still tell "
    "apart what was forgotten, and a new head on them can learn it again: suppression.",
    GapKind.PARTIAL_SCOPE: "Only the parameters that the request names were changed.",
    GapKind.PENDING: "The owner has not answered, or waits for an older campaign: these versions "
    "have not forgotten.",
    GapKind.FAILED: "It could not be done; the coverage says why: these versions have not "
    "forgotten.",
    GapKind.INEFFECTIVE: "Nothing was selected there, or by their owners' own data these versions "
    "still recognise what is to be forgotten, by more than a reset row or an unseen sample shows, "
    "or no figure shows that samples were forgotten: they have not forgotten, as far as known.",
    GapKind.NOT_REACHED: "No class of the request corresponds to one of these versions: if they "
    "know it under another name, say so in the edge that leads to them; they have not forgotten.",
    GapKind.HARMFUL: "Forgetting would have cost them too much of what is to be kept, as their "
    "owners measured: they were left as they are and have not forgotten.",
    GapKind.HALTED: "A threshold of the roll-out was passed before their owners answered: these "
    "versions have not forgotten, as far as known.",
    GapKind.NOT_VERIFIED: "The owner reported that it was done; what it holds was not checked.",
    GapKind.EXEMPT: "These versions were left as they are: another one took their place, or they "
    "are to be retired.",
    GapKind.ROLLED_BACK: "It was decided that these versions are to be as they were before: they "
    "know what is to be forgotten.",
    GapKind.LATE: "These versions came to be affected after the last pass: not forgotten yet.",
    GapKind.UNAPPROVED: "Others than their owners say that these versions descend from a root, and "
    "nobody has approved that they forget: they have not.",
    GapKind.NOT_TUNED: "The owner had no tuning data: defaults decided what was dampened and how "
    "much.",
    GapKind.OUT_OF_SCOPE: "Some parameters of the Fisher information do not exist in these "
    "versions: nothing was dampened for them.",
    GapKind.NOT_COVERED: "Some parameters in scope of these versions do not exist in the roots "
    "and were left as they were: what is to be forgotten may have been learned there.",
    GapKind.TIED: "More than the parameters in scope was changed: other layers of these versions "
    "use some of the same weights.",
    GapKind.APPROXIMATED: "The changes of roots were added to these versions, or they are roots "
    "that were not trained again exactly: how near that is to training again was measured only "
    "where owners have data.",
    GapKind.NOT_MEASURED: "Their owners had no data that tells whether these versions still "
    "recognise what is to be forgotten: that they were dampened is all that is known.",
    GapKind.FEW_MEASURED: "Their owners measured on so few samples that chance could hide what "
    "these versions still recognise.",
    GapKind.BELIEVED: "These versions count as having forgotten by how they were made alone: their "
    "owners say that they were trained again exactly without it. No figure denies that, and none "
    "shows it.",
    GapKind.CLEARED_UNRECORDED: "Only their owners' word shows that these versions have forgotten: "
    "earlier requests had cleared it. The coordinator has no record of that.",
    GapKind.OLD_KEPT: "The owners still have these versions as they were before, to be able to put "
    "them back: they know what is to be forgotten.",
    GapKind.HELD_BY_ANOTHER: "Their owners destroyed these versions, and have another version with "
    "the very same weights, which they keep: it knows what is to be forgotten.",
    GapKind.NOT_NOTIFIED: "Their owners have not got word that these versions are affected.",
}
"""Description of each kind.  Attestations contain these texts and verification compares them."""

FEW_MARGIN = 0.2
"""Margin above which a measurement is weak: that of fewer than 6 samples, also for an AUC
against very many unseen ones."""

_OF_STATE = {
    "pending": GapKind.PENDING,
    "sent": GapKind.PENDING,
    "applied": GapKind.NOT_VERIFIED,
    "halted": GapKind.HALTED,
    "failed": GapKind.FAILED,
    "ineffective": GapKind.INEFFECTIVE,
    "not_reached": GapKind.NOT_REACHED,
    "harmful": GapKind.HARMFUL,
    "exempt": GapKind.EXEMPT,
    "rolling_back": GapKind.ROLLED_BACK,
    "rolled_back": GapKind.ROLLED_BACK,
    "unapproved": GapKind.UNAPPROVED,
}


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap of a campaign.

    Attributes:
        kind: kind of the gap.
        models: the versions concerned; empty for a gap of all versions that have forgotten.
    """

    kind: GapKind
    models: tuple[str, ...] = ()


def find_gaps(method: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> Iterator[Gap]:
    """Yield the gaps of a campaign.

    Args:
        method: the request's method, as in attestations and the audit log.
        models: its affected versions, as in attestations.

    Raises:
        KeyError: if a field is missing.
    """
    if method["scope"] == "head":
        yield Gap(GapKind.SUPPRESSION)
    elif method["scope"] != "all":
        yield Gap(GapKind.PARTIAL_SCOPE)
    fixed = {"alpha", "lam", "gauge"} <= method.keys()
    found: dict[GapKind, list[str]] = {}
    for model in models:
        for kind in _kinds(fixed, model):
            found.setdefault(kind, []).append(model["id"])
    for kind in GapKind:
        if kind in found:
            yield Gap(kind, tuple(found[kind]))


def _kinds(fixed: bool, model: Mapping[str, Any]) -> Iterable[GapKind]:
    if model["late"]:
        yield GapKind.LATE
    elif model["state"] in _OF_STATE:
        yield _OF_STATE[model["state"]]
    parameters = model["parameters"]
    if parameters is not None and model["successor"] is not None:
        if "alpha" in parameters and not fixed and not parameters["tuned"]:
            yield GapKind.NOT_TUNED
        if model["out_of_scope"]:
            yield GapKind.OUT_OF_SCOPE
        if parameters.get("not_covered"):
            yield GapKind.NOT_COVERED
        if parameters.get("tied"):
            yield GapKind.TIED
        remedy = parameters.get("remedy")
        if remedy == "approximated" and model["state"] in ("applied", "verified"):
            yield GapKind.APPROXIMATED
        if remedy == "replayed":
            pass  # trained again exactly: no figure could say more
        elif "forget" not in parameters:
            yield GapKind.NOT_MEASURED
        elif float(parameters["forget"]["margin"]) > FEW_MARGIN:
            yield GapKind.FEW_MEASURED
        if parameters.get("believed"):
            yield GapKind.BELIEVED
        if parameters.get("cleared_before") == "unrecorded":
            yield GapKind.CLEARED_UNRECORDED
        if not model["destroyed_us"]:
            yield GapKind.OLD_KEPT
    if model["held_by"]:
        yield GapKind.HELD_BY_ANOTHER
    if not model["notified_us"]:
        yield GapKind.NOT_NOTIFIED
