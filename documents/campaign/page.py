"""The report of a real campaign as one HTML file, ready to print."""

from collections.abc import Sequence

from markupsafe import Markup

from disinherit.common.wire.remedies import REMEDIES
from disinherit.documents.campaign.copies import copies_in_words, kind_words, superseded
from disinherit.documents.campaign.deadlines import answer_due
from disinherit.documents.campaign.evidence_words import (
    attack_limit,
    evidence,
    old_weights_limit,
)
from disinherit.documents.campaign.judging import judge_campaign
from disinherit.documents.campaign.letter import write_letter
from disinherit.documents.campaign.members import (
    AffectedModel,
    CampaignRecords,
    by_standing,
    members,
    received_at,
)
from disinherit.documents.campaign.recipients import recipients
from disinherit.documents.charts import Dot, dot_plot
from disinherit.documents.limits import limits
from disinherit.documents.lineage.drawing import draw_lineage, draw_owners
from disinherit.documents.lineage.folding import CROWDED
from disinherit.documents.pages import LONG_TABLE, WORST, environment, sorting
from disinherit.documents.standing import ShownEdge, ShownModel, counted
from disinherit.documents.words import count, day

_CONTENTS = (
    ("request", "What was asked"),
    ("recipients", "Who was told"),
    ("copies", "Every copy"),
    ("graph", "Who inherits"),
    ("evidence", "What was measured"),
    ("records", "Records"),
    ("letter", "Letter"),
)


def render_campaign(records: CampaignRecords) -> str:
    """Turn the records of a campaign into a self-contained HTML page.

    Args:
        records: what the coordinator knows of it.
    """
    report = records.report
    found = by_standing(members(records))
    measured = [one for one in found if one.forget is not None]
    received = received_at(report)
    edges = _edges(records, found)
    picture, left_out = draw_lineage(_pictured(records, found), edges, {one.id for one in found})
    page = environment().get_template("campaign.html.j2")
    return page.render(
        kind="Erasure report",
        id=report["request"]["id"],
        version=records.version,
        script=sorting() if len(found) > LONG_TABLE else None,
        contents=_CONTENTS,
        limits=limits(old_weights_limit(found), attack_limit(found)),
        counts=counted(one.standing for one in found),
        verdict=judge_campaign(records, found),
        report=report,
        asked=_asked(records),
        received=received.isoformat() if received else "",
        due=day(answer_due(received).isoformat()) if received else "",
        made=records.made.isoformat(),
        found=found,
        owners=recipients(found),
        copies=copies_in_words(one.kind for one in found),
        superseded=len(superseded(records.graph, [one.id for one in found])),
        decisions=report["request"].get("decisions", []),
        remedies=[
            (word, meaning)
            for word, meaning in REMEDIES.items()
            if any(one.entry.get("remedy") == word for one in found)
        ],
        kind_words=kind_words,
        graph=picture,
        by_owner=draw_owners([one.shown for one in found], {one.id for one in found}),
        left_out=left_out,
        weights=len(found) <= CROWDED,
        edges=edges if len(edges) <= 4 * LONG_TABLE else [],
        plots=_plots(found),
        measured=len(measured),
        explained=min(len(measured), WORST),
        evidence=evidence((one.id, one.forget) for one in measured[:WORST]),
        long_table=LONG_TABLE,
        attestation=records.attestation_sha256,
        keys=records.keys,
        letter=write_letter(records),
    )


def _asked(records: CampaignRecords) -> str:
    """Return what was asked at which roots, in words."""
    request = records.report["request"]
    parts = []
    for root in request["roots"]:
        what = f"the class {_quoted(root['classes'])}" if len(root["classes"]) == 1 else ""
        what = what or (f"the classes {_quoted(root['classes'])}" if root["classes"] else "")
        what = what or (count(root["sample_count"], "sample") if root["sample_count"] else "")
        what = what or f"everything that {request['client']} contributed"
        model = root["model"]
        owner = f" ({records.graph.model(model).owner})" if model in records.graph else ""
        parts.append(f"{what}, learned by {model}{owner}")
    return "; ".join(parts)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"“{name}”" for name in names)


def _edges(records: CampaignRecords, found: Sequence[AffectedModel]) -> list[ShownEdge]:
    """Return the edges between affected versions."""
    inside = {one.id for one in found}
    return [
        ShownEdge(edge.parent, edge.child, str(edge.kind), edge.weight)
        for one in found
        for edge in records.graph.parents(one.id)
        if edge.parent in inside
    ]


def _pictured(records: CampaignRecords, found: Sequence[AffectedModel]) -> list[ShownModel]:
    """Return the affected versions, ancestors first."""
    shown = {one.id: one.shown for one in found}
    return [shown[record.id] for record in records.graph.models() if record.id in shown]


def _plots(found: Sequence[AffectedModel]) -> list[tuple[str, Markup]]:
    """Draw what is recognised and what is kept, before and after, of the worst models in each."""
    plots = []
    for title, of, falls in (
        ("Recognised of what is to be forgotten, %", AffectedModel.recognised, False),
        ("Accuracy on what is kept, %", AffectedModel.kept, True),
    ):
        lines = []
        for one in found:
            before, after = of(one, "before"), of(one, "after")
            if before is not None and after is not None:
                better = after.percent - before.percent if falls else -after.percent
                dots = [Dot("before", "before", before), Dot("after", "after", after)]
                lines.append((better, (one.id, dots)))
        if len(lines) > WORST:  # in the order of all models where all are drawn
            lines.sort(key=lambda line: line[0])
        if lines:
            plots.append((title, dot_plot([line for _, line in lines[:WORST]], title)))
    return plots
