"""The task of one affected model: where the work on it stands."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

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
