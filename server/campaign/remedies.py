"""Remedies: what was done so that a model forgets, as the coordinator can tell.

Owners report what they did.  A report is believed only as far as the packets that the owner was
sent allow it: a model is `replayed` if its weights are those that the owner of the root announced,
before anybody applied anything, as trained again exactly; it is `rebuilt` if it was recorded as
computed from its parents, and all of these that the request affects are replayed or rebuilt.
"""

from collections.abc import Sequence

from disinherit.common.errors import FisherError
from disinherit.server.states import TaskState
from disinherit.v1 import unlearning_pb2 as pb


def is_exact(
    result: pb.ModelResult, packets: Sequence[pb.FisherPacket], model: pb.ModelTask
) -> bool:
    """Return whether a model was to take the weights of its own exact training, and no more.

    Then it knows nothing of the data, also where no attack could tell it before.  So does one that
    its owner rebuilt, where all its parents can be exact.

    Args:
        result: its owner's result.
        packets: what it was unlearned with.
        model: its entry in the message.
    """
    if _is_rebuilt(result, model):
        return True
    return len(model.shares) == 1 and model.shares[0].own and packets[0].delta.exact


def remedy_of(
    result: pb.ModelResult,
    state: TaskState,
    packets: Sequence[pb.FisherPacket],
    model: pb.ModelTask,
) -> pb.Remedy.ValueType:
    """Return the remedy of a model.

    Args:
        result: its owner's result.
        state: what the coordinator makes of it.
        packets: what it was unlearned with.
        model: its entry in the message.

    Raises:
        FisherError: if a root has other weights than its owner announced.
    """
    if state is TaskState.HARMFUL:
        return pb.REMEDY_REFUSED
    if state is TaskState.NOT_REACHED:
        return pb.REMEDY_UNTOUCHED
    if not result.successor.id:
        refused = result.remedy == pb.REMEDY_REFUSED
        return pb.REMEDY_REFUSED if refused else pb.REMEDY_UNTOUCHED
    if not model.shares:
        return pb.REMEDY_SUPPRESSED
    if _is_rebuilt(result, model):
        return pb.REMEDY_REBUILT
    if result.cleared_before and result.successor.digest == model.digest:
        return pb.REMEDY_UNTOUCHED
    made = packets[0].delta
    if len(model.shares) > 1 or not model.shares[0].own:
        return pb.REMEDY_APPROXIMATED
    if result.successor.digest != made.after:
        raise FisherError(
            f"Expected root {model.model_id!r} with the weights of digest {made.after}, which its "
            f"owner announced, but it made some of digest {result.successor.digest}."
        )
    exact = is_exact(result, packets, model)
    return pb.REMEDY_REPLAYED if exact else pb.REMEDY_APPROXIMATED


def _is_rebuilt(result: pb.ModelResult, model: pb.ModelTask) -> bool:
    """Whether an owner reports that it rebuilt a model, and it may be exact by what is known."""
    return result.remedy == pb.REMEDY_REBUILT and model.rebuilding.exact
