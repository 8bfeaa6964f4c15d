"""Estimates of how much a campaign sends: Fisher information, or changes of roots."""

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.models.scope_text import is_head_scope
from disinherit.server.planning.plan import Plan
from disinherit.v1 import unlearning_pb2 as pb

_FISHER_BYTES = {
    pb.FISHER_ENCODING_UNSPECIFIED: 4,
    pb.FISHER_ENCODING_BFLOAT16: 2,
    pb.FISHER_ENCODING_LOG8: 1,
    pb.FISHER_ENCODING_FACTORED: 4,  # of what is not factored; shapes are not known
}
_DELTA_BYTES = {
    pb.DELTA_ENCODING_UNSPECIFIED: 4,
    pb.DELTA_ENCODING_BFLOAT16: 2,
    pb.DELTA_ENCODING_INT8: 1,
}
"""Bytes of a value, by encoding."""


def estimate_bytes(
    graph: InheritanceGraph, request: pb.UnlearningRequest, planned: Plan
) -> tuple[int, int]:
    """Return what the roots' owners send, and what is sent to all owners, in bytes.

    Only values are counted, which are nearly all of it. An owner may choose a smaller encoding, a
    root may be exempt, and a rank may make changes smaller: so both are upper bounds.

    Args:
        graph: the inheritance graph, or the subgraph of the roots' descendants.
        request: the request, with its roots.
        planned: its plan.

    Returns:
        Both numbers; 0 if the records do not say how large a root is.
    """
    by_changes = bool(request.method.mechanism)
    packet: dict[str, int] = {}
    for root in request.roots:
        scale = graph.model(root.model_id).fisher_scale
        if scale is None or not scale.values:
            return 0, 0
        if by_changes:
            packet[root.model_id] = scale.values * _DELTA_BYTES[request.method.delta_encoding]
            continue
        in_head = is_head_scope(request.method.scope) and scale.head_values
        values = in_head or scale.values
        packet[root.model_id] = values * _FISHER_BYTES[request.method.encoding]
    classes = {root.model_id: max(1, len(root.classes)) for root in request.roots}
    asked = {root for group in planned.groups for root in group.roots}
    sent = sum(packet[root] * (1 if by_changes else classes[root]) for root in asked)
    given: dict[tuple[str, object], int] = {}
    for number, group in enumerate(planned.groups):
        for owner in {graph.model(model).owner for model in group.models}:
            if by_changes:
                given |= {(owner, root): packet[root] for root in group.roots}
            else:  # merged into one packet
                given[owner, number] = max(packet[root] for root in group.roots)
    return sent, sum(given.values())
