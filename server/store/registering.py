"""Rules for registrations: whose names they may use, and what was said first.

A version is registered by its owner's agent, by whoever has its owner's token, or by an operator
for an owner.  None of them may take a name that unlearning is going to give to another's version,
claim something of another's version, or change what was said of one before a request was known.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from disinherit.common.errors import GraphError, LabelError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.graph.rules import check_edge
from disinherit.server.store.tables import ANNOUNCED, MODELS, find_record
from disinherit.server.transport.answers import first_word

_LONGEST = 128
_TAIL = 33
"""Of an id that was cut to fit (`disinherit.client.dampening.one`): a tilde and 32 digits."""


def check_new_name(model_id: str) -> None:
    """Check that a caller may give this name to a new version.

    Raises:
        GraphError: if only unlearning makes such names.
    """
    if "~" in model_id:
        raise GraphError(
            f"Expected an id without '~' for a new model, but got {model_id!r}: ids with it are "
            "those that unlearning gives to what it makes of a model. Choose another."
        )


def check_name_space(db: Connection, record: ModelRecord) -> None:
    """Check that a new version is in its own owner's name space.

    An agent registers what unlearning made at its owner, which may be before its answer came
    through.  Such a version is named after the one that it was made of, and that is its owner's.

    Args:
        db: a transaction.
        record: the new version.

    Raises:
        GraphError: if it is named after a version of another owner, or of none.
    """
    base, tilde, _ = record.id.partition("~")
    if not tilde:
        return
    found = find_record(db, base)
    if found is None and len(record.id) == _LONGEST:  # named after one whose name was cut
        start = record.id[: _LONGEST - _TAIL]
        query = select(MODELS.c.id).where(MODELS.c.owner == record.owner)
        longer = db.scalar(query.where(MODELS.c.id.startswith(start, autoescape=True)).limit(1))
        found = None if longer is None else find_record(db, longer)
    if found is None or found.owner != record.owner:
        raise GraphError(
            f"Expected an id that is named after a model of owner {record.owner!r}, but got "
            f"{record.id!r}: what stands before '~' is the model that unlearning made it of."
        )


def check_first_word(present: ModelRecord, record: ModelRecord) -> ModelRecord:
    """Return what `first_word` does, unless something else is said of what was said before.

    Raises:
        GraphError: if it is.
    """
    kept = first_word(present, record)
    scale = record.fisher_scale
    if scale is not None:
        scale = scale.counted_as(kept.fisher_scale)  # an older agent does not count
    for said, there, what in (
        (scale, kept.fisher_scale, "Fisher scale"),
        (record.provenance, kept.provenance, "provenance"),
    ):
        if said is not None and said != there:
            raise GraphError(
                f"Expected the {what} of model {record.id!r} to stay as it was registered first, "
                "but got another. It changes with a new Fisher summary only: it bounds what the "
                "owner may send when something is to be forgotten."
            )
    return kept


def check_kinds(
    child: ModelRecord, edges: Sequence[Inheritance], find: Callable[[str], ModelRecord], own: bool
) -> None:
    """Check that nobody says of another's version that it was unlearned, which would exempt it.

    Args:
        child: the version that the edges lead to.
        edges: the edges.
        find: returns the version with an id, or raises `GraphError`.
        own: whether the child's owner says so.

    Raises:
        GraphError: if an edge says so.
    """
    for edge in edges:
        unlearned = edge.kind is InheritanceKind.UNLEARNED
        if unlearned and not (own and find(edge.parent).owner == child.owner):
            raise GraphError(
                f"Expected federated, distributed, incremental or transfer as the kind of the edge "
                f"{edge.parent!r} -> {child.id!r}, but got unlearned: what was unlearned in a "
                "model its own owner says."
            )


def check_foreign_parents(
    child: ModelRecord, edges: Sequence[Inheritance], find: Callable[[str], ModelRecord]
) -> None:
    """Check the edges from other owners' versions that an owner claims.

    Whatever is wrong with one, the answer is the same: neither whether an id exists nor what its
    classes are called is for another owner to know.

    Args:
        child: the owner's version.
        edges: those that lead to it.
        find: returns the version with an id, or raises `GraphError`.

    Raises:
        GraphError: if one cannot be.
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
    """Refuse labels that cannot fit the head, as a parent with the very same tensors shows.

    Args:
        record: the version.
        parents: what is known of the versions it was derived from.

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
    """A version that an owner was told to make.

    Attributes:
        model_id: its id.
        owner: whose it will be.
        start: id of the version that it is trained from.
    """

    model_id: str
    owner: str
    start: str


def put_announced(db: Connection, versions: Iterable[Announced]) -> None:
    """Note versions that owners were told to make; what was noted of the same ids is gone."""
    rows = {
        one.model_id: {"model_id": one.model_id, "owner": one.owner, "start_id": one.start}
        for one in versions
    }
    for model_id in rows:
        db.execute(delete(ANNOUNCED).where(ANNOUNCED.c.model_id == model_id))
    if rows:
        db.execute(insert(ANNOUNCED), list(rows.values()))


def find_announced(db: Connection, model_id: str, owner: str) -> Announced | None:
    """Return what was announced of a version of an owner, unless its owner has registered it."""
    query = select(ANNOUNCED).where(ANNOUNCED.c.model_id == model_id, ANNOUNCED.c.owner == owner)
    row = db.execute(query).one_or_none()
    return None if row is None else Announced(row.model_id, row.owner, row.start_id)


def drop_announced(db: Connection, model_id: str) -> None:
    """Forget what was announced: its owner has said what it holds."""
    db.execute(delete(ANNOUNCED).where(ANNOUNCED.c.model_id == model_id))
