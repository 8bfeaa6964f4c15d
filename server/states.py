"""States of tasks and campaigns, and their transitions: one table.

::

    awaiting_approval --approve--> running <--pause/resume--> paused
    running --end of a pass--> running | complete | partial
    complete, partial --a late descendant, or resumed--> running
    running, complete, partial --a threshold was passed--> halted --resume--> running
    awaiting_approval, running, paused, halted, partial --abort--> aborted
    complete, partial, aborted, paused, halted, rolled_back --roll back--> rolling_back
    rolling_back --end of a pass--> rolling_back | rolled_back | partial (nothing was put back)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from disinherit.common.errors import RequestError
from disinherit.common.graph.records import ModelRecord
from disinherit.v1.graph_pb2 import ModelRecord as RecordProto
from disinherit.v1.unlearning_pb2 import ModelResult


class TaskState(StrEnum):
    """The state of the work on one affected model.

    `VERIFIED` means that the owner's weights were read back and that the model forgot, as far as
    its owner has data that can tell.  `INEFFECTIVE`, `NOT_REACHED` and `HARMFUL` are ends, too: the
    owner answered, the model has not forgotten, and a person has to decide what to do.
    `UNAPPROVED` is what joined an approved request by the word of others than its owner.
    """

    PENDING = "pending"
    SENT = "sent"
    APPLIED = "applied"
    VERIFIED = "verified"
    INEFFECTIVE = "ineffective"
    NOT_REACHED = "not_reached"
    HARMFUL = "harmful"
    FAILED = "failed"
    EXEMPT = "exempt"
    HALTED = "halted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    UNAPPROVED = "unapproved"

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to ask the owner for, unless a person decides so."""
        return self.complete or self.unforgotten or self is TaskState.UNAPPROVED

    @property
    def complete(self) -> bool:
        """Whether nothing is left open: the model forgot, or need not."""
        return self in (TaskState.VERIFIED, TaskState.EXEMPT, TaskState.ROLLED_BACK)

    @property
    def unforgotten(self) -> bool:
        """Whether the owner answered, and the model has not forgotten: a person has to decide."""
        return self in (TaskState.INEFFECTIVE, TaskState.NOT_REACHED, TaskState.HARMFUL)

    @property
    def undone(self) -> bool:
        """Whether the model is to be as it was before, or is already: no pass changes that."""
        return self in (TaskState.ROLLING_BACK, TaskState.ROLLED_BACK)

    @property
    def done(self) -> bool:
        """Whether the owner has made the model forget, as far as it says."""
        return self in (TaskState.APPLIED, TaskState.VERIFIED)

    @property
    def answered(self) -> bool:
        """Whether its owner has said what it did, so that it is not asked again by itself."""
        return self.done or self.unforgotten


@dataclass(frozen=True, slots=True)
class Task:
    """The work on one affected model.

    Attributes:
        model_id: the version to dampen.
        owner: who holds it.
        state: where it stands.
        reason: why it is anything but verified.
        result: what the owner reported once it applied the request, or found that it would not
            help; kept when it is rolled back.
        wave: in which wave of the roll-out its owner is; the first is 0.
        destroy_us: when the superseded version is to be destroyed, in microseconds since the epoch;
            0 for not.
        destroyed_us: when its owner had destroyed it; 0 for not.
        late: whether it joined when the request had been submitted.
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

    @property
    def successor(self) -> RecordProto | None:
        """The version that its owner made, as it reported; `None` if it made none."""
        if self.result is None or not self.result.successor.id:
            return None
        return self.result.successor

    @property
    def repeated(self) -> bool:
        """Whether its owner made a successor before and is asked to do so again."""
        return self.successor is not None and self.state in (TaskState.PENDING, TaskState.SENT)

    @property
    def is_unreached(self) -> bool:
        """Whether the plan, and not its owner, says that the request does not reach it."""
        return self.state is TaskState.NOT_REACHED and self.result is None


@dataclass(frozen=True, slots=True)
class Answered:
    """What an owner answered of a model of which it made a successor.

    Attributes:
        task: the task as it stands then.
        successor: the version that unlearning made.
        fisher: SHA-256 of the Fisher packet that it was made with.
    """

    task: Task
    successor: ModelRecord
    fisher: str


def cleansed(tasks: Iterable[Task]) -> set[str]:
    """Return the ids of the versions that a campaign's owners made, as they reported."""
    return {made.id for task in tasks if (made := task.successor) is not None}


class CampaignState(StrEnum):
    """Where a campaign stands."""

    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    COMPLETE = "complete"
    PARTIAL = "partial"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"

    @property
    def advances(self) -> bool:
        """Whether a coordinator may carry it out, or what of it was left or came later."""
        return self in (CampaignState.RUNNING, CampaignState.COMPLETE, CampaignState.PARTIAL)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done unless something joins, or somebody decides anew."""
        return self in (
            CampaignState.COMPLETE,
            CampaignState.PARTIAL,
            CampaignState.HALTED,
            CampaignState.ABORTED,
            CampaignState.ROLLED_BACK,
        )

    @property
    def stopped(self) -> bool:
        """Whether owners are asked for nothing at all, until a person says so."""
        return self in (
            CampaignState.AWAITING_APPROVAL,
            CampaignState.PAUSED,
            CampaignState.HALTED,
        )

    @property
    def drivable(self) -> bool:
        """Whether a coordinator may ask owners for anything: to go on, or to go back."""
        return self.advances or self is CampaignState.ROLLING_BACK


class CampaignEvent(StrEnum):
    """What a person, a late descendant or a threshold makes happen to a campaign."""

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
"""Event -> the states it may happen in, and the state it leads to."""


def next_state(state: CampaignState, event: CampaignEvent) -> CampaignState:
    """Return the state an event leads to; one that is repeated changes nothing.

    Args:
        state: where the campaign stands.
        event: what is to happen.

    Raises:
        RequestError: if it may not happen then.

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
    """Return where a campaign stands once a pass over it has ended.

    Args:
        tasks: the states of its tasks.
        deadline_us: when owners that stay away are given up; 0 for never.
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
    """Return where a campaign that is rolled back stands once a pass over it has ended.

    Args:
        tasks: the states of its tasks.

    Example:
        >>> str(state_after_roll_back([TaskState.ROLLED_BACK, TaskState.VERIFIED]))
        'rolled_back'
        >>> str(state_after_roll_back([TaskState.APPLIED]))  # its owner could not
        'partial'
    """
    states = set(tasks)
    if TaskState.ROLLING_BACK in states:
        return CampaignState.ROLLING_BACK
    if states and TaskState.ROLLED_BACK not in states:
        return CampaignState.PARTIAL
    return CampaignState.ROLLED_BACK
