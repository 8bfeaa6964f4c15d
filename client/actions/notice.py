"""The owner's side of a notice: a version it holds is affected, and nothing is done to it.

The notice is written to the program's log, where people who answer for the owner's models look.
"""

import logging

from disinherit.client.owner.owner import Owner
from disinherit.v1 import unlearning_pb2 as pb

_LOG = logging.getLogger(__name__)


def take_notice(owner: Owner, task: pb.NoticeTask) -> pb.NoticeReply:
    """Log what a notice says of the owner's own versions, and return which these are."""
    held = {record.id for record in owner.store.records()}
    mine = [model for model in task.models if model.model_id in held]
    for model in mine:
        # As Python literals: a line of the log must not be made up by somebody else.
        _LOG.warning(
            "request %r affects version %r, which stays as it is (%r): %r",
            task.request_id,
            model.model_id,
            model.state,
            model.reason,
        )
    return pb.NoticeReply(model_ids=[model.model_id for model in mine])
