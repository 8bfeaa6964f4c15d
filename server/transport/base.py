"""The interface of transports to owners, whatever carries the messages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import Message

from disinherit.common.limits import ANSWER


@dataclass(frozen=True, slots=True)
class Ask:
    """A message to one owner.

    Attributes:
        owner: whom to ask.
        action: one of `disinherit.common.wire.messages.ACTIONS`.
        task: what to do.
        tensors: SHA-256 -> tensors of those Fisher packets in `task` that come without.  The same
            bytes stand in the messages to all owners that need them, and are never copied for one.
        most_bytes: what an answer may have; one that has more is not read.
    """

    owner: str
    action: str
    task: Message
    tensors: Mapping[str, bytes] = field(default_factory=dict)
    most_bytes: int = ANSWER.most


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for an `Ask`: a reply, or the reason why there is none.

    Attributes:
        ask: the message answered.
        reply: the owner's reply; `None` with an error.
        error: why there is no reply; `""` with a reply.
        unreachable: whether the owner may answer later (offline, timed out) rather than failed.
        sent: whether the message has gone out; if not, the owner cannot have acted on it.
        awaited: whether it has gone out and its answer will be there for a later, equal ask.
    """

    ask: Ask
    reply: Message | None = None
    error: str = ""
    unreachable: bool = False
    sent: bool = True
    awaited: bool = False


def too_large(most: int) -> str:
    """Return why an answer is not read that has more bytes than it may.

    Args:
        most: how many it may have.
    """
    if most < ANSWER.most:
        return (
            f"Expected an answer of at most {most:,} bytes, which is all that is needed by what is "
            "registered, but it has more: register its models anew if they have changed"
        )
    return (
        f"its answer is larger than {most:,} bytes: submit the request with a narrower scope or "
        "with --encoding log8"
    )


def not_connected(ask: Ask) -> Answer:
    """Return the answer for an owner that cannot be reached now."""
    return Answer(ask, error=f"owner {ask.owner} is not connected", unreachable=True, sent=False)


class Transport(Protocol):
    """Carries messages to owners, all at once, and yields answers as they arrive."""

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send all messages in parallel and yield exactly one answer for each.

        Args:
            asks: at most one message to an owner at a time.
            timeout: seconds after which a missing answer becomes an error.
        """
        ...
