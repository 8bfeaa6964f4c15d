"""What a request is to forget: classes, samples, or a client's whole contribution."""

from collections.abc import Callable, Iterable

from disinherit.common.errors import LabelError, RequestError
from disinherit.common.graph import InheritanceGraph
from disinherit.common.graph_labels import class_indices
from disinherit.common.records import ModelRecord
from disinherit.common.sample_digests import samples_of
from disinherit.v1.unlearning_pb2 import Root, UnlearningRequest

_SHOWN_CLASSES = 20


def with_roots(
    request: UnlearningRequest,
    models_of: Callable[[str], Iterable[ModelRecord]],
    stored: UnlearningRequest | None = None,
) -> UnlearningRequest:
    """Return a request with its roots: for a client, all models that it trained directly.

    Args:
        request: the request; left as it is. One that names its roots is returned unchanged.
        models_of: returns the models of an owner, the oldest first.
        stored: what was submitted with its id before; a request for the same client keeps the
            roots that were found then, so that the same again is the same.

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
            "registered."
        )
    resolved = UnlearningRequest()
    resolved.CopyFrom(request)
    resolved.roots.extend(Root(model_id=model) for model in trained)
    return resolved


def check_targets(graph: InheritanceGraph, request: UnlearningRequest) -> None:
    """Check what is to be forgotten at each root.

    Args:
        graph: the inheritance graph.
        request: a request with roots.

    Raises:
        RequestError: if a root lists nothing to forget, classes beside samples, all of its classes,
            samples by anything but salted digests, or anything beside a client; or is not trained
            by that client.
        GraphError: if a root does not exist.
        LabelError: if a root does not know a class.
    """
    for root in request.roots:
        record = graph.model(root.model_id)
        if request.client:
            _check_client(record, root, request.client)
        elif root.samples:
            _check_samples(root)
        else:
            _check_classes(record, root)
    if len({bool(root.samples) for root in request.roots}) > 1:
        raise RequestError(
            "Expected either classes or samples to forget in one request, but got both. Submit two "
            "requests."
        )


def _check_client(record: ModelRecord, root: Root, client: str) -> None:
    if root.classes or root.samples:
        raise RequestError(
            f"Expected no classes or samples beside client {client!r}, all of whose contribution "
            f"is to be forgotten, but got some at root {record.id!r}."
        )
    if record.owner != client or not _trained(record):
        raise RequestError(
            f"Expected a root that {client!r} trained, but {record.id!r} of {record.owner!r} is "
            "none. Leave the roots out to have them filled in."
        )


def _check_samples(root: Root) -> None:
    if root.classes:
        raise RequestError(
            f"Expected either classes or samples to forget at root {root.model_id!r}, but got both."
        )
    try:
        samples_of(root)
    except RequestError as error:
        raise RequestError(f"Of root {root.model_id!r}: {error}") from error


def _check_classes(record: ModelRecord, root: Root) -> None:
    if not root.classes:
        raise RequestError(f"Expected classes to forget at root {record.id!r}, but got none.")
    unknown = set(root.classes).difference(record.labels)
    if unknown:
        # Not quoted: it may be the id of a sample that should not have come here.
        first = next(place for place, name in enumerate(root.classes) if name in unknown)
        known = ", ".join(repr(name) for name in record.labels[:_SHOWN_CLASSES])
        rest = ", ..." if len(record.labels) > _SHOWN_CLASSES else ""
        raise LabelError(
            f"Expected classes of {record.id!r} ({known}{rest}), but class {first + 1} of the "
            f"{len(root.classes)} named there, of {len(root.classes[first])} characters, is none."
        )
    if set(class_indices(record.labels, root.classes)) == set(range(len(record.labels))):
        raise RequestError(
            f"Expected at least one class of {record.id!r} to remain, but all of them are to be "
            "forgotten. Retire the model instead."
        )


def _trained(record: ModelRecord) -> bool:
    """Whether a model was trained on data of its owner."""
    return record.provenance is not None and any(record.provenance.samples_per_class.values())
