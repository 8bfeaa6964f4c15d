"""Owners as recipients of the data inside models: who was told, who answered, what is missing.

GDPR, article 19: whoever received the data is told of its erasure, and the person is told who they
are if they ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from disinherit.documents.campaign.members import AffectedModel
from disinherit.documents.standing import Standing, counted


@dataclass(frozen=True, slots=True)
class Recipient:
    """One owner.

    Attributes:
        name: its name.
        models: its affected models, the worst first.
        counts: how many of them stand where.
        told: when it was first told; `""` if it was not.
        acknowledged: when it first answered; `""` if it has not.
        done: when the last of its models was done; `""` while one is not.
        missing: why not, one reason for each.
    """

    name: str
    models: Sequence[AffectedModel]
    counts: Sequence[tuple[Standing, int]]
    told: str
    acknowledged: str
    done: str
    missing: Sequence[str]


def recipients(found: Sequence[AffectedModel]) -> list[Recipient]:
    """Return the owners of affected models, those with the worst models first.

    Args:
        found: all affected models, the worst first.
    """
    owned: dict[str, list[AffectedModel]] = {}
    for one in found:
        owned.setdefault(one.owner, []).append(one)
    return [_recipient(name, models) for name, models in owned.items()]


def _recipient(name: str, models: Sequence[AffectedModel]) -> Recipient:
    told = [one.told for one in models if one.told]
    answered = [one.acknowledged for one in models if one.acknowledged]
    done = [one.done for one in models if one.standing is not Standing.LEFT]
    reasons = dict.fromkeys(
        one.why.removesuffix(".") for one in models if one.why and one.standing is not Standing.LEFT
    )
    return Recipient(
        name=name,
        models=models,
        counts=counted(one.standing for one in models),
        told=min(told, default=""),
        acknowledged=min(answered, default=""),
        done=max(done, default="") if all(done) else "",
        missing=list(reasons),
    )
