"""Result of a campaign: the execution of one request over all affected models."""

from dataclasses import dataclass, field
from typing import Literal

from disinherit.server.states import Task, TaskState

Outcome = Literal["unchanged", "complete", "partial", "failed", "rolling_back", "rolled_back"]


@dataclass(slots=True)
class Timing:
    """Seconds spent in the stages of a campaign.

    Attributes:
        fisher: until the roots' Fisher information had arrived.
        merge: to merge it for each group of models.
        broadcast_and_apply: until the owners had dampened their models.
        verify: until their weights had been read back.
    """

    fisher: float = 0.0
    merge: float = 0.0
    broadcast_and_apply: float = 0.0
    verify: float = 0.0

    @property
    def total(self) -> float:
        """Sum of all stages without verification."""
        return self.fisher + self.merge + self.broadcast_and_apply


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """The state of a campaign after a run.

    Attributes:
        request_id: the request.
        tasks: the task of every affected model, ancestors first.
        timing: seconds of this run.
        changed: models that this run changed.
        already_applied: models that were changed before this run.
    """

    request_id: str
    tasks: dict[str, Task]
    timing: Timing = field(default_factory=Timing)
    changed: tuple[str, ...] = ()
    already_applied: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The outcome of the run.

        `rolling_back` if an owner still has to put a model back; `rolled_back` if all or the chosen
        models were put back (`tasks` has their states).  Otherwise `unchanged` or `complete` if
        every task is complete, without or with a change by this run; `partial` if some models have
        forgotten, now or earlier; `failed` if none has.
        """
        states = {task.state for task in self.tasks.values()}
        if TaskState.ROLLING_BACK in states:
            return "rolling_back"
        if TaskState.ROLLED_BACK in states:
            return "rolled_back"
        if all(state.complete for state in states):
            return "complete" if self.changed else "unchanged"
        return "partial" if any(state.done for state in states) else "failed"
