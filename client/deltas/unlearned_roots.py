"""Unlearned roots: new weights of a root for a request, made once and kept until applied."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.deltas.repeating import line_of, sent_again
from disinherit.client.owner.owner import Owner, load_network
from disinherit.client.privacy.remaining import cleared_classes
from disinherit.client.roots.problems import root_problem
from disinherit.client.roots.root_method import unlearn_root
from disinherit.common.errors import CheckpointError, StoreError
from disinherit.common.fiun.unlearning import clear_rows
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import REPLAY, Method
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.text import one_line
from disinherit.v1 import unlearning_pb2 as pb

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class MadeRoot:
    """New weights of a root for a request.

    Attributes:
        weights: the complete weights, on the CPU.
        origin: digests before and after, request, and root method; without an encoding.
    """

    weights: dict[str, Tensor]
    origin: pb.Delta


def unlearned_root(
    owner: Owner,
    record: ModelRecord,
    method: Method,
    request_id: str,
    request_digest: str,
    samples: Sequence[str] | None,
) -> MadeRoot:
    """Return the new weights of a root, made now unless they were kept before, undamaged.

    They are kept unless the request was applied to the root already.

    Args:
        owner: the owner of the root.
        record: its version.
        method: how to unlearn, with the root method to take.
        request_id: the request.
        request_digest: SHA-256 of what it asks for.
        samples: ids of the samples to forget; `None` for all direct training data.

    Raises:
        RequestError: if no such root method is installed.
        DataError: if it cannot be done.
        CheckpointError: if stored weights are missing or damaged.
        StoreError: if another request was applied to the version, or this one was rolled back.
    """
    try:
        kept = owner.store.prepared(request_id, record.id)
    except CheckpointError as error:
        _log.warning("Making the new weights of root %s again: %s", record.id, error)
        kept = None
    if kept is not None:
        origin = pb.Delta.FromString(kept[1])
        if origin.request_digest == request_digest and origin.before == record.digest:
            return MadeRoot(kept[0], origin)
    problem = root_problem(owner, record, method, request_id, samples)
    root_method, made = unlearn_root(problem, method.root_method)
    cleared = cleared_classes(owner, record)
    if cleared:
        network = load_network(owner, record, made.weights)
        head = find_structure(owner, record, network).head
        clear_rows(made.weights, head.names if head is not None else (), cleared)
    origin = pb.Delta(
        before=record.digest,
        after=weights_digest(made.weights),
        request_digest=request_digest,
        root_method=root_method,
        exact=made.exact and root_method == REPLAY,
        note=one_line(made.note),
        line=line_of(owner, record),
        replaces=made.replaces,
        again=sent_again(owner, record, made.replaces),
    )
    if owner.store.applied(request_id, record.digest, record.id) is None:
        owner.store.prepare(
            request_id, record.id, made.weights, origin.SerializeToString(deterministic=True)
        )
    return MadeRoot(made.weights, origin)


def announced_root(
    owner: Owner,
    record: ModelRecord,
    task: pb.UnlearnTask,
    packet: pb.FisherPacket,
    samples: Sequence[str] | None,
) -> MadeRoot:
    """Return the new weights of a root that its owner announced with its change.

    Args:
        owner: the owner of the root.
        record: its version.
        task: the message.
        packet: the packet with the change, as its owner sent it.
        samples: ids of the samples to forget; `None` for all direct training data.

    Raises:
        StoreError: if the kept weights are gone and cannot be made again.
        Errors of `unlearned_root`.
    """
    method = Method.from_proto(task.method)
    made = unlearned_root(owner, record, method, task.request_id, task.request_digest, samples)
    if made.origin.after != packet.delta.after:
        raise StoreError(
            f"Expected the weights of root {record.id!r} with digest {packet.delta.after}, which "
            f"were made for request {task.request_id!r}, but they are gone, and made again they "
            f"have digest {made.origin.after}. Roll the request back and submit it again."
        )
    return made
