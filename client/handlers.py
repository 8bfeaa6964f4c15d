"""Handlers of an owner: one for each message of the coordinator, whatever carries it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.message import Message

from disinherit.client.actions.evaluate import evaluate, preview
from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.notice import take_notice
from disinherit.client.actions.undo import destroy, roll_back
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.policy import OPEN, ReleasePolicy
from disinherit.client.shown_heads import forgetting, releasing
from disinherit.v1 import unlearning_pb2 as pb

Handler = Callable[[Owner, Any], Message]
"""Answers a task for an owner; idempotent, so a task may come more than once."""


def identify(owner: Owner, _: pb.Identity) -> pb.Identity:
    """Say whose models are here."""
    return pb.Identity(owner=owner.store.owner)


def handlers(policy: ReleasePolicy = OPEN) -> Mapping[str, Handler]:
    """Return what answers each action.

    Args:
        policy: conditions on what is released of Fisher information, beside the owner's own.
    """
    return {
        "query.identify": identify,
        "query.register": partial(register, policy=policy),
        "query.fisher": partial(releasing(forget_fishers), policy=policy),
        "query.notice": take_notice,
        "train.unlearn": forgetting(unlearn),
        "train.rollback": roll_back,
        "train.destroy": destroy,
        "evaluate.panel": evaluate,
        "evaluate.preview": preview,
    }


HANDLERS = handlers()
"""Action -> handler, with no conditions beside the owner's own."""
