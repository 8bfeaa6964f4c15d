"""What an owner does for each message of the coordinator, whatever carries it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import Message

from disinherit.client.destroying import destroy
from disinherit.client.evaluating import evaluate, preview
from disinherit.client.noticing import take_notice
from disinherit.client.owner import Owner
from disinherit.client.release import OPEN, ReleasePolicy
from disinherit.client.releasing import forget_fishers
from disinherit.client.rolling_back import roll_back
from disinherit.client.shown_heads import forgetting, releasing
from disinherit.client.summaries import register
from disinherit.client.unlearning import unlearn
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True)
class Handler:
    """How a message is answered.

    Attributes:
        task: type of the message.
        handle: answers it for an owner; idempotent, so a message may come more than once.
    """

    task: type[Message]
    handle: Callable[[Owner, Any], Message]


def identify(owner: Owner, _: pb.Identity) -> pb.Identity:
    """Say whose models are here."""
    return pb.Identity(owner=owner.store.owner)


def handlers(policy: ReleasePolicy = OPEN) -> Mapping[str, Handler]:
    """Return what answers each action.

    Args:
        policy: conditions on what is released of Fisher information, beside the owner's own.
    """
    return {
        "query.identify": Handler(pb.Identity, identify),
        "query.register": Handler(pb.RegisterTask, partial(register, policy=policy)),
        "query.fisher": Handler(pb.FisherTask, partial(releasing(forget_fishers), policy=policy)),
        "query.notice": Handler(pb.NoticeTask, take_notice),
        "train.unlearn": Handler(pb.UnlearnTask, forgetting(unlearn)),
        "train.rollback": Handler(pb.RollBackTask, roll_back),
        "train.destroy": Handler(pb.DestroyTask, destroy),
        "evaluate.panel": Handler(pb.EvaluateTask, evaluate),
        "evaluate.preview": Handler(pb.UnlearnTask, preview),
    }


HANDLERS = handlers()
"""Action -> handler, with no conditions beside the owner's own."""
