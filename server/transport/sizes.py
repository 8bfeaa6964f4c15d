"""Size limits of owners' answers, from the registered sizes of their models.

A Fisher packet has one value per parameter value in scope, and a root answers with one packet per
class to forget.  The number of values was registered with the Fisher summary, before the request.

It is the owner's own word: the coordinator has neither weights nor shapes to compare it with, and
what other owners registered of models of the same architecture could be made up to have honest
answers refused.  So it bounds the answers of honest owners; those of all others are bounded by
`ANSWER` alone.
"""

from collections.abc import Iterable

from disinherit.common.graph.records import ModelRecord
from disinherit.common.limits import ANSWER, FISHER, PACKET, RECORD, RESULT
from disinherit.common.models.scope_text import is_head_scope
from disinherit.server.transport.base import Ask
from disinherit.v1 import unlearning_pb2 as pb

_SHORT = 64 * 2**10
"""Maximum size of an answer about one version that has only a digest or a reason."""

_VALUE_BYTES = 9
"""Maximum size of a value in any encoding: `log8` in its own row, with its scale."""


def most_bytes(ask: Ask) -> int:
    """Return the maximum size of the answer to a message, in bytes.

    Args:
        ask: the message, which may have its own limit.
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
    """Return the maximum size of an answer with Fisher information of roots, in bytes.

    An owner adds one root after the other until there are `FISHER.most` bytes.

    Args:
        roots: each root of the message, and its record.
        scope: the request's scope.
    """
    sizes = [_root_bytes(root, record, scope) for root, record in roots]
    return min(sum(sizes), FISHER.most + max(sizes, default=0), ANSWER.most)


def _root_bytes(root: pb.Root, record: ModelRecord, scope: str) -> int:
    scale = record.fisher_scale
    values = 0
    if scale is not None:
        values = (is_head_scope(scope) and scale.head_values) or scale.values
    if not values:
        return ANSWER.most  # the number was not registered, for instance by an older release
    names = sum(len(name.encode()) for name in record.labels)
    packets = max(1, len(root.classes))
    return packets * (values * _VALUE_BYTES + 2 * names + PACKET.most)
