"""Notices to an owner: a version is affected by a request and stays unchanged.

A notice is a warning in the program's log, for the people responsible for the owner's models.
"""

import logging

from disinherit.client.owner.owner import Owner
from disinherit.v1 import unlearning_pb2 as pb

_LOG = logging.getLogger(__name__)


def take_notice(owner: Owner, task: pb.NoticeTask) -> pb.NoticeReply:
    """Log a notice about the owner's own versions, and return their ids."""
    held = {record.id for record in owner.store.records()}
    mine = [model for model in task.models if model.model_id in held]
    for model in mine:
        # As Python literals: others must not be able to forge lines of the log.
        _LOG.warning(
            "request %r affects version %r, which stays unchanged (%r): %r",
            task.request_id,
            model.model_id,
            model.state,
            model.reason,
        )
    return pb.NoticeReply(model_ids=[model.model_id for model in mine])
