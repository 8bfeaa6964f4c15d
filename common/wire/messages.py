"""The messages between coordinator and owners: every action with its task and its reply.

The coordinator sends the task and the owner answers with the reply, over any transport.  Owners
send nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

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
    "query.notice": Action(pb.NoticeTask, pb.NoticeReply),
    "train.unlearn": Action(pb.UnlearnTask, pb.UnlearnReply),
    "train.rollback": Action(pb.RollBackTask, pb.RollBackReply),
    "train.destroy": Action(pb.DestroyTask, pb.DestroyReply),
    "evaluate.panel": Action(pb.EvaluateTask, pb.EvaluateReply),
    "evaluate.preview": Action(pb.UnlearnTask, pb.EvaluateReply),
}
"""Name of the action -> its messages; the part before the dot is Flower's type of message."""


PROTOCOL = 1
"""Version of the protocol; an agent with another version is refused."""
