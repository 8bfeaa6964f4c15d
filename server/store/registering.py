"""Rules for registrations: names, foreign parents, and what stays as first registered.

An owner's agent, a caller with the owner's token or an operator registers a version.  None of them
may take a name that unlearning will give to another owner's version, make claims about another
owner's version, or change facts that were registered before a request was known.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, insert, select

from disinherit.common.errors import GraphError, LabelError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.graph.rules import check_edge
from disinherit.server.store.model_rows import find_record
from disinherit.server.store.queries import Query
from disinherit.server.store.tables import ANNOUNCED, MODELS
from disinherit.server.transport.answers import first_word

_ANNOUNCED_ONE = Query(
    select(ANNOUNCED).where(
        ANNOUNCED.c.model_id == bindparam("model"), ANNOUNCED.c.owner == bindparam("owner")
    )
)
_ANNOUNCED_ANY = Query(
    select(ANNOUNCED.c.model_id)
    .where(ANNOUNCED.c.model_id.in_(bindparam("models", expanding=True)))
    .limit(1)
)
_LONGEST = 128
_TAIL = 33
"""Length of the end of a cut id (`disinherit.client.dampening.one`): a tilde and 32 digits."""


def check_new_name(model_id: str) -> None:
    """Check that a caller may register a new version with this id.

    Raises:
        GraphError: if the id is reserved for successors.
    """
    if "~" in model_id:
        raise GraphError(
            f"Expected an id without '~' for a new model, but got {model_id!r}: ids with '~' are "
            "reserved for the successors that unlearning makes. Choose another."
        )


def check_name_space(db: Connection, record: ModelRecord) -> None:
    """Check that a new version is in the name space of its owner.

    An agent registers a successor at its owner, perhaps before its answer arrives.  A successor is
    named after its original, which must have the same owner.

    Args:
        db: a transaction.
        record: the new version.

    Raises:
        GraphError: if it is named after an unknown version, or one of another owner.
    """
    base, tilde, _ = record.id.partition("~")
    if not tilde:
        return
    found = find_record(db, base)
    if found is None and len(record.id) == _LONGEST:  # named after a cut id
        start = record.id[: _LONGEST - _TAIL]
        query = select(MODELS.c.id).where(MODELS.c.owner == record.owner)
        longer = db.scalar(query.where(MODELS.c.id.startswith(start, autoescape=True)).limit(1))
        found = None if longer is None else find_record(db, longer)
    if found is None or found.owner != record.owner:
        raise GraphError(
            f"Expected an id that is named after a model of owner {record.owner!r}, but got "
            f"{record.id!r}: the part before '~' is the model that unlearning made it of."
        )


def check_first_word(present: ModelRecord, record: ModelRecord) -> ModelRecord:
    """Return the result of `first_word`, unless the record contradicts what was registered first.

    Raises:
        GraphError: if the Fisher scale or the provenance differs.
    """
    kept = first_word(present, record)
    scale = record.fisher_scale
    if scale is not None:
        scale = scale.counted_as(kept.fisher_scale)  # older agents do not count samples
    for new, first, what in (
        (scale, kept.fisher_scale, "Fisher scale"),
        (record.provenance, kept.provenance, "provenance"),
    ):
        if new is not None and new != first:
            raise GraphError(
                f"Expected the {what} of model {record.id!r} to stay as it was registered first, "
                "but got another. It changes with a new Fisher summary only: it bounds what the "
                "owner may send when something is to be forgotten."
            )
    return kept


def check_kinds(
    child: ModelRecord, edges: Sequence[Inheritance], find: Callable[[str], ModelRecord], own: bool
) -> None:
    """Check that only owners register `unlearned` edges, since these exempt a version.

    Args:
        child: the version that the edges lead to.
        edges: the edges.
        find: returns the version with an id, or raises `GraphError`.
        own: whether the child's owner registers them.

    Raises:
        GraphError: if somebody else registers one, or the parent has another owner.
    """
    for edge in edges:
        unlearned = edge.kind is InheritanceKind.UNLEARNED
        if unlearned and not (own and find(edge.parent).owner == child.owner):
            raise GraphError(
                f"Expected federated, distributed, incremental or transfer as the kind of the edge "
                f"{edge.parent!r} -> {child.id!r}, but got unlearned: only a model's own owner "
                "registers what was unlearned in it."
            )


def check_foreign_parents(
    child: ModelRecord, edges: Sequence[Inheritance], find: Callable[[str], ModelRecord]
) -> None:
    """Check the edges that an owner registers from other owners' versions.

    All faults have the same message, since another owner must learn neither whether an id exists
    nor the names of its classes.

    Args:
        child: the owner's version.
        edges: the edges that lead to it.
        find: returns the version with an id, or raises `GraphError`.

    Raises:
        GraphError: if the parent is unknown or the edge does not fit.
    """
    for edge in edges:
        try:
            if find(edge.parent).owner == child.owner:
                continue
            check_edge(edge, child, find)
        except (GraphError, LabelError):
            raise GraphError(
                f"Expected a parent of {child.id!r} that can be its parent, but got "
                f"{edge.parent!r}, which is no model, or its classes do not correspond to those of "
                f"{child.id!r} as the edge says. Ask the parent's owner for its id and classes."
            ) from None


def check_label_count(record: ModelRecord, parents: Iterable[ModelRecord]) -> None:
    """Check the number of labels against parents of the same architecture, which have equal heads.

    Args:
        record: the version.
        parents: its known parents.

    Raises:
        LabelError: if a parent of its architecture has more or fewer labels.
    """
    for parent in parents:
        alike = record.architecture and parent.architecture == record.architecture
        if alike and len(parent.labels) != len(record.labels):
            raise LabelError(
                f"Expected as many labels of model {record.id!r} as of {parent.id!r}, which has "
                f"the same tensors, but got {len(record.labels)} and {len(parent.labels)}. If "
                f"those of {parent.id!r} are wrong, withdraw it and register it again."
            )


@dataclass(frozen=True, slots=True)
class Announced:
    """A version that a federation asked a node to make, until its owner registers it.

    Its update may miss the round, or be only a part of what the node keeps, or have fewer bits.
    Its start is known all the same.

    Attributes:
        model_id: its id.
        owner: its future owner.
        start: id of the version that it is trained from.
    """

    model_id: str
    owner: str
    start: str


def put_announced(db: Connection, versions: Iterable[Announced]) -> None:
    """Store announced versions, and replace earlier ones with the same ids."""
    rows = {
        one.model_id: {"model_id": one.model_id, "owner": one.owner, "start_id": one.start}
        for one in versions
    }
    for model_id in rows:
        db.execute(delete(ANNOUNCED).where(ANNOUNCED.c.model_id == model_id))
    if rows:
        db.execute(insert(ANNOUNCED), list(rows.values()))


def find_announced(db: Connection, model_id: str, owner: str) -> Announced | None:
    """Return an owner's announced version, or `None` if it is unknown or registered."""
    row = _ANNOUNCED_ONE.first(db, {"model": model_id, "owner": owner})
    return None if row is None else Announced(row.model_id, row.owner, row.start_id)


def any_announced(db: Connection, ids: Sequence[str]) -> bool:
    """Return whether any of some versions is announced."""
    return bool(ids) and _ANNOUNCED_ANY.scalar(db, {"models": list(ids)}) is not None


def drop_announced(db: Connection, model_id: str) -> None:
    """Remove an announced version, which its owner has registered."""
    db.execute(delete(ANNOUNCED).where(ANNOUNCED.c.model_id == model_id))
