"""Where a model stands: a sign, a word and a colour, the same in every picture and table."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Role = Literal["root", "affected", "untouched"]


class Standing(StrEnum):
    """How far a model has forgotten, the worst first."""

    FAILED = "failed"
    KEPT = "kept"
    OPEN = "open"
    UNSHOWN = "unshown"
    FORGOT = "forgot"
    LEFT = "left"

    @property
    def sign(self) -> str:
        """One character, which is told apart without colours."""
        return _SIGNS[self]

    @property
    def words(self) -> str:
        """What it means of a number of models."""
        return _WORDS[self]

    @property
    def rank(self) -> int:
        """Its place, 0 for the worst."""
        return list(Standing).index(self)


_SIGNS = {
    Standing.FAILED: "✕",
    Standing.KEPT: "!",
    Standing.OPEN: "…",
    Standing.UNSHOWN: "?",
    Standing.FORGOT: "✓",
    Standing.LEFT: "·",
}
_WORDS = {
    Standing.FAILED: "failed",
    Standing.KEPT: "not forgotten",
    Standing.OPEN: "not done yet",
    Standing.UNSHOWN: "done, nothing shown",
    Standing.FORGOT: "forgotten",
    Standing.LEFT: "left as they were",
}


@dataclass(frozen=True, slots=True)
class ShownModel:
    """A model as pictures show it.

    Attributes:
        id: its id, also the end of its anchor on a page.
        owner: its owner.
        role: its role in the request.
        standing: where it stands.
        note: what else is known of it, as one line; it follows the owner.
    """

    id: str
    owner: str
    role: Role
    standing: Standing
    note: str = ""

    @property
    def words(self) -> str:
        """The model in one line, for those who do not see the picture."""
        role = "" if self.role == "affected" else f", {self.role}"
        note = f"; {self.note}" if self.note else ""
        return f"{self.id}, {self.owner}{role}{note}"


@dataclass(frozen=True, slots=True)
class ShownEdge:
    """`child` was derived from `parent`."""

    parent: str
    child: str
    kind: str
    weight: float


def counted(standings: Iterable[Standing]) -> list[tuple[Standing, int]]:
    """Return how many there are of each standing, the worst first; none is left out.

    Example:
        >>> [(one.sign, n) for one, n in counted([Standing.FORGOT, Standing.OPEN, Standing.FORGOT])]
        [('…', 1), ('✓', 2)]
    """
    found = Counter(standings)
    return [(one, found[one]) for one in Standing if found[one]]
