"""Targets of a request: classes, samples, or a client's whole contribution."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from disinherit.common.errors import LabelError, RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.labels import class_indices, has_classes
from disinherit.common.graph.records import ModelRecord
from disinherit.common.text import did_you_mean
from disinherit.common.wire.requests import Request
from disinherit.v1.unlearning_pb2 import Root, UnlearningRequest

_SHOWN_CLASSES = 20


def with_roots(
    request: UnlearningRequest,
    models_of: Callable[[str], Iterable[ModelRecord]],
    owners_of: Callable[[], Iterable[str]],
    stored: UnlearningRequest | None = None,
) -> UnlearningRequest:
    """Return a request with its roots: for a client, all models that it trained directly.

    Args:
        request: the request, which is not modified. One with roots is returned unchanged.
        models_of: returns the models of an owner, the oldest first.
        owners_of: returns the owners of all models, for the error.
        stored: the stored request with the same id, if any; for the same client, its roots are
            kept, so that a repeated submission is equal.

    Raises:
        RequestError: if the client trained no model.
    """
    if not request.client or request.roots:
        return request
    if stored is not None and stored.client == request.client:
        trained = [root.model_id for root in stored.roots]
    else:
        trained = [record.id for record in models_of(request.client) if _trained(record)]
    if not trained:
        raise RequestError(
            f"Expected a client that trained a model, but {request.client!r} trained none that is "
            f"registered.{did_you_mean(request.client, owners_of())}"
        )
    resolved = UnlearningRequest()
    resolved.CopyFrom(request)
    resolved.roots.extend(Root(model_id=model) for model in trained)
    return resolved


def check_targets(
    graph: InheritanceGraph, request: Request, cleared: Mapping[str, Iterable[str]] | None = None
) -> None:
    """Check the targets at each root against the graph.

    Args:
        graph: the inheritance graph.
        request: a request with roots.
        cleared: root -> classes that earlier requests made it forget, as far as known.

    Raises:
        RequestError: if a root would keep none of its classes, has none, or was not trained by the
            client, or if descendants inherit changes and two roots are versions of one model.
        GraphError: if a root does not exist.
        LabelError: if a root does not know a class.
    """
    for root in request.samples:
        graph.model(root)
    for root, classes in request.forget.items():
        record = graph.model(root)
        if request.client:
            _check_client(record, request.client)
        else:
            _check_classes(record, classes, (cleared or {}).get(root, ()))
    if request.method.inherits_delta:
        _check_lines(graph, [*request.samples, *request.forget])


def _check_lines(graph: InheritanceGraph, roots: Sequence[str]) -> None:
    """Refuse two roots of one line: each stands for the other, so the change would count twice."""
    origins = find_origins(graph, roots)
    known: dict[str, str] = {}
    for root in roots:
        for model in (root, *origins.get(root, ())):
            other = known.setdefault(model, root)
            if other != root:
                raise RequestError(
                    f"Expected one root of each model, but {other!r} and {root!r} are versions of "
                    "one, so that its change would count twice. Leave out one of them."
                )


def _check_client(record: ModelRecord, client: str) -> None:
    if record.owner != client or not _trained(record):
        raise RequestError(
            f"Expected a root that {client!r} trained, but {record.id!r} of {record.owner!r} was "
            "not. Omit the roots to have them filled in."
        )


def _check_classes(record: ModelRecord, classes: Sequence[str], cleared: Iterable[str]) -> None:
    if not has_classes(record.labels):
        raise RequestError(
            f"Expected samples or a client to forget of {record.id!r}, which is a language model "
            f"and has no classes, but got {len(classes)} classes. Name sequences as samples."
        )
    unknown = set(classes).difference(record.labels)
    if unknown:
        # Not quoted: it may be a sample id, sent by mistake.
        first = next(place for place, name in enumerate(classes) if name in unknown)
        known = ", ".join(repr(name) for name in record.labels[:_SHOWN_CLASSES])
        rest = ", ..." if len(record.labels) > _SHOWN_CLASSES else ""
        raise LabelError(
            f"Expected classes of {record.id!r} ({known}{rest}), but class {first + 1} of the "
            f"{len(classes)} given ones, of {len(classes[first])} characters, is unknown."
            f"{did_you_mean(classes[first], record.labels)}"
        )
    if set(class_indices(record.labels, classes)) == set(range(len(record.labels))):
        raise RequestError(
            f"Expected at least one class of {record.id!r} to remain, but all of them are to be "
            "forgotten. Retire the model instead."
        )
    earlier = set(cleared).intersection(record.labels).difference(classes)
    if earlier | set(classes) == set(record.labels):
        listed = ", ".join(repr(name) for name in record.labels if name in earlier)
        raise RequestError(
            f"Expected at least one class of {record.id!r} to remain, but earlier requests made it "
            f"forget {listed}, and all others are to be forgotten. Retire the model instead."
        )


def _trained(record: ModelRecord) -> bool:
    """Whether a model was trained on data of its owner."""
    return record.provenance is not None and any(record.provenance.samples_per_class.values())


def find_origins(graph: InheritanceGraph, roots: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return root -> the versions that it was unlearned from, of roots that are successors.

    A successor knows what its origin knew, except what was forgotten; so do all descendants of the
    origin.  So a successor as root includes its origin.
    """
    found = {root: graph.origins(root) for root in roots}
    return {root: origins for root, origins in found.items() if origins}


def find_starts(graph: InheritanceGraph, roots: Iterable[str]) -> tuple[str, ...]:
    """Return roots and the versions that they were unlearned from, each once."""
    roots = list(roots)
    origins = find_origins(graph, roots).values()
    return tuple(dict.fromkeys([*roots, *(one for some in origins for one in some)]))
