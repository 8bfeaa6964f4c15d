"""Fitting changes: the part of a root's change that a model has a place for, within its scope.

Roots are other owners', so their changes are bounded by what the model is.
"""

import math
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from disinherit.client.store.structure import Structure
from disinherit.common.deltas.changes import Lengths, is_running_statistic, length
from disinherit.common.deltas.packets import PackedDelta, head_names
from disinherit.common.errors import FisherError, ScopeError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope
from disinherit.v1 import unlearning_pb2 as pb

MOST_SHARE = 1 + 1e-6
"""Largest coefficient of a root's change; weights of edges sum to 1 within as much."""

MOST_CHANGE = 10.0
"""Largest norm of what a root changes in a model, beside that of the model's own weights.

A change that is longer leaves nothing of the model.  Measured on small networks: at most 0.2 where
samples leave, and 0.7 where all training of a client does.
"""


def in_scope(
    scope: str, network: nn.Module, structure: Structure, weights: Collection[str]
) -> frozenset[str]:
    """Return the names in scope, all those of a tied parameter; buffers only with scope `all`.

    Args:
        scope: scope of the request.
        network: the model.
        structure: its head and tied parameters.
        weights: names of its weights.

    Raises:
        ScopeError: if it has nothing in scope.
    """
    if is_head_scope(scope) and structure.head is None:
        raise ScopeError(structure.reason)
    names = resolve_scope(network, scope, structure.head)
    if is_all(scope):
        return frozenset(weights)
    return frozenset(alias for name in names for alias in structure.names_of(name))


def is_all(scope: str) -> bool:
    """Whether a scope is the whole model, with its buffers."""
    return scope.strip() == "all"


def places(
    packet: pb.FisherPacket,
    record: ModelRecord,
    structure: Structure,
    scope: Collection[str],
) -> list[str]:
    """Return the names that a change may have in a model: all in scope, but for an unknown head's.

    Args:
        packet: the packet with the change.
        record: the version.
        structure: its head and tied parameters.
        scope: its names in scope.
    """
    own = structure.head.parameters if structure.head is not None else ()
    # Rows can be matched by class name only where both know which tensors make the logits.
    known = tuple(own) == head_names(packet) or (_same_labels(packet, record) and not own)
    left_out = set() if known else {*head_names(packet), *own}
    return [name for name in scope if name not in left_out]


def _same_labels(packet: pb.FisherPacket | PackedDelta, record: ModelRecord) -> bool:
    return record.labels == tuple(packet.labels)


def fitting(
    change: PackedDelta, record: ModelRecord, scope: str, result: pb.ModelResult
) -> Mapping[str, Tensor]:
    """Return a change with the rows of a model, and report what it has no place for.

    Args:
        change: the change, decoded for the places of the model.
        record: the version.
        scope: scope of the request.
        result: gets the other names.

    Raises:
        FisherError: if the model has a place for nothing, or the rows cannot be aligned.
    """
    result.out_of_scope.extend(name for name in change.left_out if name not in result.out_of_scope)
    if not change.values:
        within = "" if is_all(scope) else f" in scope {scope!r}"
        raise FisherError(
            f"Expected the change of root {change.source!r} to have tensors of model "
            f"{record.id!r}{within}, but none of {len(change.left_out)} has its name there. Make "
            "the model a root, or retrain it."
        )
    # Without rows of a head there is nothing to align.
    same = _same_labels(change, record) or not any(name in change.values for name in change.head)
    return change.values if same else change.aligned(record.labels)


def check_share(share: pb.Share, root: str) -> None:
    """Refuse a coefficient that no inheritance has.

    Args:
        share: the share of a change.
        root: id of the root.

    Raises:
        FisherError: if it is not above 0 and up to 1.
    """
    if not 0 < share.coefficient <= MOST_SHARE:  # NaN is not, either
        raise FisherError(
            f"Expected a share of the change of root {root!r} above 0 and up to 1, but got "
            f"{share.coefficient:g}. Submit the request again."
        )


def check_length(lengths: Lengths, share: float, weights: Mapping[str, Tensor], root: str) -> None:
    """Refuse a change beside which a model's own weights, or its statistics, are nothing.

    Args:
        lengths: of the change.
        share: what it is multiplied by.
        weights: the model's weights.
        root: id of the root.

    Raises:
        FisherError: if it is too long.
    """
    for kind, one in ((False, lengths.weights), (True, lengths.statistics)):
        added = share * one
        if not added:
            continue
        own = 0.0
        for name in (n for n in weights if is_running_statistic(n) is kind):
            own = math.hypot(own, length([weights[name]]))
            if not added > MOST_CHANGE * own:  # the others need not be read
                break
        else:
            what = "running statistics" if kind else "weights"
            raise FisherError(
                f"Expected the change of root {root!r} to have at most {MOST_CHANGE:g} times the "
                f"norm of the model's own {what}, {own:.3g}, but got {added:.3g}. Make the model a "
                "root, or retrain it."
            )
