"""Where a campaign stands, and what may happen to it then: one table.

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
from enum import StrEnum

from disinherit.common.errors import RequestError
from disinherit.server.tasks import TaskState


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
