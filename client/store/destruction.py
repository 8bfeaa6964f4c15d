"""Destruction of superseded versions on disk. Successors are written out first.

A version that is destroyed keeps its record and its digests, as a tombstone, and loses its weights
and its Fisher summary.  Successors may have only what unlearning changed in files of their own
(`disinherit.client.store.objects`) and lean on those very files, so each of them is written out
before.
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
    """What became of versions that were to be destroyed.

    Attributes:
        done: model -> its tombstone; of those destroyed before, too.
        refused: model -> why it was left as it is.
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
    """Make versions that a request superseded tombstones, and let nothing lean on their files.

    Args:
        index: the owner's index, in a transaction.
        objects: the owner's files; some may be written, and none is removed here.
        request_id: the request.
        expected: model -> its `weights_digest`.
        request_digest: SHA-256 of what the request asks for; `""` if nobody said.

    Raises:
        CheckpointError: if something cannot be written out; the transaction must be given up.
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
        # Nothing is removed before what takes its place is known to be whole.
        what = f"weights of model {entry.successor_id!r}"
        objects.get(entry.digest_after, what, index.part(entry.digest_after))
    holder = index.other_holder(digest, model_id)
    made = Destruction(request_id, model_id, digest, holder, request_digest)
    index.append_destruction(made)
    return made


def _write_out(index: Index, objects: Objects) -> None:
    """Give a file of its own to whatever leans on files with something of nobody any more."""
    leaning, spoiled = [], set()
    for part in index.parts():
        if index.holds(part.digest):
            leaning.append(part)
        else:
            index.written_out(part.digest)
            spoiled.add(part.pack)
    for part in leaning:
        if not index.holds(part.base) or (part.pack and part.pack in spoiled):
            tensors = objects.get(part.digest, f"object {part.digest}", part)
            objects.put(part.digest, tensors)
            index.written_out(part.digest)
