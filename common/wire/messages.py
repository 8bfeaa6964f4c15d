"""The messages between coordinator and owners: every action with its task and its reply.

The coordinator sends the task and the owner answers with the reply, over any transport.  Owners
send nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from disinherit.common.errors import FisherError
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True)
class Action:
    """An action that the coordinator asks of an owner.

    Attributes:
        task: message type of the task.
        reply: message type of the reply.
    """

    task: type[Message]
    reply: type[Message]

    @property
    def carries_packets(self) -> bool:
        """Whether a task contains Fisher packets, which may travel without their tensors."""
        return self.task is pb.UnlearnTask


ACTIONS: Mapping[str, Action] = {
    "query.identify": Action(pb.Identity, pb.Identity),
    "query.register": Action(pb.RegisterTask, pb.RegisterReply),
    "query.fisher": Action(pb.FisherTask, pb.FisherReply),
    "query.delta": Action(pb.FisherTask, pb.FisherReply),
    "query.notice": Action(pb.NoticeTask, pb.NoticeReply),
    "train.unlearn": Action(pb.UnlearnTask, pb.UnlearnReply),
    "train.rollback": Action(pb.RollBackTask, pb.RollBackReply),
    "train.destroy": Action(pb.DestroyTask, pb.DestroyReply),
    "evaluate.panel": Action(pb.EvaluateTask, pb.EvaluateReply),
    "evaluate.preview": Action(pb.UnlearnTask, pb.EvaluateReply),
}
"""Name of the action -> its messages; the part before the dot is Flower's type of message."""


NO_PACKET = 2**32 - 1
"""Index of a packet in entries with shares.

Older releases, which do not know shares, take it for that of Fisher information, and refuse it."""


def packets_for(task: pb.UnlearnTask, model: pb.ModelTask) -> list[pb.FisherPacket]:
    """Return the packets that a model is unlearned with: a merged one, or the changes of roots.

    Args:
        task: the message.
        model: its entry for the model.

    Raises:
        FisherError: if the message lacks one of them.
    """
    places = [share.packet for share in model.shares] or [model.fisher]
    if missing := [place for place in places if place >= len(task.fishers)]:
        raise FisherError(
            f"Expected the index of one of {len(task.fishers)} Fisher packets for model "
            f"{model.model_id!r}, but got {missing[0]}."
        )
    return [task.fishers[place] for place in places]


def sources_of(task: pb.UnlearnTask, model: pb.ModelTask) -> frozenset[str]:
    """Return the roots of the packets that a model is unlearned with.

    The arguments and errors are those of `packets_for`.
    """
    return frozenset(one for packet in packets_for(task, model) for one in packet.sources)


def without_tensors(packet: pb.FisherPacket) -> pb.FisherPacket:
    """Return a copy of a packet without its tensors."""
    described = pb.FisherPacket()
    described.CopyFrom(packet)
    described.ClearField("tensors")
    return described


PROTOCOL = 1
"""Version of the protocol; an agent with another version is refused."""
