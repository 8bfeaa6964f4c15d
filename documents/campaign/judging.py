"""The verdict of a real campaign, from its states, its gaps and what owners measured."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from disinherit.common.audit.gaps import GapKind
from disinherit.documents.campaign.deadlines import answer_due
from disinherit.documents.campaign.members import AffectedModel, CampaignRecords, received_at
from disinherit.documents.standing import Standing
from disinherit.documents.verdict import Level, Pair, Verdict, gaps_of, notable, with_worst
from disinherit.documents.words import count, day, joined

_RUNNING = {
    "awaiting_approval": "Nothing was done yet: the request waits for an approval",
    "running": "Under way",
    "paused": "Paused",
    "rolling_back": "Being rolled back",
    "rolled_back": "Rolled back: the models know what they knew before",
    "aborted": "Ended early by a person",
    "halted": "Halted, because a threshold of the roll-out was passed",
    "partial": "Ended without reaching all models",
}
_ENDED = ("complete", "partial", "aborted", "halted", "rolled_back")


def judge_campaign(records: CampaignRecords, found: Sequence[AffectedModel]) -> Verdict:
    """Judge a campaign; the level is `good` only if it is complete and nothing is left open.

    Args:
        records: its records.
        found: its affected models.
    """
    reservations = [*_overdue(records, found), *_lost(found), *_gaps(records.report, found)]
    level = _level(str(records.report["request"]["state"]), found)
    if level == "good" and reservations:
        level = "warning"
    return Verdict(_sentence(records, found), level, reservations)


def _level(state: str, found: Sequence[AffectedModel]) -> Level:
    stands = {one.standing for one in found}
    if not found or (state not in _ENDED and not stands & {Standing.FAILED, Standing.KEPT}):
        return "neutral"
    if state in _ENDED and Standing.FORGOT not in stands:
        return "bad" if stands & {Standing.FAILED, Standing.KEPT, Standing.OPEN} else "warning"
    fine = state == "complete" and stands <= {Standing.FORGOT, Standing.LEFT}
    return "good" if fine else "warning"


def _sentence(records: CampaignRecords, found: Sequence[AffectedModel]) -> str:
    if not found:
        return "Nothing to do: no model is affected by this request."
    state = str(records.report["request"]["state"])
    counts = Counter(one.standing for one in found)
    parts = [_RUNNING[state]] if state in _RUNNING else []
    if state != "awaiting_approval":
        total = count(len(found), "affected model")
        head = f"forgotten in {counts[Standing.FORGOT]} of {total}"
        if counts[Standing.FORGOT] == len(found):
            head = f"forgotten in {'all ' if len(found) > 1 else 'the '}{total}".replace(
                "the 1", "the"
            )
        parts.append(head if parts else head.capitalize())
        parts += [
            words.format(n=counts[standing])
            for standing, words in (
                (Standing.UNSHOWN, "{n} done, with no figure that shows it"),
                (Standing.KEPT, "{n} not forgotten"),
                (Standing.FAILED, "{n} failed"),
                (Standing.OPEN, "{n} not done yet"),
                (Standing.LEFT, "{n} left as they were, where nothing is to be done"),
            )
            if counts[standing]
        ]
    worst = _worst_recognised(found)
    return "; ".join([*parts, *worst, *_kept(found)]) + "."


def _worst_recognised(found: Sequence[AffectedModel]) -> list[str]:
    """Name the model that recognises most of what is forgotten, among those measured alike."""
    done = [one for one in found if one.standing is Standing.FORGOT]
    shares = [(one, share) for one in done if (share := one.recognised("after")) is not None]
    if not shares:
        return []
    worst, share = max(shares, key=lambda pair: pair[1].percent)
    if not share.hits:
        return [f"none of these recognises any of {_samples(shares)} held back to check"]
    return [f"at worst {worst.id} still recognises {share.hits} of {share.samples} samples"]


def _samples(shares: Sequence[tuple[AffectedModel, Any]]) -> str:
    numbers = sorted({share.samples for _, share in shares})
    if len(numbers) == 1:
        return f"the {count(numbers[0], 'sample')}"
    return f"the {numbers[0]} to {numbers[-1]} samples"


def _kept(found: Sequence[AffectedModel]) -> list[str]:
    """Return how accuracy on what is kept changed: the mean, and the worst beside it."""
    gaps = gaps_of(_pairs(found))
    if not gaps:
        return []
    mean = sum(one.points for one in gaps) / len(gaps)
    worst = min(gaps, key=lambda one: one.points)
    side = "fell" if mean < 0 else "rose"
    words = f"accuracy on what is kept {side} by {abs(mean):.1f} points on average"
    if not round(mean, 1):
        words = "accuracy on what is kept is as before on average"
    if worst.points < -0.05 and len(gaps) > 1:
        words += f", at worst in {worst.model} by {-worst.points:.1f}"
    return [words]


def _pairs(found: Sequence[AffectedModel]) -> list[Pair]:
    return [(one.id, one.kept("after"), one.kept("before")) for one in found]


def _lost(found: Sequence[AffectedModel]) -> list[str]:
    about = "what is kept"
    return [
        with_worst(gaps, about, side, "the model from before")
        for sign, side in ((-1, "below"), (1, "above"))
        if (gaps := notable(_pairs(found), sign))
    ]


def _overdue(records: CampaignRecords, found: Sequence[AffectedModel]) -> list[str]:
    """Say that the month of article 12(3) has passed while models were not done."""
    late = [one for one in found if one.standing in (Standing.OPEN, Standing.FAILED, Standing.KEPT)]
    received = received_at(records.report)
    if received is None or not late or answer_due(received) > records.made:
        return []
    return [
        f"The month within which the person must be answered ended on "
        f"{day(answer_due(received).isoformat())}, and {count(len(late), 'model')} "
        f"{'has' if len(late) == 1 else 'have'} not forgotten."
    ]


def _gaps(report: Mapping[str, Any], found: Sequence[AffectedModel]) -> list[str]:
    """Return the gaps of the campaign, each with its models, and the worst where there is one."""
    recognised = {one.id: one.recognised("after") for one in found}
    said = []
    for gap in report["gaps"]:
        about = f" ({joined(gap['models'])})" if gap["models"] else ""
        worst = ""
        if gap["kind"] == GapKind.INEFFECTIVE:
            known = [(share.percent, id) for id in gap["models"] if (share := recognised.get(id))]
            if known:
                percent, id = max(known)
                worst = f" Worst {id}: recognises {percent:.1f} %."
        said.append(f"{gap['text']}{about}{worst}")
    return said
