"""Remedies: what was done so that a model forgets, as the coordinator can tell.

Owners report what they did.  A report is believed only as far as the packets that the owner was
sent allow it: a model is `replayed` if its weights are those that the owner of the root announced,
before anybody applied anything, as trained again exactly; it is `rebuilt` if it was recorded as
computed from its parents, and all of these that the request affects are stored as replayed or
rebuilt.  Whether it was computed so is its owner's word.
"""

from collections.abc import Mapping, Sequence

from disinherit.common.errors import FisherError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.server.states import Task, TaskState
from disinherit.v1 import unlearning_pb2 as pb

EXACT = (pb.REMEDY_REPLAYED, pb.REMEDY_REBUILT)
"""Remedies of versions that never saw what is to be forgotten, by how they were made."""


def present_version(graph: InheritanceGraph, tasks: Mapping[str, Task], model: str) -> str:
    """Return what a request changes in the place of a version: the last that was made of it.

    Args:
        graph: the version and its successors.
        tasks: affected version -> the work on it.
        model: the version.
    """
    while (task := tasks.get(model)) is not None and task.state is TaskState.EXEMPT:
        heirs = graph.successors(model)
        if not heirs or heirs[-1] not in tasks:
            break
        model = heirs[-1]
    return model


def has_exact_parents(
    model: pb.ModelTask, graph: InheritanceGraph, tasks: Mapping[str, Task]
) -> bool:
    """Return whether a version can be exact if it is computed again from its parents.

    That is so if all roots above can be, and the results of all parents that the request affects
    are stored, as replayed or rebuilt.

    Args:
        model: the version's entry in the message.
        graph: has the parents and their successors.
        tasks: affected version -> the work on it, as stored.
    """
    needed = [one.model_id for one in model.rebuilding.parents if one.affected and not one.leaves]
    known = [tasks.get(present_version(graph, tasks, parent)) for parent in needed]
    return model.rebuilding.exact and all(
        task is not None
        and task.state.done
        and task.result is not None
        and task.result.remedy in EXACT
        for task in known
    )


def is_exact(
    result: pb.ModelResult,
    packets: Sequence[pb.FisherPacket],
    model: pb.ModelTask,
    *,
    exact_parents: bool,
) -> bool:
    """Return whether a model was to take the weights of its own exact training, and no more.

    Then it knows nothing of the data, also where no attack could tell it before.  So does one that
    its owner rebuilt of exact parents.

    Args:
        result: its owner's result.
        packets: what it was unlearned with.
        model: its entry in the message.
        exact_parents: what `has_exact_parents` tells.
    """
    if exact_parents and result.remedy == pb.REMEDY_REBUILT:
        return True
    return len(model.shares) == 1 and model.shares[0].own and packets[0].delta.exact


def remedy_of(
    result: pb.ModelResult,
    state: TaskState,
    packets: Sequence[pb.FisherPacket],
    model: pb.ModelTask,
    *,
    exact_parents: bool,
) -> pb.Remedy.ValueType:
    """Return the remedy of a model.

    Args:
        result: its owner's result.
        state: what the coordinator makes of it.
        packets: what it was unlearned with.
        model: its entry in the message.
        exact_parents: what `has_exact_parents` tells.

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
    if exact_parents and result.remedy == pb.REMEDY_REBUILT:
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
    exact = is_exact(result, packets, model, exact_parents=exact_parents)
    return pb.REMEDY_REPLAYED if exact else pb.REMEDY_APPROXIMATED
