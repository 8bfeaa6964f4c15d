"""States and times in words: each state has a sign, a word and a tone, never a colour alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class State:
    """How a state is shown.

    Attributes:
        sign: one character.
        word: a word or two.
        tone: good, active, calm, warning or bad; the style sheet has a colour for each.
        meaning: a sentence.
    """

    sign: str
    word: str
    tone: str
    meaning: str


TASKS: Mapping[str, State] = {
    "verified": State("✓", "verified", "good", "The weights were read back, and the model forgot."),
    "applied": State("↓", "applied", "active", "The owner stored a successor; not read back yet."),
    "sent": State("→", "sent", "active", "The owner was asked and has not answered yet."),
    "pending": State("…", "pending", "calm", "The owner was not asked yet, or was away."),
    "exempt": State("○", "exempt", "calm", "Nothing is to be done here."),
    "unapproved": State("?", "unapproved", "warning", "It joined later and waits for an approval."),
    "halted": State("■", "halted", "bad", "A gate stopped the roll-out before this model."),
    "not_reached": State(
        "!", "not reached", "warning", "Nothing to forget could be selected in this model."
    ),
    "ineffective": State(
        "!", "ineffective", "bad", "The owner answered; the model did not forget."
    ),
    "harmful": State(
        "!",
        "harmful",
        "bad",
        "It would have lost too much of what is kept, and was left as it was.",
    ),
    "failed": State("✕", "failed", "bad", "The owner or the model could not do it."),
    "rolling_back": State("↶", "rolling back", "active", "The old version is being put back."),
    "rolled_back": State("↶", "rolled back", "calm", "The old version is back."),
}
"""State of a model in a request, the most advanced first."""

WORST_FIRST = ("failed", "harmful", "ineffective", "not_reached", "halted", "unapproved")
"""States of models that somebody has to look at."""

CAMPAIGNS: Mapping[str, State] = {
    "awaiting_approval": State("?", "awaiting approval", "warning", "Nobody was asked yet."),
    "running": State("→", "running", "active", "Owners are asked as they can be reached."),
    "paused": State("‖", "paused", "warning", "Nothing is sent until somebody resumes it."),
    "halted": State("■", "halted", "bad", "A threshold of the roll-out was passed."),
    "complete": State("✓", "complete", "good", "Every affected model has forgotten or is exempt."),
    "partial": State("!", "partial", "warning", "It ended, and some models have not forgotten."),
    "aborted": State("✕", "aborted", "bad", "Somebody ended it."),
    "rolling_back": State("↶", "rolling back", "active", "Old versions are being put back."),
    "rolled_back": State("↶", "rolled back", "calm", "The old versions are back."),
}
"""State of a campaign."""

MODELS: Mapping[str, State] = {
    "active": State("✓", "active", "good", "In use."),
    "superseded": State("↦", "superseded", "calm", "A request made a successor of it."),
    "retired": State("○", "retired", "calm", "Withdrawn, or rolled back."),
}

ACCESS: Mapping[bool, State] = {
    True: State("●", "online", "good", "Connected now."),
    False: State("○", "offline", "calm", "Not connected now."),
}

UNKNOWN = State("·", "unknown", "calm", "A state of a later release.")

OPEN = ("awaiting_approval", "running", "paused", "halted", "rolling_back")
"""States of campaigns that have not ended."""

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def task_state(name: str) -> State:
    """Return how the state of a model in a request is shown."""
    return TASKS.get(name) or State("·", name.replace("_", " "), "calm", UNKNOWN.meaning)


def now() -> datetime:
    """Return the time on this machine, in UTC."""
    return datetime.now(UTC)


def relative(time: str, at: datetime | None = None) -> str:
    """Return how far a time is away, in words.

    Args:
        time: ISO 8601.
        at: the time to compare with; `None` for now.

    Example:
        >>> relative("2026-01-01T00:00:00+00:00", datetime(2026, 1, 1, 3, tzinfo=UTC))
        '3 h ago'
        >>> relative("2026-01-31T00:00:00+00:00", datetime(2026, 1, 1, 3, tzinfo=UTC))
        'in 29 d'
        >>> relative("2026-01-02T23:00:00+00:00", datetime(2026, 1, 1, tzinfo=UTC))
        'in 47 h'
    """
    seconds = (datetime.fromisoformat(time) - (at or now())).total_seconds()
    size = abs(seconds)
    for unit, name in _UNITS:
        if size >= (2 * unit if name == "d" else unit):  # a day left may be 47 hours
            amount = f"{int(size // unit)} {name}"
            return f"in {amount}" if seconds > 0 else f"{amount} ago"
    return "in a moment" if seconds > 0 else "just now"


def listed(names: list[str], most: int = 3) -> str:
    """Return names as a phrase, the first ones and how many more there are.

    Example:
        >>> listed(["a", "b"]), listed(["a", "b", "c", "d", "e"])
        ('a and b', 'a, b, c and 2 more')
    """
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
