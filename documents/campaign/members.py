"""What the coordinator's records say of each affected model, as a report shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.documents.campaign.copies import copy_kind
from disinherit.documents.intervals import Share
from disinherit.documents.standing import Role, ShownModel, Standing

_STANDINGS = {
    "failed": Standing.FAILED,
    "ineffective": Standing.KEPT,
    "not_reached": Standing.KEPT,
    "harmful": Standing.KEPT,
    "rolling_back": Standing.KEPT,
    "rolled_back": Standing.KEPT,
    "verified": Standing.FORGOT,
    "exempt": Standing.LEFT,
}
_EXACT = ("replayed", "rebuilt")
_WHY = {
    "pending": "the owner has not answered yet",
    "sent": "the owner was asked and has not answered yet",
    "applied": "the owner says that it is done; its weights were not read back yet",
    "halted": "the roll-out was halted before it",
    "unapproved": "it waits for an approval",
    "ineffective": "it still recognises what is to be forgotten, or nothing shows that it does not",
    "not_reached": "none of its classes corresponds to what is to be forgotten",
    "harmful": "forgetting would have cost too much of what is kept; it is as it was",
    "rolling_back": "the earlier version is being put back",
    "rolled_back": "the earlier version was put back",
    "exempt": "nothing is to be done there",
}


@dataclass(frozen=True, slots=True)
class CampaignRecords:
    """Everything that a report of a campaign is made from.

    Attributes:
        report: what `disinherit request report --format json` prints.
        graph: the inheritance graph.
        keys: ids of the coordinator's signing keys, the oldest first.
        attestation_sha256: digest of the attestation's file; `""` as long as there is none.
        made: when the report is made.
        version: release of Disinherit that makes it.
    """

    report: Mapping[str, Any]
    graph: InheritanceGraph
    keys: Sequence[str]
    attestation_sha256: str
    made: datetime
    version: str


@dataclass(frozen=True, slots=True)
class AffectedModel:
    """One affected model.

    Attributes:
        entry: its entry in the report.
        role: its role in the request.
        kind: what kind of copy it is, by `copy_kind`.
        standing: where it stands.
    """

    entry: Mapping[str, Any]
    role: Role
    kind: str
    standing: Standing

    @property
    def id(self) -> str:
        """Id of the version."""
        return str(self.entry["model"])

    @property
    def owner(self) -> str:
        """Its owner, the recipient of the data inside it."""
        return str(self.entry["owner"])

    @property
    def why(self) -> str:
        """Why it is not done; `""` if it is."""
        if self.entry["state"] == "verified":
            return ""
        return str(self.entry["reason"] or _WHY.get(self.entry["state"], self.entry["state"]))

    @property
    def told(self) -> str:
        """When its owner was first told, or known to have got word; `""` if it was not."""
        return str(self.entry.get("told") or self.entry["notified"] or "")

    @property
    def acknowledged(self) -> str:
        """When its owner first answered; `""` if it has not."""
        return str(self.entry.get("acknowledged") or self.entry["notified"] or "")

    @property
    def done(self) -> str:
        """When it was verified that it has forgotten; `""` if it was not."""
        return str(self.entry.get("done") or "")

    @property
    def forget(self) -> Mapping[str, Any] | None:
        """What its owner measured of what is to be forgotten."""
        applied = self.entry["applied"]
        return applied["forget"] if applied else None

    def recognised(self, stage: str) -> Share | None:
        """Return the share of samples recognised `before` or `after`; `None` if another figure."""
        found = self.forget
        if found is None or found["measure"] != "accuracy":
            return None
        return Share(100 * found[stage], found["samples"])

    def kept(self, stage: str) -> Share | None:
        """Return the accuracy on what is kept `before` or `after`; `None` if not measured."""
        applied = self.entry["applied"]
        if not applied or not applied["retain"]:
            return None
        return Share(100 * applied["retain"][stage], applied["retain"]["samples"])

    @property
    def shown(self) -> ShownModel:
        """The model as pictures show it."""
        note = self.entry["state"].replace("_", " ")
        before, after = self.recognised("before"), self.recognised("after")
        if before is not None and after is not None:
            note += f"; recognised {before.percent:.1f} → {after.percent:.1f} %"
        return ShownModel(self.id, self.owner, self.role, self.standing, note)


def members(records: CampaignRecords) -> list[AffectedModel]:
    """Return all affected models of a campaign, ancestors first."""
    roots = {root["model"] for root in records.report["request"]["roots"]}
    return [
        AffectedModel(
            entry,
            "root" if entry["model"] in roots else "affected",
            copy_kind(records.graph, entry["model"]),
            standing_of(entry),
        )
        for entry in records.report["models"]
    ]


def standing_of(entry: Mapping[str, Any]) -> Standing:
    """Return where a model stands, by its entry in a report.

    A model that is verified without a figure, or that hardly knew what is to be forgotten before,
    shows nothing, unless it was made again without the data.
    """
    standing = _STANDINGS.get(entry["state"], Standing.OPEN)
    if standing is not Standing.FORGOT or entry.get("remedy") in _EXACT:
        return standing
    forget = entry["applied"]["forget"] if entry["applied"] else None
    if forget is None or entry.get("hardly_known"):
        return Standing.UNSHOWN
    return standing


def by_standing(found: Sequence[AffectedModel]) -> list[AffectedModel]:
    """Return models with the worst first: by standing, then by what they recognise and lost."""

    def badness(one: AffectedModel) -> tuple[int, float, float]:
        before, after = one.kept("before"), one.kept("after")
        lost = before.percent - after.percent if before and after else 0.0
        forget = one.forget
        return one.standing.rank, -(forget["after"] - forget["floor"] if forget else 0.0), -lost

    return sorted(found, key=badness)


def received_at(report: Mapping[str, Any]) -> datetime | None:
    """Return when the coordinator received the request of a report; `None` if it is not known."""
    when = report["times"].get("received") or report["request"]["created"]
    return datetime.fromisoformat(when) if when else None
