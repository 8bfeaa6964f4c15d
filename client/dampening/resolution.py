"""Resolution of a request for a model: its dampening problem, or why it has none."""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from disinherit.client.dampening.comparison import Comparison, read_inherited
from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.dampening.problem import DampeningProblem
from disinherit.client.dampening.tuning import FixedStrength, default_strength
from disinherit.client.owner.owner import Owner
from disinherit.client.store.structure import Structure
from disinherit.common.errors import FisherError, ScopeError
from disinherit.common.fiun.unlearning import rows_end_at_bottom
from disinherit.common.graph.labels import class_indices
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.models.heads import Head
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope, split_scope
from disinherit.common.wire.packets import PackedFisher

_NAMED_GLOBS = 3
"""Most globs that an error proposes as a scope."""


def resolve_problem(
    owner: Owner,
    record: ModelRecord,
    network: nn.Module,
    packet: PackedFisher,
    method: Method,
    alike: PackedFisher | None = None,
) -> DampeningProblem:
    """Return the dampening problem of a request for a model.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module.
        packet: the merged Fisher of its upstream roots.
        method: how to unlearn.
        alike: the merged Fisher of the forgotten classes that the model was trained on itself, if
            these are not all.

    Raises:
        FisherError: if packet, method and model do not fit together.
        LabelError: if the label space of the packet or of the model does not fit its head.
        ScopeError: if the scope is the head, and the model has none; or if rows are to be taken out
            of a head whose weight is used in another layer, too.
        InputError: if a value of the method is out of range.
    """
    structure = find_structure(owner, record, network)
    fisher = _with_verified_head(record, packet, structure, method.scope)
    compared = None
    if alike is not None:
        compared = _with_verified_head(record, alike, structure, method.scope)
    aligned = fisher.aligned(record.labels)
    own = dict(network.named_parameters())
    names = tuple(name for name in own if name in aligned)
    out_of_scope = tuple(sorted(aligned.keys() - set(names)))
    shapes = {
        name: packet.factors[name].shape if name in packet.factors else tuple(aligned[name].shape)
        for name in names
    }
    _check_fits(record, packet, own, shapes, out_of_scope)
    known = [name for name in packet.classes if name in record.labels]
    forgotten = tuple(class_indices(record.labels, known))
    head = [name for name in fisher.head if name in names]
    # The gauge is free only if softmax follows directly and the weight has no other use.
    gauge_free = structure.head is not None and structure.head.gauge_free
    rows = forgotten if method.row_scoped and head and packet.classes else None
    only_rows = rows is not None and set(head) == set(names)
    heads = structure.head.names if head and structure.head is not None else ()
    taken_out = rows_end_at_bottom(names, heads, rows)
    if taken_out and structure.head is not None and not gauge_free:
        _check_untied(record, network, structure.head, structure.ties)
    origins = {entry.model_id for entry in owner.store.made_by(record.id)}
    return DampeningProblem(
        names=names,
        aliases={name: structure.names_of(name) for name in own},
        out_of_scope=out_of_scope,
        not_covered=_not_covered(network, method.scope, structure.head, names),
        tied=_tied(method.scope, structure, names),
        comparison=Comparison(
            read_inherited(fisher, record.labels, names, owner.device),
            None
            if compared is None
            else read_inherited(compared, record.labels, names, owner.device),
        ),
        forgotten=forgotten,
        heads=heads,
        rows=rows,
        only_rows=only_rows,
        taken_out=taken_out,
        pinned=FixedStrength(
            method.alpha,
            method.lam,
            method.gauge if gauge_free else 0.0,
            otherwise=default_strength(
                only_rows=only_rows,
                only_head=set(names) <= set(head),
                by_class=bool(packet.classes),
                repaired=bool(method.repair_steps),
            ),
        ),
        merge=method.merge,
        kind=method.reference,
        least=method.min_inheritance,
        sources=tuple(record.id if root in origins else root for root in packet.sources),
        clipped=packet.clip_norm > 0,
        rescale=method.rescale,
        gauge_free=gauge_free,
    )


def _with_verified_head(
    record: ModelRecord, fisher: PackedFisher, structure: Structure, scope: str
) -> PackedFisher:
    """Return a packet with the verified head of the model, or without a head.

    A layer of the same name may be another layer in this model, with rows that are not classes.

    Raises:
        FisherError: if the model has another head.
        ScopeError: if the scope is the head and the model has none.
    """
    roots = ", ".join(fisher.sources) or "an unknown root"
    if is_head_scope(scope) and not fisher.head:
        raise FisherError(f"Expected a Fisher packet of a head, but that of {roots} names none.")
    if not any(name in fisher.values for name in fisher.head):
        return fisher
    if structure.head is None:
        if is_head_scope(scope):
            raise ScopeError(structure.reason)
        return fisher.without_head()
    if set(fisher.head) != set(structure.head.parameters):
        raise FisherError(
            f"Expected the head of model {record.id!r} to be that of {roots}, "
            f"{', '.join(fisher.head)}, but the model's head is {structure.head}. Unlearn in a "
            "scope without heads, or make the model a root, or retrain it."
        )
    return fisher


def _check_untied(
    record: ModelRecord, network: nn.Module, head: Head, ties: Sequence[Sequence[str]]
) -> None:
    """Check that rows taken out of the head are not used elsewhere, such as in an embedding.

    Raises:
        ScopeError: if a parameter of the head is tied to that of another layer.
    """
    own = _own_names(head)
    shared = [names for names in ties if own & set(names) and not own >= set(names)]
    if not shared:
        return
    tied = [name for names in shared for name in names]
    inside, outside = (
        next(name for name in shared[0] if (name in own) is its) for its in (True, False)
    )
    others = []
    for name, _ in network.named_parameters():
        if name not in head.parameters:
            module = f"{name.rpartition('.')[0]}.*"
            wide = "." not in name or any(fnmatchcase(other, module) for other in tied)
            others.append(name if wide else module)
    few = ",".join([*dict.fromkeys(others)][:_NAMED_GLOBS])
    scope = f"Give a scope without it, such as {few!r}, or give" if few else "Give"
    raise ScopeError(
        f"Expected the head of model {record.id!r} to have weights of its own, but {inside} is "
        f"{outside}, too, so that taking a row out changes what other classes are told by. {scope} "
        "both layers weights of their own and add the model again."
    )


def _own_names(head: Head) -> set[str]:
    """Return the names of a head's parameters in its own layers, also of tied ones."""
    paths = [f"{layer.module}." if layer.module else "" for layer in head.layers]
    return {f"{path}{part}" for path in paths for part in ("weight", "bias")}


def _tied(scope: str, structure: Structure, names: Collection[str]) -> tuple[str, ...]:
    """Return the names outside of a scope of tied parameters that are dampened in it."""
    if scope.strip() == "all":
        return ()
    if is_head_scope(scope):
        inside = sorted(_own_names(structure.head)) if structure.head is not None else []
    else:
        inside = [*split_scope(scope)]
    dampened = [some for some in structure.ties if not set(names).isdisjoint(some)]
    return tuple(
        name
        for some in dampened
        for name in some
        if not any(name == one or fnmatchcase(name, one) for one in inside)
    )


def _not_covered(
    network: nn.Module, scope: str, head: Head | None, covered: Sequence[str]
) -> tuple[str, ...]:
    """Return the parameters of a network in scope that the packet does not cover."""
    try:
        own = resolve_scope(network, scope, head)
    except ScopeError:  # the glob fits the roots only
        return ()
    return tuple(sorted(set(own) - set(covered)))


def _check_fits(
    record: ModelRecord,
    packet: PackedFisher,
    parameters: Mapping[str, Tensor],
    forget: Mapping[str, Sequence[int]],
    out_of_scope: Sequence[str],
) -> None:
    roots = ", ".join(packet.sources) or "an unknown root"
    if not forget:
        raise FisherError(
            f"Expected a Fisher packet for parameters of model {record.id!r}, but that of {roots} "
            f"is for {', '.join(out_of_scope) or 'none'}, which the model does not have."
        )
    for name, shape in forget.items():
        if tuple(shape) != parameters[name].shape:
            raise FisherError(
                f"Expected a Fisher of shape {list(parameters[name].shape)} for parameter {name!r} "
                f"as in model {record.id!r}, but that of {roots} has {list(shape)}. Unlearn "
                "in a scope that both have in common."
            )
