"""Sizes that answers of owners may have, by what is registered of their models.

A Fisher packet has one value for each value of the parameters in scope, and a root answers with one
packet for each class to forget.  How many values there are was registered with the Fisher summary,
before there was a request.
"""

from collections.abc import Iterable

from disinherit.common.graph.records import ModelRecord
from disinherit.common.limits import ANSWER, FISHER, PACKET, RECORD, RESULT
from disinherit.common.models.scope_text import is_head_scope
from disinherit.server.transport.base import Ask
from disinherit.v1 import unlearning_pb2 as pb

_SHORT = 64 * 2**10
"""What an answer about one version has where it is a digest, or a reason."""

_VALUE_BYTES = 9
"""The most that one value takes in any encoding: as `log8` in a row of its own, with its scale."""


def most_bytes(ask: Ask) -> int:
    """Return how many bytes the answer to a message may have.

    Args:
        ask: the message, which may know of a bound itself.
    """
    task, most = ask.task, ANSWER.most
    if ask.action == "train.unlearn" and isinstance(task, pb.UnlearnTask):
        most = (1 + len(task.models)) * (RESULT.most + RECORD.most)
    elif isinstance(task, pb.RollBackTask | pb.DestroyTask | pb.NoticeTask):
        most = (1 + len(task.models)) * _SHORT
    elif isinstance(task, pb.EvaluateTask) and task.digests_only:
        most = (1 + len(task.model_ids)) * _SHORT
    elif isinstance(task, pb.Identity):
        most = _SHORT
    return min(most, ask.most_bytes)


def fisher_bytes(roots: Iterable[tuple[pb.Root, ModelRecord]], scope: str) -> int:
    """Return how many bytes an answer with the Fisher information of some roots may have.

    An owner sends one root after the other until there are `FISHER.most` bytes.

    Args:
        roots: what is asked for at each root, and what is registered of it.
        scope: of the request.
    """
    sizes = [_root_bytes(root, record, scope) for root, record in roots]
    return min(sum(sizes), FISHER.most + max(sizes, default=0), ANSWER.most)


def _root_bytes(root: pb.Root, record: ModelRecord, scope: str) -> int:
    scale = record.fisher_scale
    values = 0
    if scale is not None:
        values = (is_head_scope(scope) and scale.head_values) or scale.values
    if not values:
        return ANSWER.most  # its owner, or an older release, registered no number
    names = sum(len(name.encode()) for name in record.labels)
    packets = max(1, len(root.classes))
    return packets * (values * _VALUE_BYTES + 2 * names + PACKET.most)
