"""Latest head of the coordinator's log known to an owner, against restored databases.

A coordinator with a database restored from a copy has lost its latest requests, and may reuse their
ids.  So an owner keeps the latest head and returns it with every reply.  It refuses a coordinator
with an earlier head, or a different head of the same length.  After a person has confirmed the
restored log, its heads have a later epoch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from disinherit.client.owner.owner import Owner
from disinherit.common.errors import StoreError
from disinherit.common.files import write_private
from disinherit.v1 import unlearning_pb2 as pb

_NAME = "coordinator.head"


def forgetting(unlearn: Callable[..., pb.UnlearnReply]) -> Callable[..., pb.UnlearnReply]:
    """Return a handler that refuses coordinators with a restored log.

    Args:
        unlearn: the handler for all other coordinators.
    """

    def handle(owner: Owner, task: pb.UnlearnTask, **options: Any) -> pb.UnlearnReply:
        known, refusal = _look(owner.store.root, task.log_head)
        if refusal:
            models = [
                pb.ModelResult(model_id=one.model_id, outcome=pb.OUTCOME_FAILED, error=refusal)
                for one in task.models
            ]
            return pb.UnlearnReply(models=models, log_head=known)
        reply = unlearn(owner, task, **options)
        if known is not None:
            reply.log_head.CopyFrom(known)
        return reply

    return handle


def releasing(release: Callable[..., pb.FisherReply]) -> Callable[..., pb.FisherReply]:
    """Return a handler that releases nothing to coordinators with a restored log.

    Args:
        release: the handler for all other coordinators.
    """

    def handle(owner: Owner, task: pb.FisherTask, **options: Any) -> pb.FisherReply:
        known, refusal = _look(owner.store.root, task.log_head)
        if refusal:
            roots = [pb.RootFisher(model_id=one.model_id, error=refusal) for one in task.roots]
            return pb.FisherReply(roots=roots, log_head=known)
        reply = release(owner, task, **options)
        if known is not None:
            reply.log_head.CopyFrom(known)
        return reply

    return handle


def _look(folder: Path, shown: pb.LogHead) -> tuple[pb.LogHead | None, str]:
    """Return the head known before, and the reason of a refusal if any; keep the new head."""
    path = folder / _NAME
    try:
        known = pb.LogHead.FromString(path.read_bytes()) if path.exists() else None
        if not shown.signature:  # the coordinator has no key
            return known, ""
        if known is None or _follows(shown, known):
            if shown != known:
                write_private(path, shown.SerializeToString(deterministic=True))
            return known, ""
    except (OSError, DecodeError) as error:
        raise StoreError(
            f"Expected the head of the coordinator's log in {str(path)!r}, but: {error}. Restore "
            "it from a backup, or remove it."
        ) from error
    return known, (
        f"Expected a coordinator's log that continues entry {known.entries}, which this owner "
        f"knows, but it ends with entry {shown.entries} or differs there: the database was "
        "restored from a copy. Its administrator has to confirm the history."
    )


def _follows(shown: pb.LogHead, known: pb.LogHead) -> bool:
    """Whether a head can follow another one, as far as heads alone show."""
    if shown.epoch != known.epoch:
        return shown.epoch > known.epoch
    if shown.entries == known.entries:
        return shown.hash == known.hash
    return shown.entries > known.entries
