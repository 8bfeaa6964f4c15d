"""Plan of a request: affected models, grouped by their upstream roots.

A model must be dampened only with what it inherited.  So each group of models with the same
upstream roots U(m) gets its own merged Fisher information.
"""

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from disinherit.common.errors import GraphError, RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind, ModelRecord, ModelStatus
from disinherit.common.wire.requests import Request
from disinherit.server.planning.class_names import (
    Arrivals,
    Followed,
    bits,
    follow_classes,
    packet_names,
)
from disinherit.server.planning.coefficients import (
    Coefficients,
    find_coefficients,
    kept_of_change,
)
from disinherit.server.planning.recipes import Computed, find_computed
from disinherit.server.planning.targets import check_targets, find_origins, find_starts
from disinherit.server.planning.unreached import Unreached, asked_classes, find_unreached
from disinherit.v1.unlearning_pb2 import UnlearningRequest

_Pairs = tuple[tuple[str, str | None], ...]
"""Changes of class names in a root's packets."""
_Key = frozenset[tuple[_Pairs, int]]
"""Identity of a group: changes of class names, each with its roots as bits."""
_NOTHING: Arrivals = {}
_FEW = 5
"""Maximum number of versions listed in a note."""


@dataclass(frozen=True, slots=True)
class Group:
    """Affected models that inherit from the same roots under the same class names.

    Attributes:
        roots: their upstream roots, in the order of the request.
        renamings: per root, changes of class names in its Fisher packets: pairs of the root's name
            and the name in the packet, `None` for a class that is left out.
        models: model ids in topological order.
        shares: model -> how much of each root's change it inherits, in the order of `roots`; empty
            if descendants inherit Fisher information.
        computed: model -> how it is computed again from its parents, for those with shares that
            were computed without training.
    """

    roots: tuple[str, ...]
    renamings: tuple[tuple[tuple[str, str | None], ...], ...]
    models: tuple[str, ...]
    shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    computed: Mapping[str, Computed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a request for the current graph.

    Attributes:
        affected: roots and descendants in topological order.
        groups: the affected models to dampen.
        exempt: affected models that need no dampening -> reason.
        failed: affected models that cannot be dampened -> reason.
        not_reached: affected models that no class to forget arrives at -> reason; they do not
            change, and a person has to decide.
        notes: information for the approver.
    """

    affected: tuple[str, ...]
    groups: tuple[Group, ...]
    exempt: Mapping[str, str]
    failed: Mapping[str, str]
    notes: tuple[str, ...]
    not_reached: Mapping[str, str] = field(default_factory=dict)

    @property
    def dampened(self) -> tuple[str, ...]:
        """The affected models to dampen."""
        return tuple(model for group in self.groups for model in group.models)


def plan(
    graph: InheritanceGraph,
    request: UnlearningRequest,
    cleansed: Collection[str] = (),
    holders: Iterable[ModelRecord] | None = None,
    parentless: Iterable[ModelRecord] = (),
    tasked: Container[str] = (),
    cleared: Mapping[str, Iterable[str]] | None = None,
) -> Plan:
    """Plan a request.

    Args:
        graph: the inheritance graph, or the subgraph of the roots' descendants.
        request: roots and what to forget there; for a client, with its roots filled in.
        cleansed: successors made by this request; it does not affect them.
        holders: the versions in the whole graph that were trained directly on a class to forget;
            `None` if `graph` is the whole graph.
        parentless: the versions in the whole graph that owners registered without a parent, and
            that have a class of the request's roots.
        tasked: versions with tasks of this request: they belong to it even if retired since.
        cleared: root -> classes that earlier requests made it forget, as far as known.

    Returns:
        The plan; nothing is changed.

    Raises:
        RequestError: if there is nothing to forget, nothing would be left, a root is listed twice,
            or the request mixes classes, samples and clients.
        GraphError: if a root does not exist.
        LabelError: if a root does not know a class.
    """
    asked = Request.from_proto(request)
    check_targets(graph, asked, cleared)
    roots = [root.model_id for root in request.roots]
    if not roots:
        raise RequestError("Expected at least one root to forget at, but got none.")
    origins = find_origins(graph, roots)
    affected = graph.affected(find_starts(graph, roots), cleansed=cleansed)
    exempt = {}
    put_back = set()
    for edge in (edge for model in affected for edge in graph.children(model)):
        if edge.kind is InheritanceKind.UNLEARNED and edge.child not in cleansed:
            if graph.model(edge.child).status is ModelStatus.RETIRED:
                if edge.child in tasked:
                    exempt[edge.child] = f"retired when {edge.parent} was put back in its place"
                else:
                    put_back.add(edge.child)
            else:
                exempt[edge.parent] = f"superseded by {edge.child}, which is unlearned in its place"
    if request.client:
        why = f"all that {request.client} trained it on is to be forgotten: retire it"
        exempt |= {model: why for model in roots if model not in exempt}
    followed = follow_classes(graph, roots, affected, cleansed, origins)
    # A successor that was retired by a roll-back is out of use, so no request concerns it.
    # Versions derived from it may still be affected.
    failed = {model: why for model, why in followed.failed.items() if model not in put_back}
    affected = tuple(model for model in affected if model not in put_back)
    todo = [m for m in affected if m not in exempt and m not in failed]
    unreached = find_unreached(graph, request, followed, todo)
    groups = _groups(graph, followed, [m for m in todo if m not in unreached.models])
    if asked.method.inherits_delta:
        kept = kept_of_change(request)
        coefficients = find_coefficients(graph, roots, affected, cleansed, origins, kept)
        leaving = roots if request.client else ()
        computed = find_computed(graph, roots, coefficients, leaving, kept)
        groups = tuple(_with_shares(group, coefficients, computed) for group in groups)
    return Plan(
        affected=affected,
        groups=groups,
        exempt=exempt,
        failed=failed,
        notes=(
            *_calibration_notes(request),
            *_origin_notes(origins),
            *_unreached_notes(unreached),
            *_notes(
                graph.models() if holders is None else holders,
                request,
                followed,
                by_changes=asked.method.inherits_delta,
            ),
            *_parentless_notes(parentless, request, followed),
        ),
        not_reached=unreached.models,
    )


def _groups(graph: InheritanceGraph, followed: Followed, models: list[str]) -> tuple[Group, ...]:
    groups: dict[_Key, list[str]] = {}
    known: dict[tuple[int, tuple[str, ...]], _Key] = {}
    for model in models:
        arrivals, labels = followed.arrivals[model], graph.model(model).labels
        key = (id(arrivals), labels)
        if key not in known:
            known[key] = _group_key(arrivals, labels)
        groups.setdefault(known[key], []).append(model)
    return tuple(
        Group(*_in_order(key, followed.roots), tuple(models)) for key, models in groups.items()
    )


def _with_shares(
    group: Group, coefficients: Mapping[str, Coefficients], computed: Mapping[str, Computed]
) -> Group:
    """Return a group with its shares: at most the whole change, however many paths lead there."""
    shares = {
        model: tuple(min(coefficients[model][root], 1.0) for root in group.roots)
        for model in group.models
    }
    own = {model: computed[model] for model in group.models if model in computed}
    return replace(group, shares=shares, computed=own)


def _group_key(arrivals: Arrivals, labels: tuple[str, ...]) -> _Key:
    changed: dict[_Pairs, int] = {}
    for naming, some in arrivals.items():
        names = packet_names(naming.source, labels, naming.renaming)
        pairs = tuple(sorted(names.items()))
        changed[pairs] = changed.get(pairs, 0) | some
    return frozenset(changed.items())


def _in_order(key: _Key, roots: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[_Pairs, ...]]:
    """Return the roots of a group in the order of the request, and each one's renamings."""
    of_root = {position: pairs for pairs, some in key for position in bits(some)}
    positions = sorted(of_root)
    return tuple(roots[p] for p in positions), tuple(of_root[p] for p in positions)


def _calibration_notes(request: UnlearningRequest) -> Iterable[str]:
    rounds = request.method.calibration_rounds
    if rounds:
        yield (
            f"{rounds} rounds of calibration are to follow in the Flower app of the federation "
            "(`disinherit.calibrate`), which alone can run them: global models lose accuracy until "
            "then."
        )


def _origin_notes(origins: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    for root, chain in origins.items():
        yield (
            f"{root} was unlearned from {', '.join(chain)}: models derived from those know what "
            f"{root} knows, so they are affected, too."
        )


def not_reached_notes(models: Mapping[str, str]) -> Iterator[str]:
    """Yield the notes of a plan on models that it does not reach.

    Args:
        models: model -> why.
    """
    by_reason: dict[str, list[str]] = {}
    for model, reason in models.items():
        by_reason.setdefault(reason, []).append(model)
    for reason, some in by_reason.items():
        yield f"{', '.join(some)}: not reached, {reason}."


def _unreached_notes(unreached: Unreached) -> Iterable[str]:
    yield from not_reached_notes(unreached.models)
    unsure: dict[str, list[str]] = {}
    for model, why in unreached.unsure.items():
        unsure.setdefault(why, []).append(model)
    for why, models in unsure.items():
        yield f"{', '.join(models)}: {why}."


def _notes(
    holders: Iterable[ModelRecord],
    request: UnlearningRequest,
    followed: Followed,
    *,
    by_changes: bool,
) -> Iterable[str]:
    """Yield notes on versions, by training provenance, that the roots may miss."""
    asked = asked_classes(request)
    of_root = {root.model_id: set(root.classes) for root in request.roots}
    everywhere = {name for names in asked for name in names}
    inherited: dict[int, set[str]] = {}
    also: list[str] = []
    for record in holders:
        arrivals = followed.arrivals.get(record.id, _NOTHING)
        if id(arrivals) not in inherited:
            inherited[id(arrivals)] = _inherited(arrivals, asked)
        names = inherited[id(arrivals)]
        counts = record.provenance.samples_per_class if record.provenance else {}
        held = {name for name, count in counts.items() if count}
        missed = sorted((held & everywhere) - names)
        if missed:
            yield (
                f"{record.id} was trained directly on {', '.join(missed)}, and no root that it "
                "inherits from is to forget that: this request does not reach it there. Add it as "
                "a root to include it."
            )
        if held & names - of_root.get(record.id, set()):
            also.append(record.id)
    if also:
        done = "dampened as descendants, with the Fisher information of the given roots"
        if by_changes:
            done = "changed as descendants, by the changes of the given roots"
        yield f"{', '.join(also)} also trained directly on classes to forget; they are {done}."


def _parentless_notes(
    records: Iterable[ModelRecord], request: UnlearningRequest, followed: Followed
) -> Iterable[str]:
    """Yield notes on versions that may have inherited a class to forget from an unknown parent."""
    everywhere = {name for names in asked_classes(request) for name in names}
    found: dict[str, list[str]] = {}
    for record in records:
        if record.provenance is None or record.id in followed.arrivals:
            continue
        counts = record.provenance.samples_per_class
        named = sorted(x for x in everywhere.intersection(record.labels) if not counts.get(x))
        if named:
            found.setdefault(", ".join(named), []).append(record.id)
    for names, ids in found.items():
        more = f" and {len(ids) - _FEW} more" if len(ids) > _FEW else ""
        yield (
            f"{', '.join(ids[:_FEW])}{more}: {names} among the classes, not trained on directly, "
            "and registered without a parent: if they inherited that from a root, this request "
            "does not reach it there. Register what they were derived from."
        )


def _inherited(arrivals: Arrivals, asked: Mapping[frozenset[str], int]) -> set[str]:
    """Return a model's names of the classes that its roots are to forget."""
    return {
        naming.renaming[name]
        for naming, present in arrivals.items()
        for classes, some in asked.items()
        if some & present
        for name in classes
        if name in naming.renaming
    }


def check_plan(planned: Plan) -> None:
    """Raise `GraphError` if no affected model can be dampened."""
    if not planned.groups:
        reasons = {**planned.exempt, **planned.failed, **planned.not_reached}
        raise GraphError(
            "Expected at least one model to unlearn in, but: "
            + "; ".join(f"{model} {reason}" for model, reason in reasons.items())
        )
