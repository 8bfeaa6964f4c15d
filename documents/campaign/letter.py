"""A letter to the person who asked, in plain language; brackets are where somebody must write."""

import textwrap
from collections.abc import Iterator

from disinherit.documents.campaign.copies import copies_in_words
from disinherit.documents.campaign.members import (
    AffectedModel,
    CampaignRecords,
    by_standing,
    members,
    received_at,
)
from disinherit.documents.campaign.recipients import recipients
from disinherit.documents.standing import Standing
from disinherit.documents.words import count, day, joined

_WIDTH = 78
_OPEN = (Standing.OPEN, Standing.FAILED, Standing.KEPT)


def write_letter(records: CampaignRecords) -> str:
    """Return the letter as text.

    Args:
        records: what the coordinator knows of the campaign.
    """
    found = by_standing(members(records))
    received = received_at(records.report)
    taken = f" We took up your request on {day(received.isoformat())}." if received else ""
    paragraphs = [
        "[Your organisation, address, contact of your data protection officer]",
        "[Name and address of the person]",
        "[Date]",
        f"Your request to erase your data (our reference: {records.report['request']['id']})",
        "Dear [name],",
        f"on [date of the letter] you asked us to erase your data.{taken}",
        *(_found(found) if found else ["None of our models learned from your data."]),
        "If you do not agree with this answer, you can complain to a supervisory authority for "
        "data protection, or go to court.",
        "Yours sincerely",
        "[Name]",
    ]
    return "\n\n".join(_filled(one) for one in paragraphs) + "\n"


def _found(found: list[AffectedModel]) -> Iterator[str]:
    owners = recipients(found)
    one_only = len(found) == 1
    untold = [one.name for one in owners if not one.told]
    yield (
        f"What we found. Your data was used to train models, which are computer programs that "
        f"learn from examples. We found {copies_in_words(one.kind for one in found)} that learned "
        f"from it, or {'was' if one_only else 'were'} made from models that did. "
        f"{'It is' if one_only else 'They are'} "
        f"held by: {', '.join(one.name for one in owners)}."
    )
    if untold:
        yield f"We have not been able to tell {joined(untold)} of your request yet. [Why not.]"
    else:
        yield f"We told {'it' if len(owners) == 1 else 'all of them'} of your request."
    yield "What was done.\n" + "\n".join(f"- {one}" for one in _done(found))
    kept = sum(bool(one.entry["successor"] and not one.entry["destroyed"]) for one in found)
    stored = (
        f"The earlier versions of {count(kept, 'changed model')} are still stored. [Until when.] "
        if kept
        else ""
    )
    yield (
        "What we cannot promise. A trained model is not a file of records: nobody can prove from "
        f"the model itself that nothing of your data is left in it. {stored}Copies that others "
        "made without our knowledge are not included. [What happens to backups.]"
    )


def _done(found: list[AffectedModel]) -> Iterator[str]:
    stands = [one.standing for one in found]
    done, unshown = stands.count(Standing.FORGOT), stands.count(Standing.UNSHOWN)
    left, open_ = stands.count(Standing.LEFT), sum(one in _OPEN for one in stands)
    if done:
        yield f"{_changed(done)}, and it was checked that the effect is there."
    if unshown:
        yield f"{_changed(unshown)}, but there is no measurement that shows the effect."
    if open_:
        yield (
            f"{count(open_, 'model')} {'has' if open_ == 1 else 'have'} not forgotten yet. [Say "
            "why, and by when. If it takes longer than one month, say so within that month, with "
            "the reasons: GDPR, article 12(3).]"
        )
    if left:
        yield f"{count(left, 'model')} needed no change."


def _changed(number: int) -> str:
    return f"{count(number, 'model')} {'was' if number == 1 else 'were'} changed"


def _filled(paragraph: str) -> str:
    lines = paragraph.split("\n")
    return "\n".join(
        textwrap.fill(
            line,
            _WIDTH,
            subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
    )
