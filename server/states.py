"""States of tasks and campaigns, with a table of their transitions.

::

    awaiting_approval --approve--> running <--pause/resume--> paused
    running --end of a pass--> running | complete | partial
    complete, partial --a late descendant, or resumed--> running
    running, complete, partial --a threshold was exceeded--> halted --resume--> running
    awaiting_approval, running, paused, halted, partial --abort--> aborted
    complete, partial, aborted, paused, halted, rolled_back --roll back--> rolling_back
    rolling_back --end of a pass--> rolling_back | rolled_back | partial (nothing was put back)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from disinherit.common.errors import RequestError
from disinherit.common.graph.records import ModelRecord
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto
from disinherit.v1.unlearning_pb2 import ModelResult


class TaskState(StrEnum):
    """The state of the work on one affected model.

    `VERIFIED` means that the owner's weights were read back, and that the model forgot as far as
    its owner has data to measure it.  `INEFFECTIVE`, `NOT_REACHED` and `HARMFUL` are final, too:
    the owner answered, the model has not forgotten, and a person has to decide.  An `UNAPPROVED`
    model joined an approved request through a registration by somebody other than its owner.
    """

    PENDING = "pending"
    """The owner was not asked yet, or could not be reached."""
    SENT = "sent"
    """The owner was asked and has not answered."""
    APPLIED = "applied"
    """The owner stored a successor, which was not read back yet."""
    VERIFIED = "verified"
    """Read back; it forgot as far as its owner has data to measure it."""
    INEFFECTIVE = "ineffective"
    """The owner answered, and it has not forgotten."""
    NOT_REACHED = "not_reached"
    """Nothing of what is to be forgotten could be selected in it."""
    HARMFUL = "harmful"
    """It would lose too much of what is kept, and was left as it was."""
    FAILED = "failed"
    """The owner or the plan could not do it; the reason says why."""
    EXEMPT = "exempt"
    """Nothing is to be done: another version took its place, or it is to be retired."""
    HALTED = "halted"
    """A threshold of the roll-out was passed before it."""
    ROLLING_BACK = "rolling_back"
    """The superseded version is to be put back."""
    ROLLED_BACK = "rolled_back"
    """The superseded version is back, and knows what was forgotten."""
    UNAPPROVED = "unapproved"
    """It joined an approved request later, and waits for an approval."""

    @property
    def settled(self) -> bool:
        """Whether the owner is not asked again unless a person decides so."""
        return self.complete or self.unforgotten or self is TaskState.UNAPPROVED

    @property
    def complete(self) -> bool:
        """Whether the work is complete: the model forgot, or need not."""
        return self in (TaskState.VERIFIED, TaskState.EXEMPT, TaskState.ROLLED_BACK)

    @property
    def unforgotten(self) -> bool:
        """Whether the owner answered and the model has not forgotten: a person has to decide."""
        return self in (TaskState.INEFFECTIVE, TaskState.NOT_REACHED, TaskState.HARMFUL)

    @property
    def undone(self) -> bool:
        """Whether the model is or will be rolled back: no pass changes that."""
        return self in (TaskState.ROLLING_BACK, TaskState.ROLLED_BACK)

    @property
    def done(self) -> bool:
        """Whether the owner reported that the model has forgotten."""
        return self in (TaskState.APPLIED, TaskState.VERIFIED)

    @property
    def answered(self) -> bool:
        """Whether its owner reported a result, so that it is not asked again automatically."""
        return self.done or self.unforgotten


@dataclass(frozen=True, slots=True)
class Task:
    """The work on one affected model.

    Attributes:
        model_id: the version to dampen.
        owner: its owner.
        state: its state.
        reason: why it is not verified.
        result: the owner's result, also without a successor; kept after a roll-back.
        wave: its owner's wave of the roll-out, from 0.
        destroy_us: when the superseded version is to be destroyed, in microseconds since the epoch;
            0 for never.
        destroyed_us: when its owner destroyed it; 0 if it did not.
        late: whether it joined after the submission.
        given_us: the latest time, by the coordinator's clock, at which its owner was asked, in
            microseconds since the epoch; 0 for never.
    """

    model_id: str
    owner: str
    state: TaskState = TaskState.PENDING
    reason: str = ""
    result: ModelResult | None = None
    wave: int = 0
    destroy_us: int = 0
    destroyed_us: int = 0
    late: bool = False
    given_us: int = field(default=0, compare=False)

    @property
    def successor(self) -> RecordProto | None:
        """The successor that its owner reported, if any."""
        if self.result is None or not self.result.successor.id:
            return None
        return self.result.successor

    @property
    def repeated(self) -> bool:
        """Whether its owner made a successor and is asked to make it again."""
        return self.successor is not None and self.state in (TaskState.PENDING, TaskState.SENT)

    @property
    def is_unreached(self) -> bool:
        """Whether the plan, not its owner, found that the request does not reach it."""
        return self.state is TaskState.NOT_REACHED and self.result is None


@dataclass(frozen=True, slots=True)
class Answered:
    """An owner's answer with a successor.

    Attributes:
        task: the task after the answer.
        successor: the successor.
        packets: SHA-256 of the packets used: of a merged Fisher, or of the changes of roots.
    """

    task: Task
    successor: ModelRecord
    packets: tuple[str, ...]


def cleansed(tasks: Iterable[Task]) -> set[str]:
    """Return the ids of the successors that a campaign's owners reported."""
    return {made.id for task in tasks if (made := task.successor) is not None}


class CampaignState(StrEnum):
    """The state of a campaign."""

    AWAITING_APPROVAL = "awaiting_approval"
    """Nobody is asked until an approver says so."""
    RUNNING = "running"
    """Owners are asked."""
    PAUSED = "paused"
    """A person stopped it for now."""
    HALTED = "halted"
    """A threshold of the roll-out was passed; a person has to decide."""
    COMPLETE = "complete"
    """Every version is verified or exempt, or was put back on purpose."""
    PARTIAL = "partial"
    """Nothing more can be done, or the deadline is over, and some have not forgotten."""
    ABORTED = "aborted"
    """A person ended it; what was applied stays."""
    ROLLING_BACK = "rolling_back"
    """Owners are asked to put superseded versions back."""
    ROLLED_BACK = "rolled_back"
    """Superseded versions are back."""

    @property
    def advances(self) -> bool:
        """Whether a coordinator may work on it, including failed and late models."""
        return self in (CampaignState.RUNNING, CampaignState.COMPLETE, CampaignState.PARTIAL)

    @property
    def ended(self) -> bool:
        """Whether it is over unless a version joins or a person decides so."""
        return self in (
            CampaignState.COMPLETE,
            CampaignState.PARTIAL,
            CampaignState.HALTED,
            CampaignState.ABORTED,
            CampaignState.ROLLED_BACK,
        )

    @property
    def stopped(self) -> bool:
        """Whether it asks no owner until a person decides so."""
        return self in (
            CampaignState.AWAITING_APPROVAL,
            CampaignState.PAUSED,
            CampaignState.HALTED,
        )

    @property
    def drivable(self) -> bool:
        """Whether a coordinator may ask owners, to advance or to roll back."""
        return self.advances or self is CampaignState.ROLLING_BACK


class CampaignEvent(StrEnum):
    """An event of a campaign, caused by a person, a late descendant or a threshold."""

    APPROVE = "approve"
    PAUSE = "pause"
    HALT = "halt"
    RESUME = "resume"
    ABORT = "abort"
    REOPEN = "reopen"
    ROLL_BACK = "roll back"


_S = CampaignState
TRANSITIONS: Mapping[CampaignEvent, tuple[frozenset[CampaignState], CampaignState]] = {
    CampaignEvent.APPROVE: (frozenset({_S.AWAITING_APPROVAL}), _S.RUNNING),
    CampaignEvent.PAUSE: (frozenset({_S.RUNNING}), _S.PAUSED),
    CampaignEvent.HALT: (frozenset({_S.RUNNING, _S.COMPLETE, _S.PARTIAL}), _S.HALTED),
    CampaignEvent.RESUME: (frozenset({_S.PAUSED, _S.HALTED, _S.PARTIAL}), _S.RUNNING),
    CampaignEvent.ABORT: (
        frozenset({_S.AWAITING_APPROVAL, _S.RUNNING, _S.PAUSED, _S.HALTED, _S.PARTIAL}),
        _S.ABORTED,
    ),
    CampaignEvent.REOPEN: (frozenset({_S.COMPLETE, _S.PARTIAL}), _S.RUNNING),
    CampaignEvent.ROLL_BACK: (
        frozenset({_S.PAUSED, _S.HALTED, _S.COMPLETE, _S.PARTIAL, _S.ABORTED, _S.ROLLED_BACK}),
        _S.ROLLING_BACK,
    ),
}
"""Event -> allowed states, and the next state."""


def next_state(state: CampaignState, event: CampaignEvent) -> CampaignState:
    """Return the state after an event; a repeated event changes nothing.

    Args:
        state: the campaign's state.
        event: the event.

    Raises:
        RequestError: if the state does not allow the event.

    Example:
        >>> str(next_state(CampaignState.PAUSED, CampaignEvent.RESUME))
        'running'
    """
    allowed, target = TRANSITIONS[event]
    if state not in allowed and state is not target:
        raise RequestError(
            f"Expected a campaign that is {' or '.join(sorted(allowed))} to {event}, but it is "
            f"{state}."
        )
    return target


def state_after_pass(tasks: Iterable[TaskState], deadline_us: int, now_us: int) -> CampaignState:
    """Return the state of a campaign after a pass.

    Args:
        tasks: the states of its tasks.
        deadline_us: when the campaign gives up absent owners; 0 for never.
        now_us: the time.

    Example:
        >>> str(state_after_pass([TaskState.VERIFIED, TaskState.PENDING], 5, 4))
        'running'
        >>> str(state_after_pass([TaskState.VERIFIED, TaskState.PENDING], 5, 5))
        'partial'
        >>> str(state_after_pass([TaskState.VERIFIED, TaskState.INEFFECTIVE], 0, 4))
        'partial'
    """
    states = set(tasks)
    if all(task.complete for task in states):
        return CampaignState.COMPLETE
    if all(task.settled for task in states):
        return CampaignState.PARTIAL
    return CampaignState.PARTIAL if 0 < deadline_us <= now_us else CampaignState.RUNNING


def state_after_roll_back(tasks: Iterable[TaskState]) -> CampaignState:
    """Return the state of a campaign after a pass of its roll-back.

    Args:
        tasks: the states of its tasks.

    Example:
        >>> str(state_after_roll_back([TaskState.ROLLED_BACK, TaskState.VERIFIED]))
        'rolled_back'
        >>> str(state_after_roll_back([TaskState.APPLIED]))  # its owner refused
        'partial'
    """
    states = set(tasks)
    if TaskState.ROLLING_BACK in states:
        return CampaignState.ROLLING_BACK
    if states and TaskState.ROLLED_BACK not in states:
        return CampaignState.PARTIAL
    return CampaignState.ROLLED_BACK
