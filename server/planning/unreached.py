"""Affected models that no class of a request arrives at, with look-alike class names there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.look_alikes import default_names, look_alikes, quote_distinctly
from disinherit.server.planning.class_names import Arrivals, Followed, Naming, bits
from disinherit.v1.unlearning_pb2 import UnlearningRequest

_FEW = 3


@dataclass(frozen=True, slots=True)
class Unreached:
    """Models that a request does not reach, or not completely.

    Attributes:
        models: model -> why the request does not reach it, and what a person can do.
        unsure: dampened model -> note on a class that does not arrive there, and on classes of
            unknown origin that may be the same one.
    """

    models: Mapping[str, str]
    unsure: Mapping[str, str]


@dataclass(slots=True)
class _Lost:
    """The classes of a request that do not arrive at some models of one label space.

    Attributes:
        classes: pairs of a class and the first root that is to forget it.
        arrived: whether any other class arrives.
        alike: class -> look-alike names at the model.
        unnamed: classes, at the model or the root, with default names of a tool.
        free: classes at the model that correspond to no class of a root.
        inherited: whether `unnamed` are instead classes of unexplained origin.
    """

    classes: list[tuple[str, str]] = field(default_factory=list)
    arrived: bool = False
    alike: dict[str, list[str]] = field(default_factory=dict)
    unnamed: list[str] = field(default_factory=list)
    free: list[str] = field(default_factory=list)
    inherited: bool = False


def find_unreached(
    graph: InheritanceGraph, request: UnlearningRequest, followed: Followed, models: Iterable[str]
) -> Unreached:
    """Return the models that a request by class does not reach.

    A model is not reached if no class of the request arrives there, whatever the scope: what is
    dampened below its head need not be forgotten, and no class of its own shows whether it is.  Nor
    is it reached if a class does not arrive but may have another name there: a look-alike, a
    default name of a tool, or a class that the model was not trained on and no parent has.  Only a
    person can decide what such a name means.

    Args:
        graph: the inheritance graph.
        request: the request.
        followed: names of the roots' classes at every affected model.
        models: the models to check, in topological order.
    """
    asked = asked_classes(request)
    found: dict[str, str] = {}
    known: dict[tuple[int, tuple[str, ...]], _Lost] = {}
    unsure: dict[str, str] = {}
    nowhere: dict[str, frozenset[str]] = {}
    unrecorded: dict[str, frozenset[str]] = {}
    for model in models if asked else ():
        arrivals, labels = followed.arrivals[model], graph.model(model).labels
        key = (id(arrivals), labels)
        if key not in known:
            known[key] = _lost(arrivals, labels, asked, followed.roots)
        lost = known[key]
        if not lost.classes:
            continue
        provenance = graph.model(model).provenance
        new = _unknown_to_parents(graph, model, lost.free)
        passed = _passed(graph, model, lost.free, nowhere)
        if provenance is not None:
            passed |= {name for name in new if not provenance.samples_per_class.get(name)}
        nowhere[model] = passed
        unrecorded[model] = _passed(graph, model, lost.free, unrecorded)
        if provenance is None:
            unrecorded[model] |= new
        if lost.arrived and nowhere[model] and not (lost.alike or lost.unnamed):
            lost = replace(lost, unnamed=sorted(nowhere[model]), inherited=True)
        if lost.arrived and not (lost.alike or lost.unnamed):
            if unrecorded[model]:
                unsure[model] = _unsure_note(lost, unrecorded[model])
            continue
        found[model] = _reason(graph, followed, model, lost)
        if request.method.scope != "head" and not (lost.alike or lost.unnamed):
            found[model] += ", and no class of its own would show what it forgot below it"
    return Unreached(found, unsure)


def asked_classes(request: UnlearningRequest) -> dict[frozenset[str], int]:
    """Return set of classes to forget -> the roots that are to forget exactly these, as bits."""
    asked: dict[frozenset[str], int] = {}
    for position, root in enumerate(request.roots):
        if root.classes:
            classes = frozenset(root.classes)
            asked[classes] = asked.get(classes, 0) | 1 << position
    return asked


def _lost(
    arrivals: Arrivals,
    labels: Sequence[str],
    asked: Mapping[frozenset[str], int],
    roots: Sequence[str],
) -> _Lost:
    found, missing = _Lost(), dict[str, int]()
    for classes, some in asked.items():
        for naming, present in arrivals.items():
            if not (both := some & present):
                continue
            for name in classes:
                if name in naming.names:
                    found.arrived = True
                else:
                    missing[name] = missing.get(name, 0) | both
    if not missing:
        return found
    found.classes = [(name, roots[next(bits(some))]) for name, some in sorted(missing.items())]
    taken = frozenset().union(*(naming.targets for naming in arrivals))
    found.free = free = [label for label in labels if label not in taken]
    for name in sorted(missing):
        if alike := look_alikes(name, free):
            found.alike[name] = alike
    found.unnamed = default_names(free)
    if not found.arrived:
        found.unnamed = found.unnamed or default_names(missing)
    return found


def _unknown_to_parents(graph: InheritanceGraph, model: str, free: Iterable[str]) -> frozenset[str]:
    """Return the classes of a model that no parent has.

    Args:
        graph: the inheritance graph.
        model: the model.
        free: its classes that correspond to no class of a root.
    """
    known: set[str] = set()
    for edge in graph.parents(model):
        known.update(edge.labels.get(label, label) for label in graph.model(edge.parent).labels)
    return frozenset(free) - known


def _passed(
    graph: InheritanceGraph, model: str, free: Iterable[str], before: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    """Return the classes of a model that it inherited from classes in `before`.

    Args:
        graph: the inheritance graph.
        model: the model.
        free: its classes that correspond to no class of a root.
        before: model -> some of its classes, for its ancestors.
    """
    edges = graph.parents(model)
    names = {edge.labels.get(name, name) for edge in edges for name in before.get(edge.parent, ())}
    return frozenset(name for name in free if name in names)


def _unsure_note(lost: _Lost, unrecorded: Iterable[str]) -> str:
    names = sorted(unrecorded)
    own = f"{', '.join(map(repr, names[:_FEW]))}{_more(names)}"
    return (
        f"{_missing(lost)}, and {own} may be the same class: no training provenance is recorded. "
        "Register it, or give labels={...} on the edge to map the class"
    )


def _missing(lost: _Lost) -> str:
    """Describe the classes of a root that correspond to no class of a model."""
    names = ", ".join(repr(name) for name, _ in lost.classes[:_FEW])
    begin = "no class" if lost.arrived else "none of its classes"
    return f"{begin} corresponds to {names}{_more(lost.classes)} of {lost.classes[0][1]}"


def _more(things: Sequence[object]) -> str:
    return f" and {len(things) - _FEW} more" if len(things) > _FEW else ""


def _reason(graph: InheritanceGraph, followed: Followed, model: str, lost: _Lost) -> str:
    missing = _missing(lost)
    name, root = next((one for one in lost.classes if one[0] in lost.alike), lost.classes[0])
    given, lost_at = _where(graph, followed, model, name, root)
    where = f"on the edge from {given}" if given else f"on the edge where {lost_at} lost it"
    if lost.alike:
        proposed = [quote_distinctly(one, lost.alike[one][0]) for one in lost.alike]
        alike = ", ".join(other for _, other in proposed)
        mapping = ", ".join(f"{one}: {other}" for one, other in proposed)
        verb = "looks" if len(proposed) == 1 else "look"
        return f"{missing}; {alike} {verb} alike: give labels={{{mapping}}} {where}"
    if lost.unnamed:
        some = ", ".join(lost.unnamed[:_FEW])
        if lost.inherited:
            return (
                f"{missing}, but it may be {some}: it was not trained on it, and no parent has "
                f"that name: map it with labels={{...}} {where}, or submit the other classes as a "
                "request of their own"
            )
        return (
            f"{missing}; {some} are default names of a tool: map them with labels={{...}} {where}"
        )
    if name in graph.model(model).labels:
        return f"{missing}, which {lost_at} already lost: its own {name!r} counts as learned anew"
    if lost_at:
        return f"{missing}, which {lost_at} already lost: there is nothing to forget in its head"
    return f"{missing}: its label space has other classes, there is nothing to forget in its head"


def _where(
    graph: InheritanceGraph, followed: Followed, model: str, name: str, root: str
) -> tuple[str, str]:
    """Return a parent at which a class still arrives, or one that had already lost it."""
    bit = 1 << followed.roots.index(root)
    lost_at = ""
    for edge in graph.parents(model):
        naming = _naming(followed.arrivals.get(edge.parent, {}), bit)
        if naming is not None and name in naming.names:
            return edge.parent, ""
        if naming is not None:
            lost_at = lost_at or edge.parent
    return "", lost_at


def _naming(arrivals: Arrivals, bit: int) -> Naming | None:
    return next((naming for naming, roots in arrivals.items() if roots & bit), None)
