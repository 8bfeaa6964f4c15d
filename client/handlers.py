"""Handlers of an owner: one for each action of the coordinator, on any carrier."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.message import Message

from disinherit.client.actions.delta import root_deltas
from disinherit.client.actions.evaluate import evaluate, preview
from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.notice import take_notice
from disinherit.client.actions.undo import destroy, roll_back
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.owner.owner import Owner
from disinherit.client.privacy.acceptance import ANYBODY, AcceptancePolicy
from disinherit.client.privacy.policy import OPEN, ReleasePolicy
from disinherit.client.shown_heads import forgetting, releasing
from disinherit.v1 import unlearning_pb2 as pb

Handler = Callable[[Owner, Any], Message]
"""Answers a task for an owner; idempotent, so a task may be repeated."""


def identify(owner: Owner, _: pb.Identity) -> pb.Identity:
    """Return the name of the owner."""
    return pb.Identity(owner=owner.store.owner)


def handlers(
    policy: ReleasePolicy = OPEN, acceptance: AcceptancePolicy = ANYBODY
) -> Mapping[str, Handler]:
    """Return action -> handler.

    Args:
        policy: conditions on releases of Fisher information, added to the owner's own.
        acceptance: conditions on the changes that are added to models, likewise.
    """
    return {
        "query.identify": identify,
        "query.register": partial(register, policy=policy),
        "query.fisher": partial(releasing(forget_fishers), policy=policy),
        "query.delta": partial(releasing(root_deltas), policy=policy),
        "query.notice": take_notice,
        "train.unlearn": partial(forgetting(unlearn), acceptance=acceptance),
        "train.rollback": roll_back,
        "train.destroy": destroy,
        "evaluate.panel": evaluate,
        "evaluate.preview": preview,
    }


HANDLERS = handlers()
"""Action -> handler, with the owner's own conditions only."""
