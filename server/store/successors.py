"""Checks and storage of successors, with a few statements for any number.

Owners report successors, so whatever can be checked about them is checked.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from disinherit.common.errors import GraphError, InputError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.identifiers import successor_id
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, ModelStatus
from disinherit.common.graph.rules import is_same_version
from disinherit.server.now import now_us
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.graph import find_edges, find_records
from disinherit.server.store.model_rows import (
    insert_edges,
    insert_records,
    put_statuses,
    replace_record,
)
from disinherit.server.store.tables import AUDIT, EDGES

_CLOCK_SLACK_US = 24 * 3600 * 1_000_000
"""How far in the future an owner may date a version, since clocks may be set back."""


def put_successors(
    db: Connection,
    request_id: str,
    successors: Mapping[str, ModelRecord],
    given: Mapping[str, int],
) -> dict[str, str]:
    """Add the successors of versions, and mark the versions as superseded.

    An owner may correct its report of a successor until the successor was read back as reported.

    Args:
        db: a transaction that writes.
        request_id: the request that made them.
        successors: version -> its successor.
        given: version -> the latest time at which its owner was asked, by a clock that may have
            been ahead.

    Returns:
        Version -> why its successor is refused: it is no version of the same model, is known as
        something else, has a wrong id, or the version has another successor. Nothing of these is
        stored.
    """
    surroundings = _Surroundings(db, request_id, successors, given)
    refused: dict[str, str] = {}
    new, edges, superseded = [], [], []
    for model_id, successor in successors.items():
        try:
            model = surroundings.check(model_id, successor)
        except InputError as error:
            refused[model_id] = str(error)
            continue
        edge = Inheritance(model_id, successor.id, InheritanceKind.UNLEARNED)
        present = surroundings.known.get(successor.id)
        if present is None:
            new.append(successor)
        elif not is_same_version(present, successor):
            replace_record(db, replace(successor, status=present.status))
        if not surroundings.parents[successor.id]:
            edges.append(edge)
        if model.status is ModelStatus.ACTIVE:
            superseded.append(model)
        surroundings.take(edge, successor)
    insert_records(db, new)
    insert_edges(db, edges)
    put_statuses(db, superseded, ModelStatus.SUPERSEDED)
    return refused


class _Surroundings:
    """The stored neighbours of some successors, and those about to be stored.

    Attributes:
        known: id -> record of the versions and their successors.
        parents: successor -> the edges that lead to it.
    """

    def __init__(
        self,
        db: Connection,
        request_id: str,
        successors: Mapping[str, ModelRecord],
        given: Mapping[str, int],
    ) -> None:
        self._db = db
        self._request_id = request_id
        self._given = given
        self._made = _grouped(
            (
                edge
                for edge in find_edges(db, EDGES.c.parent, successors)
                if edge.kind is InheritanceKind.UNLEARNED
            ),
            "parent",
        )
        ids = {*successors, *(successor.id for successor in successors.values())}
        ids |= {edge.child for edges in self._made.values() for edge in edges}
        self.known = find_records(db, ids)
        there = [one.id for one in successors.values() if one.id in self.known]
        self.parents = _grouped(find_edges(db, EDGES.c.child, there), "child")

    def check(self, model_id: str, successor: ModelRecord) -> ModelRecord:
        """Return the original of a successor, if the successor is acceptable.

        Raises:
            GraphError: if it is not.
        """
        model = self.known.get(model_id)
        if model is None:
            raise GraphError(f"Expected the id of a known model, but got {model_id!r}.")
        _check_alike(model, successor, self._given.get(model.id, 0))
        others = [
            other.child
            for other in self._made[model.id]
            if other.child != successor.id and not self._is_retired(other.child)
        ]
        if others:
            raise GraphError(
                f"Expected model {model.id!r} to have one successor, but {others[0]!r} is recorded "
                f"and its owner reports {successor.id!r}, which would know what that one has "
                "forgotten."
            )
        present = self.known.get(successor.id)
        if present is not None:
            # The owner may have registered it before its answer arrived: then without parents.
            parents = self.parents[successor.id]
            if parents and not _is_successor(model.id, successor.id, parents):
                raise GraphError(
                    f"Expected a new version as successor of {model.id!r}, but {successor.id!r} is "
                    f"known, derived from {', '.join(parent.parent for parent in parents)}."
                )
            if present.provenance is not None:
                raise GraphError(
                    f"Expected a new version as successor of {model.id!r}, but {successor.id!r} is "
                    "known, and was trained."
                )
            if not parents or self._was_verified(model.id):
                InheritanceGraph([present]).replace(successor)
        expected = successor_id(model.id, self._request_id)
        if successor.id != expected:
            raise GraphError(
                f"Expected the successor of model {model.id!r} to be {expected!r}, but got "
                f"{successor.id!r}, which is the name of another version."
            )
        return model

    def take(self, edge: Inheritance, successor: ModelRecord) -> None:
        """Add what is about to be stored, so that the next successors are checked against it."""
        self.known.setdefault(successor.id, successor)
        self.parents[successor.id] = [edge]

    def _was_verified(self, model_id: str) -> bool:
        """Return whether the request's successor of a model was ever read back as reported."""
        query = select(AUDIT.c.sequence).where(
            AUDIT.c.request_id == self._request_id,
            AUDIT.c.model_id == model_id,
            AUDIT.c.kind == AuditKind.VERIFIED.value,
        )
        return self._db.execute(query.limit(1)).first() is not None

    def _is_retired(self, model_id: str) -> bool:
        record = self.known.get(model_id)
        return record is not None and record.status is ModelStatus.RETIRED


def _is_successor(model_id: str, child: str, parents: Sequence[Inheritance]) -> bool:
    """Whether a version with these parents is what unlearning made of a model."""
    made = InheritanceKind.UNLEARNED
    return child != model_id and parents == [Inheritance(model_id, child, made)]


def _grouped(edges: Iterable[Inheritance], end: str) -> defaultdict[str, list[Inheritance]]:
    groups: defaultdict[str, list[Inheritance]] = defaultdict(list)
    for edge in edges:
        groups[getattr(edge, end)].append(edge)
    return groups


def _check_alike(model: ModelRecord, successor: ModelRecord, given_us: int) -> None:
    """Check that a record can be the successor of a version.

    Args:
        model: the version.
        successor: the reported successor.
        given_us: the latest time at which its owner was asked, by a clock that may have been ahead.

    Raises:
        GraphError: if it cannot be.
    """
    for name in ("owner", "architecture", "labels"):
        old, new = getattr(model, name), getattr(successor, name)
        if old != new:
            raise GraphError(
                f"Expected the successor of model {model.id!r} to have its {name} {old!r}, but got "
                f"{new!r}."
            )
    if successor.provenance is not None:
        raise GraphError(
            f"Expected the successor of model {model.id!r} not to be trained, but got one trained "
            f"on {successor.provenance.dataset!r}."
        )
    if not successor.digest:
        raise GraphError(f"Expected the digest of {successor.id!r}, but got none.")
    if successor.status is not ModelStatus.ACTIVE:
        raise GraphError(
            f"Expected an active version as successor of model {model.id!r}, but got "
            f"{successor.id!r}, which is {successor.status.value}."
        )
    latest = max(now_us(), model.created_us, given_us) + _CLOCK_SLACK_US
    if not model.created_us < successor.created_us <= latest:
        raise GraphError(
            f"Expected a successor of model {model.id!r} created after {model.created_us} us and "
            f"not in the future, but got {successor.created_us} us."
        )
