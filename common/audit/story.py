"""The history of one request in the audit log: state of the campaign and of every version.

Repeated attempts are logged once.  For a version in work the log therefore gives only its possible
states; for a settled version it gives the state.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from disinherit.common.audit.chain import AuditEntry

TIMES: Mapping[str, tuple[str, bool]] = {
    "received": ("received", False),
    "approved": ("approved", False),
    "sent": ("first_sent", False),
    "applied": ("last_applied", True),
    "verified": ("last_verified", True),
    "completed": ("ended", True),
    "partial": ("ended", True),
    "aborted": ("ended", True),
    "halt_decided": ("ended", True),
    "rollback_completed": ("ended", True),
    "destroyed": ("last_destroyed", True),
}
"""Event kind -> (name of its time, whether the last entry of the kind counts)."""

_CAMPAIGN: Mapping[str, frozenset[str]] = {
    "received": frozenset({"awaiting_approval", "running"}),
    "approved": frozenset({"running"}),
    "paused": frozenset({"paused"}),
    "resumed": frozenset({"running"}),
    "reopened": frozenset({"running"}),
    "aborted": frozenset({"aborted"}),
    "halt_decided": frozenset({"halted"}),
    "completed": frozenset({"complete"}),
    "partial": frozenset({"partial"}),
    "rollback_decided": frozenset({"rolling_back"}),
    "rollback_completed": frozenset({"rolled_back"}),
}
_GOES_ON = ("reopened", "resumed", "rollback_decided")
_SETTLED = ("verified", "exempt", "ineffective", "not_reached", "harmful")
_OPEN = ("sent", "failed", "halted", "applied", "unapproved")
_ANSWERS = ("applied", "ineffective", "not_reached", "harmful")
_UNDOING = {"rollback_planned": "rolling_back", "rolled_back": "rolled_back"}
_BESIDE = ("successor", "selected", "out_of_scope_sha256")
"""Details in the entry of an answer besides the parameters."""


@dataclass(slots=True)
class ModelStory:
    """History of one version.

    Attributes:
        states: possible states of its task.
        last: the last entry about it.
        owner: its owner.
        digest_before: SHA-256 of its weights; `None` if no entry has it.
        answer: the entry of its owner's answer; `None` before it, or once the owner is asked again.
        notified: the entry of the notification of its owner.
        destroyed: the entry of its destruction.
    """

    states: frozenset[str]
    last: AuditEntry
    owner: str
    digest_before: str | None = None
    answer: AuditEntry | None = None
    notified: AuditEntry | None = None
    destroyed: AuditEntry | None = None
    _open: set[str] = field(default_factory=set)

    @property
    def made(self) -> AuditEntry | None:
        """The entry of its present successor; `None` without one, or if it was retired."""
        if self.answer is None or "successor" not in self.answer.event.parameters:
            return None
        return None if self.states == {"rolled_back"} else self.answer

    @property
    def parameters(self) -> Mapping[str, Any] | None:
        """Parameters of the dampening; `None` if its owner has not answered."""
        if self.answer is None or self.states == {"rolled_back"}:
            return None
        details = self.answer.event.parameters
        return {name: one for name, one in details.items() if name not in _BESIDE} or None


@dataclass(frozen=True, slots=True)
class Story:
    """History of one request.

    Attributes:
        received: its first entry.
        states: possible states of its campaign.
        decided: the entry that determined the state.
        times_us: name -> time, in microseconds since the epoch.
        fishers: root -> the entry of its Fisher information.
        ended: the last entry that ended it; `None` while it is running.
        models: version -> its history.
    """

    received: AuditEntry
    states: frozenset[str]
    decided: AuditEntry
    times_us: Mapping[str, int]
    fishers: Mapping[str, AuditEntry]
    ended: AuditEntry | None
    models: Mapping[str, ModelStory]


def read_story(entries: Sequence[AuditEntry]) -> Story:
    """Return the history of a request.

    Args:
        entries: all entries about it, in order; at least one.
    """
    decided, ended = entries[0], None
    fishers: dict[str, AuditEntry] = {}
    models: dict[str, ModelStory] = {}
    for entry in entries:
        kind, model = entry.event.kind, entry.event.model_id
        if kind in _CAMPAIGN:
            decided = entry
            name, _ = TIMES.get(kind, ("", False))
            ended = entry if name == "ended" else None
        if kind == "fisher_received":
            fishers[model] = entry
        elif model and kind != "fisher_discarded":
            _follow(models, entry)
    return Story(
        received=entries[0],
        states=_CAMPAIGN.get(decided.event.kind, frozenset()),
        decided=decided,
        times_us=times(entries),
        fishers=fishers,
        ended=ended,
        models={id: model for id, model in models.items() if model.states},
    )


def times(entries: Iterable[AuditEntry]) -> dict[str, int]:
    """Return name -> time, in microseconds since the epoch."""
    found: dict[str, int] = {}
    for entry in entries:
        name, last = TIMES.get(entry.event.kind, ("", False))
        if name and (last or name not in found):
            found[name] = entry.event.time_us
        if entry.event.kind in _GOES_ON:
            found.pop("ended", None)
    return found


def _follow(models: dict[str, ModelStory], entry: AuditEntry) -> None:
    event = entry.event
    kind = event.kind
    model = models.setdefault(event.model_id, ModelStory(frozenset(), entry, event.owner))
    if kind == "notified":
        model.notified = entry
    elif kind == "destroyed":
        model.destroyed = entry
    elif kind in _UNDOING:
        model.states = frozenset({_UNDOING[kind]})
        model.last = entry
    elif kind == "rollback_refused":
        _settle(model, _state_not_put_back(model, event.digest_before))
        model.last = entry
    elif kind == "planned" or kind in _SETTLED or kind in _OPEN:
        _step(model, kind, entry)
        model.last, model.owner, model.digest_before = entry, event.owner, event.digest_before


def _step(model: ModelStory, kind: str, entry: AuditEntry) -> None:
    """Update the history of a version with one entry."""
    if kind in _ANSWERS:
        model.answer = entry
    if model.states <= {"rolling_back", "rolled_back"} and model.states:
        return  # its owner applied it before it received the withdrawal
    if kind in _SETTLED:
        _settle(model, kind)
        return
    if kind == "planned":
        if model.states and "successor" not in (
            model.answer.event.parameters if model.answer else {}
        ):
            model.answer = None  # the owner is asked again
        model._open = set()
    else:
        model._open.add(kind)
    # A return to pending is not logged; an applied task is no longer pending.
    waits = "applied" if model.made is not None else "pending"
    allowed = model._open & {"applied", "failed"} if model.made is not None else model._open
    model.states = frozenset({waits, *allowed})


def _settle(model: ModelStory, state: str) -> None:
    model.states = frozenset({state})
    model._open = set()


def _state_not_put_back(model: ModelStory, digest: str) -> str:
    """Return the state of a version that its owner could not put back."""
    if model.answer is not None and model.answer.event.kind == "ineffective":
        return "ineffective"
    return "applied" if digest else "failed"
