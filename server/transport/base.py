"""Interface of transports to owners, with asks and answers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import Message

from disinherit.common.limits import ANSWER


@dataclass(frozen=True, slots=True)
class Ask:
    """A message to one owner.

    Attributes:
        owner: the owner to ask.
        action: such as `query.fisher`; before the dot is Flower's type of message.
        task: the message.
        tensors: SHA-256 -> tensors of the Fisher packets in `task` that lack them.  The messages to
            all owners share these bytes without copies.
        most_bytes: maximum size of the answer; a larger one is not read.
    """

    owner: str
    action: str
    task: Message
    tensors: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    most_bytes: int = ANSWER.most


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an `Ask`: a reply, or the reason for a missing one.

    Attributes:
        ask: the ask.
        reply: the owner's reply; `None` with an error.
        error: the reason for a missing reply; `""` with a reply.
        unreachable: whether the owner may answer later (offline, timed out) rather than failed.
        sent: whether the message was sent; if not, the owner cannot have acted on it.
        awaited: whether it was sent, and a later, equal ask will get its answer.
        more: whether the answer of another owner is there already, so that both can be stored
            together.
    """

    ask: Ask
    reply: Message | None = None
    error: str = ""
    unreachable: bool = False
    sent: bool = True
    awaited: bool = False
    more: bool = False


def too_large(most: int) -> str:
    """Return the error for an answer above its size limit.

    Args:
        most: the limit in bytes.
    """
    if most < ANSWER.most:
        return (
            f"Expected an answer of at most {most:,} bytes, the limit for the registered models, "
            "but it has more: register its models anew if they have changed"
        )
    return (
        f"its answer is larger than {most:,} bytes: submit the request with a narrower scope or "
        "with --encoding log8"
    )


def not_connected(ask: Ask) -> Answer:
    """Return the answer for an owner that is not connected."""
    return Answer(ask, error=f"owner {ask.owner} is not connected", unreachable=True, sent=False)


class Transport(Protocol):
    """Carries messages to owners in parallel, and yields answers as they arrive."""

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send all messages in parallel and yield exactly one answer for each.

        Args:
            asks: at most one message to an owner at a time.
            timeout: seconds after which a missing answer becomes an error.
        """
        ...


_TOGETHER = 256


def together(answers: Iterable[Answer]) -> Iterator[list[Answer]]:
    """Yield answers in lists: those that are there already, up to 256, and no others.

    Example:
        >>> from google.protobuf.empty_pb2 import Empty
        >>> ask = Ask("anna", "query.notice", Empty())
        >>> several = [Answer(ask, more=True), Answer(ask), Answer(ask)]
        >>> [len(some) for some in together(several)]
        [2, 1]
    """
    some: list[Answer] = []
    for answer in answers:
        some.append(answer)
        if not answer.more or len(some) == _TOGETHER:
            yield some
            some = []
    if some:
        yield some
