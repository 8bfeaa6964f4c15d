"""Last end of the coordinator's log that an owner was shown: a log does not go back.

A coordinator whose database was put back from a copy does not know what it asked for since, and may
ask for something else under the same id.  So the owner keeps the latest head, shows it with every
answer, and does nothing for a coordinator that shows an earlier one, or another one of that length.
After a person has said that the coordinator may go on, its heads are of a later epoch.
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


def forgetting(
    unlearn: Callable[[Owner, pb.UnlearnTask], pb.UnlearnReply],
) -> Callable[[Owner, pb.UnlearnTask], pb.UnlearnReply]:
    """Return a handler that does nothing for a coordinator whose log has gone back.

    Args:
        unlearn: the handler for all others.
    """

    def handle(owner: Owner, task: pb.UnlearnTask) -> pb.UnlearnReply:
        known, refusal = _look(owner.store.root, task.log_head)
        if refusal:
            models = [
                pb.ModelResult(model_id=one.model_id, outcome=pb.OUTCOME_FAILED, error=refusal)
                for one in task.models
            ]
            return pb.UnlearnReply(models=models, log_head=known)
        reply = unlearn(owner, task)
        if known is not None:
            reply.log_head.CopyFrom(known)
        return reply

    return handle


def releasing(release: Callable[..., pb.FisherReply]) -> Callable[..., pb.FisherReply]:
    """Return a handler that gives nothing to a coordinator whose log has gone back.

    Args:
        release: the handler for all others.
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
    """Return what was shown before, and why the coordinator is refused; keep what is shown now."""
    path = folder / _NAME
    try:
        known = pb.LogHead.FromString(path.read_bytes()) if path.exists() else None
        if not shown.signature:  # by a coordinator without a key
            return known, ""
        if known is None or _follows(shown, known):
            if shown != known:
                write_private(path, shown.SerializeToString(deterministic=True))
            return known, ""
    except (OSError, DecodeError) as error:
        raise StoreError(
            f"Expected in {str(path)!r} where the coordinator's log ended, but: {error}. Restore "
            "it from a backup, or remove it."
        ) from error
    return known, (
        f"Expected a coordinator whose log leads to entry {known.entries}, which this owner was "
        f"shown, but it ends with entry {shown.entries}, or has another one there: its database "
        "was put back from a copy. Its administrator has to say that it may go on."
    )


def _follows(shown: pb.LogHead, known: pb.LogHead) -> bool:
    """Whether a head may come after another one, as far as can be seen without the log."""
    if shown.epoch != known.epoch:
        return shown.epoch > known.epoch
    if shown.entries == known.entries:
        return shown.hash == known.hash
    return shown.entries > known.entries
