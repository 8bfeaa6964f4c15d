"""Plan of a request: affected models, grouped by their upstream roots.

A model must be dampened only with what it inherited.  So each group of models with the same
upstream roots U(m) gets its own merged Fisher information.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from disinherit.common.errors import GraphError, RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
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
from disinherit.server.planning.notes import (
    PlanNote,
    calibration_notes,
    holder_notes,
    origin_notes,
    parentless_notes,
    same_data_notes,
    unreached_notes,
)
from disinherit.server.planning.recipes import Computed, find_computed
from disinherit.server.planning.targets import check_targets, find_origins, find_starts
from disinherit.server.planning.unreached import find_unreached
from disinherit.v1.unlearning_pb2 import UnlearningRequest

SUPERSEDED = "superseded by "
"""How the reason of an exempt version begins whose successor is affected."""

_Pairs = tuple[tuple[str, str | None], ...]
"""Changes of class names in a root's packets."""
_Key = frozenset[tuple[_Pairs, int]]
"""Identity of a group: changes of class names, each with its roots as bits."""


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
        computed: model -> how it is computed again from its parents, for those that were computed
            without training; averages only where there are shares.
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
        remarks: information for the approver.
    """

    affected: tuple[str, ...]
    groups: tuple[Group, ...]
    exempt: Mapping[str, str]
    failed: Mapping[str, str]
    remarks: tuple[PlanNote, ...]
    not_reached: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """The texts of the remarks."""
        return tuple(note.text for note in self.remarks)

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
    computes = False
    for edge in (edge for model in affected for edge in graph.children(model)):
        computes = computes or edge.recipe not in (None, Recipe.AVERAGE)
        if edge.kind is InheritanceKind.UNLEARNED and edge.child not in cleansed:
            if graph.model(edge.child).status is ModelStatus.RETIRED:
                if edge.child in tasked:
                    exempt[edge.child] = f"retired when {edge.parent} was put back in its place"
                else:
                    put_back.add(edge.child)
            else:
                exempt[edge.parent] = f"{SUPERSEDED}{edge.child}, which is unlearned in its place"
    if request.client:
        why = f"all that {request.client} trained it on is to be forgotten: retire it"
        leaving = {*roots}  # and what earlier requests made of them, which is theirs as well
        own = (one for one in affected if not leaving.isdisjoint((one, *graph.origins(one))))
        exempt |= {model: why for model in own if model not in exempt}
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
        gone = roots if request.client else ()
        computed = find_computed(graph, roots, coefficients, gone, kept)
        groups = tuple(_with_shares(group, coefficients, computed) for group in groups)
    elif asked.forget and computes:
        inherits = [model for model in affected if model not in unreached.models]
        computed = _merges_and_copies(graph, roots, inherits)
        groups = tuple(replace(group, computed=_some(computed, group)) for group in groups)
    return Plan(
        affected=affected,
        groups=groups,
        exempt=exempt,
        failed=failed,
        remarks=(
            *calibration_notes(request),
            *origin_notes(origins),
            *unreached_notes(unreached),
            *holder_notes(
                graph.models() if holders is None else holders,
                request,
                followed,
                by_changes=asked.method.inherits_delta,
            ),
            *same_data_notes(graph, request, todo),
            *parentless_notes(parentless, request, followed),
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
    return replace(group, shares=shares, computed=_some(computed, group))


def _merges_and_copies(
    graph: InheritanceGraph, roots: Sequence[str], affected: Sequence[str]
) -> dict[str, Computed]:
    """Return the affected models that are computed again of dampened parents.

    An average is not: it has a head, and Fisher information of its own, like any trained model.
    """
    found = find_computed(graph, roots, dict.fromkeys(affected, ()))
    return {
        model: replace(one, needs=None)  # dampened parents are never exact
        for model, one in found.items()
        if one.recipe != Recipe.AVERAGE
    }


def _some(computed: Mapping[str, Computed], group: Group) -> dict[str, Computed]:
    return {model: computed[model] for model in group.models if model in computed}


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


def check_plan(planned: Plan) -> None:
    """Raise `GraphError` if no affected model can be dampened."""
    if not planned.groups:
        reasons = {**planned.exempt, **planned.failed, **planned.not_reached}
        raise GraphError(
            "Expected at least one model to unlearn in, but: "
            + "; ".join(f"{model} {reason}" for model, reason in reasons.items())
        )
