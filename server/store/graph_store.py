"""The inheritance graph of a store: versions and their edges."""

from collections.abc import Iterable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from disinherit.common.errors import InputError, StoreError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, ModelRecord
from disinherit.server.store.audit_events import COORDINATOR
from disinherit.server.store.batches import register_versions
from disinherit.server.store.database import Database
from disinherit.server.store.graph import (
    find_by_weights,
    find_graph,
    find_ids,
    find_records,
)
from disinherit.server.store.importing import put_imported
from disinherit.server.store.lineage import put_version, register_version
from disinherit.server.store.registering import Announced, put_announced
from disinherit.server.store.shared_transaction import savepoint

_MOST_TOGETHER = 5000
"""Versions added in one transaction, which takes some seconds."""


class GraphStore:
    """The inheritance graph in one database.

    Every method raises `StoreError` if the database fails or holds something damaged.

    Args:
        database: the database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_model(
        self,
        record: ModelRecord,
        parents: Iterable[Inheritance] = (),
        *,
        actor: str = COORDINATOR,
    ) -> None:
        """Add a version and its edges, or complete the record of a known version.

        Adding it again changes nothing.  A known version without parents gets `parents`; one that
        has parents keeps them.

        Args:
            record: the version.
            parents: the edges that lead to it.
            actor: who registers it, for the audit log.

        Raises:
            GraphError: if the graph refuses it; nothing is stored then.
            LabelError: if a label mapping does not fit; nothing is stored then.
        """
        with self._database.writing(together=True) as db:
            put_version(db, record, list(parents), actor)

    def add_models(self, records: Sequence[ModelRecord], *, actor: str) -> list[Exception]:
        """Add versions, or complete their records, in one transaction; each as `add_model` does.

        Large numbers take several transactions, so that other writers need not wait for all.

        Args:
            records: the versions, in the order in which to add them.
            actor: who registers them, for the audit log.

        Returns:
            One error for each refused version; the others are stored.
        """
        refused: list[Exception] = []
        for start in range(0, len(records), _MOST_TOGETHER):
            with self._database.writing() as db:
                for record in records[start : start + _MOST_TOGETHER]:
                    try:
                        with savepoint(db):
                            put_version(db, record, [], actor)
                    except (SQLAlchemyError, StoreError):
                        raise
                    except Exception as error:  # one failure must not stop the others
                        refused.append(error)
        return refused

    def add_imported(
        self, graph: InheritanceGraph, ids: Iterable[str], *, actor: str
    ) -> list[Exception]:
        """Add imported versions with their edges, or correct what an import recorded of them.

        Args:
            graph: has the versions and the edges that lead to them.
            ids: the versions, parents first.
            actor: who imports them, for the audit log.

        Returns:
            One error for each refused version; the others are stored.
        """
        refused: list[Exception] = []
        listed = list(ids)
        for start in range(0, len(listed), _MOST_TOGETHER):
            with self._database.writing() as db:
                for id in listed[start : start + _MOST_TOGETHER]:
                    try:
                        with savepoint(db):
                            put_imported(db, graph.model(id), graph.parents(id), actor)
                    except InputError as error:
                        refused.append(error)
        return refused

    def register(
        self, record: ModelRecord, parents: Iterable[Inheritance], *, actor: str
    ) -> tuple[ModelRecord, bool]:
        """Add a version as of now, or complete the record of a known one, which keeps its status.

        Args:
            record: the version, with any time and status.
            parents: the edges that lead to it; empty to keep those of a known version.
            actor: who registers it, for the audit log.

        Returns:
            The stored record, and whether the version is new.

        Raises:
            InputError: if another owner has a version with this id; nothing is stored then.
            GraphError: if the graph refuses it; nothing is stored then.
            LabelError: if a label mapping does not fit; nothing is stored then.
        """
        with self._database.writing(together=True) as db:
            return register_version(db, record, list(parents), actor)

    def register_all(
        self, versions: Sequence[tuple[ModelRecord, Sequence[Inheritance]]], *, actor: str
    ) -> list[tuple[ModelRecord, bool] | InputError]:
        """Register versions in one transaction (`register_versions`)."""
        with self._database.writing() as db:
            return register_versions(db, versions, actor)

    def announce(self, versions: Iterable[Announced]) -> None:
        """Store announced versions, which owners are about to make from a known start.

        An announced version gets its start as parent whenever its owner registers it.  The owner
        may register once the weights that it keeps, even if it sent fewer.
        """
        with self._database.writing() as db:
            put_announced(db, versions)

    def ids_from(self, prefix: str) -> list[str]:
        """Return the ids of all versions that begin with a text, sorted."""
        with self._database.reading() as db:
            return find_ids(db, prefix)

    def with_weights(self, digest: str) -> list[ModelRecord]:
        """Return the latest versions with these weights (`find_by_weights`)."""
        with self._database.reading() as db:
            return find_by_weights(db, digest)

    def graph(self) -> InheritanceGraph:
        """Return the whole inheritance graph, of any size."""
        with self._database.reading() as db:
            return find_graph(db)

    def records(self, ids: Iterable[str]) -> dict[str, ModelRecord]:
        """Return id -> record of the versions that exist."""
        with self._database.reading() as db:
            return find_records(db, ids)
