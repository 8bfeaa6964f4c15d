"""Destruction of superseded versions on disk, after their successors are written out.

A destroyed version loses its weights, Fisher summary and curvature, and keeps its record and
digests as a tombstone.  Successors may be stored as differences to these files
(`disinherit.client.store.objects`), so they are written out in full before.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from disinherit.client.store.checks import check_expected, check_superseded
from disinherit.client.store.index import Index
from disinherit.client.store.ledger import Destruction
from disinherit.client.store.objects import Objects
from disinherit.common.errors import CheckpointError, StoreError


@dataclass(frozen=True, slots=True)
class Destroyed:
    """Results of a destruction.

    Attributes:
        done: model -> tombstone, new or earlier.
        refused: model -> reason why it was kept.
    """

    done: Mapping[str, Destruction]
    refused: Mapping[str, str]


def bury(
    index: Index,
    objects: Objects,
    request_id: str,
    expected: Mapping[str, str],
    request_digest: str = "",
) -> Destroyed:
    """Record tombstones of superseded versions, and write out objects that depend on their files.

    Args:
        index: the owner's index, in a transaction.
        objects: the owner's files; some may be written, none is removed.
        request_id: the request.
        expected: model -> its `weights_digest`.
        request_digest: SHA-256 of the request's content; `""` if unknown.

    Raises:
        CheckpointError: if an object cannot be written out; the transaction must be rolled back.
    """
    done, refused = {}, {}
    for model_id, digest in expected.items():
        try:
            done[model_id] = _bury_one(index, objects, request_id, model_id, digest, request_digest)
        except (StoreError, CheckpointError) as error:
            refused[model_id] = str(error)
    _write_out(index, objects)
    return Destroyed(done, refused)


def _bury_one(
    index: Index,
    objects: Objects,
    request_id: str,
    model_id: str,
    digest: str,
    request_digest: str,
) -> Destruction:
    known = index.destruction(model_id)
    if known is not None and known.request_id == request_id:
        return known
    record = index.find(model_id)
    if record is None:
        raise StoreError(f"Expected a model in the store, but got {model_id!r}.")
    check_expected(record, digest)
    entry = check_superseded(model_id, request_id, index.entry(model_id))
    if index.destruction(entry.successor_id) is None:
        # The successor must be intact before its origin is removed.
        what = f"weights of model {entry.successor_id!r}"
        objects.verify(entry.digest_after, what, index.part(entry.digest_after))
    holder = index.other_holder(digest, model_id)
    made = Destruction(request_id, model_id, digest, holder, request_digest)
    index.append_destruction(made)
    index.drop_prepared(model_id)
    return made


def _write_out(index: Index, objects: Objects) -> None:
    """Write out all objects that depend on files with destroyed or unreferenced content."""
    dependent, obsolete = [], set()
    for part in index.parts():
        if index.holds(part.digest):
            dependent.append(part)
        else:
            index.written_out(part.digest)
            obsolete.add(part.pack)
    for part in dependent:
        if not index.holds(part.base) or (part.pack and part.pack in obsolete):
            objects.write_out(part)
            index.written_out(part.digest)
