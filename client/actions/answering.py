"""Answers about roots: each root's packets or the reason for none, as many as fit a message."""

import logging
import time
from collections.abc import Callable, Sequence

from disinherit.client.owner.failures import explain
from disinherit.client.owner.owner import Owner
from disinherit.common.errors import FisherError, StoreError, WithheldError
from disinherit.v1 import unlearning_pb2 as pb

_log = logging.getLogger(__name__)


class _TooLargeError(FisherError):
    """The packets of a root exceed the size of a message."""


def answer_roots(
    owner: Owner,
    task: pb.FisherTask,
    packets: Callable[[pb.Root, pb.FisherTask], Sequence[pb.FisherPacket]],
    doing: str,
) -> pb.FisherReply:
    """Return the packets of every listed root.

    A root that fails, or whose release the policy refuses, has the reason; the other roots are
    answered.  Roots that do not fit into one reply are left for the next task.

    Args:
        owner: the owner of the roots.
        task: the message.
        packets: makes the packets of a root.
        doing: what that does, as the verb phrase before "model 'r'".
    """
    try:
        owner.store.check_content(task.request_id, task.request_digest)
    except StoreError as error:
        refused = [pb.RootFisher(model_id=root.model_id, error=str(error)) for root in task.roots]
        return pb.FisherReply(roots=refused)
    reply = pb.FisherReply()
    size = 0
    for root in task.roots:
        if task.enough_bytes and size >= task.enough_bytes:
            reply.more = True
            break
        answer = _answer(root, task, packets, doing)
        size += answer.ByteSize()
        reply.roots.append(answer)
    return reply


def _answer(
    root: pb.Root,
    task: pb.FisherTask,
    make: Callable[[pb.Root, pb.FisherTask], Sequence[pb.FisherPacket]],
    doing: str,
) -> pb.RootFisher:
    started = time.perf_counter()
    try:
        packets = make(root, task)
        size = sum(packet.ByteSize() for packet in packets)
        if task.most_bytes and size > task.most_bytes:
            by_delta = task.method.mechanism == "delta"
            what = "the change" if by_delta else "Fisher information"
            shorter = "--delta-encoding int8" if by_delta else "--encoding log8"
            raise _TooLargeError(
                f"Expected {what} of root {root.model_id!r} of at most {task.most_bytes:,} bytes, "
                f"but it has {size:,}. Submit the request with a narrower scope or with {shorter}."
            )
    except Exception as error:  # including errors of the owner's loaders and networks
        reason = explain(error, f"{doing} model {root.model_id!r}")
        withheld = isinstance(error, WithheldError)
        if withheld:
            _log.warning("Withheld from request: %s", reason)
        return pb.RootFisher(
            model_id=root.model_id,
            error=reason,
            withheld=withheld,
            permanent=isinstance(error, _TooLargeError),
        )
    return pb.RootFisher(
        model_id=root.model_id, packets=packets, seconds=time.perf_counter() - started
    )
