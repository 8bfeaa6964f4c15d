"""The SQLite index of a `ModelStore`: model records and the ledger of unlearning.

The index has rows only; the store manages files and locks.  Methods raise `sqlite3.Error`, and
`index_errors` turns it into a `StoreError`.
"""

import json
from contextlib import AbstractContextManager
from dataclasses import astuple, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from disinherit.client.store.index_file import open_index, transaction
from disinherit.client.store.ledger import Destruction, Forgotten, LedgerEntry, RollBack
from disinherit.client.store.objects import Delta
from disinherit.client.store.structure import Structure
from disinherit.common.errors import StoreError
from disinherit.common.graph.records import ModelRecord, ModelStatus, Provenance

_PARSED = 16  # records; one pass over a version reads its own, and that of its successor
_PRESENT = "id NOT IN (SELECT model_id FROM destroyed)"
_MODELS = (
    "SELECT id, architecture, labels, digest, created_us, provenance, fisher_digest, status "
    "FROM models"
)
_LEDGER = (
    "SELECT request_id, model_id, digest_before, successor_id, digest_after, result, "
    "request_digest, forgotten FROM ledger"
)


class Index:
    """Rows of one owner's index.

    Args:
        path: the database file; created, with its tables, if it does not exist.
        owner: owner of the models.

    Raises:
        StoreError: if the file is damaged, was written by a newer Disinherit or by another program,
            or belongs to another owner.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self._path = path
        self._owner = owner
        self._db = open_index(path, owner)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Commit all changes of the block durably at its end, or none of them."""
        return transaction(self._db)

    def find(self, model_id: str) -> ModelRecord | None:
        """Return the record of a version, or `None`."""
        row = self._db.execute(f"{_MODELS} WHERE id = ?", (model_id,)).fetchone()
        return None if row is None else self._record(row)

    def records(self) -> tuple[ModelRecord, ...]:
        """Return all records, oldest first."""
        rows = self._db.execute(f"{_MODELS} ORDER BY created_us, id").fetchall()
        return tuple(self._record(row) for row in rows)

    def insert(self, record: ModelRecord) -> None:
        """Add a version without a Fisher summary."""
        provenance = record.provenance
        self._db.execute(
            "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, '', '', ?)",
            (
                record.id,
                record.architecture,
                json.dumps(record.labels),
                record.digest,
                record.created_us,
                provenance
                and json.dumps(
                    [
                        provenance.dataset,
                        dict(provenance.samples_per_class),
                        provenance.sample_set_digest,
                    ]
                ),
                record.status.value,
            ),
        )

    def set_status(self, model_id: str, status: ModelStatus) -> None:
        """Set the status of a version."""
        self._db.execute("UPDATE models SET status = ? WHERE id = ?", (status.value, model_id))

    def set_fisher(self, model_id: str, digest: str, scope: str) -> None:
        """Set digest and scope of the Fisher summary of a version."""
        self._db.execute(
            "UPDATE models SET fisher_digest = ?, fisher_scope = ? WHERE id = ?",
            (digest, scope, model_id),
        )

    def fisher_scope(self, model_id: str) -> str:
        """Return the scope of a version's Fisher summary, or `""`."""
        row = self._db.execute("SELECT fisher_scope FROM models WHERE id = ?", (model_id,))
        return str(row.fetchone()[0])

    def curvature(self, model_id: str) -> str:
        """Return the digest of a version's curvature, or `""`."""
        query = "SELECT digest FROM curvatures WHERE model_id = ?"
        row = self._db.execute(query, (model_id,)).fetchone()
        return "" if row is None else str(row[0])

    def set_curvature(self, model_id: str, digest: str) -> None:
        """Set the digest of a version's curvature."""
        self._db.execute("INSERT OR REPLACE INTO curvatures VALUES (?, ?)", (model_id, digest))

    def structure(self, model_id: str) -> Structure | None:
        """Return the known structure of a version, or `None`."""
        query = "SELECT structure FROM structures WHERE model_id = ?"
        row = self._db.execute(query, (model_id,)).fetchone()
        return None if row is None else Structure.from_json(row[0])

    def set_structure(self, model_id: str, structure: Structure) -> None:
        """Record the structure of a version."""
        self._db.execute(
            "INSERT OR REPLACE INTO structures VALUES (?, ?)", (model_id, structure.to_json())
        )

    def inherit_structure(self, successor_id: str, model_id: str) -> None:
        """Copy the structure of a version, if known, to its successor."""
        self._db.execute(
            "INSERT OR REPLACE INTO structures "
            "SELECT ?, structure FROM structures WHERE model_id = ?",
            (successor_id, model_id),
        )

    def entry(self, model_id: str) -> LedgerEntry | None:
        """Return the ledger entry of a version, or `None` without unlearning."""
        return self._entry(f"{_LEDGER} WHERE model_id = ?", model_id)

    def maker(self, successor_id: str) -> LedgerEntry | None:
        """Return the ledger entry that made a version, or `None` for an origin."""
        return self._entry(f"{_LEDGER} WHERE successor_id = ? ORDER BY model_id", successor_id)

    def answer(self, request_id: str, digest: str) -> LedgerEntry | None:
        """Return the ledger entry of a request for a version with these weights, or `None`."""
        return self._entry(
            f"{_LEDGER} WHERE request_id = ? AND digest_before = ?", request_id, digest
        )

    def append(self, entry: LedgerEntry) -> None:
        """Add a ledger entry."""
        self._db.execute(
            "INSERT INTO ledger (request_id, model_id, digest_before, successor_id, digest_after, "
            "result, request_digest, forgotten) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.request_id,
                entry.model_id,
                entry.digest_before,
                entry.successor_id,
                entry.digest_after,
                entry.result,
                entry.request_digest,
                "" if entry.forgotten is None else entry.forgotten.to_text(),
            ),
        )

    def contents(self, request_id: str) -> list[str]:
        """Return the known digests of the content of a request id."""
        rows = self._db.execute(
            "SELECT request_digest FROM ledger WHERE request_id = :id AND request_digest != '' "
            "UNION SELECT request_digest FROM rollbacks WHERE request_id = :id "
            "AND request_digest != '' UNION SELECT request_digest FROM destroyed "
            "WHERE request_id = :id AND request_digest != ''",
            {"id": request_id},
        )
        return sorted(digest for (digest,) in rows)

    def remove(self, model_id: str) -> None:
        """Remove the ledger entry of a version."""
        self._db.execute("DELETE FROM ledger WHERE model_id = ?", (model_id,))

    def roll_back(self, request_id: str, model_id: str) -> RollBack | None:
        """Return the roll-back of a request in a version, or `None`."""
        row = self._db.execute(
            "SELECT request_id, model_id, digest, retired_id, request_digest FROM rollbacks "
            "WHERE request_id = ? AND model_id = ?",
            (request_id, model_id),
        ).fetchone()
        return None if row is None else RollBack(*row)

    def append_roll_back(self, roll_back: RollBack) -> None:
        """Record the roll-back of a request in a version."""
        self._db.execute(
            "INSERT INTO rollbacks (request_id, model_id, digest, retired_id, request_digest) "
            "VALUES (?, ?, ?, ?, ?)",
            astuple(roll_back),
        )

    def prepare(self, request_id: str, model_id: str, digest: str, origin: bytes) -> None:
        """Record weights that were made for a request, instead of earlier ones for it."""
        self._db.execute(
            "INSERT OR REPLACE INTO prepared VALUES (?, ?, ?, ?)",
            (request_id, model_id, digest, origin),
        )

    def prepared(self, request_id: str, model_id: str) -> tuple[str, bytes] | None:
        """Return digest and origin of the weights that were made for a request, or `None`."""
        row = self._db.execute(
            "SELECT digest, origin FROM prepared WHERE request_id = ? AND model_id = ?",
            (request_id, model_id),
        ).fetchone()
        return None if row is None else (str(row[0]), bytes(row[1]))

    def drop_prepared(self, model_id: str, but: str = "") -> None:
        """Drop all weights that were made for requests to a version, but for one request."""
        query = "DELETE FROM prepared WHERE model_id = ? AND request_id != ?"
        self._db.execute(query, (model_id, but))

    def destruction(self, model_id: str) -> Destruction | None:
        """Return the tombstone of a version, or `None` if its weights are stored."""
        row = self._db.execute(
            "SELECT request_id, model_id, digest, held_by, request_digest FROM destroyed "
            "WHERE model_id = ?",
            (model_id,),
        ).fetchone()
        return None if row is None else Destruction(*row)

    def append_destruction(self, made: Destruction) -> None:
        """Record the destruction of a version."""
        self._db.execute(
            "INSERT INTO destroyed (request_id, model_id, digest, held_by, request_digest) "
            "VALUES (?, ?, ?, ?, ?)",
            astuple(made),
        )

    def other_holder(self, digest: str, model_id: str) -> str:
        """Return the id of another version with these weights that is not destroyed, or `""`."""
        row = self._db.execute(
            f"SELECT id FROM models WHERE digest = ? AND id != ? AND {_PRESENT} ORDER BY id",
            (digest, model_id),
        ).fetchone()
        return "" if row is None else str(row[0])

    def holders(self, digest: str) -> list[str]:
        """Return the ids of the versions with these weights.

        Retired versions, and successors with the weights of their origin, are left out.
        """
        rows = self._db.execute(
            "SELECT id FROM models WHERE digest = ? AND status != 'retired' AND id NOT IN "
            "(SELECT successor_id FROM ledger WHERE digest_before = digest_after) ORDER BY id",
            (digest,),
        )
        return [model_id for (model_id,) in rows]

    def objects(self) -> set[str]:
        """Return the digests of all full objects that versions refer to."""
        rows = self._db.execute(
            f"SELECT digest FROM (SELECT digest FROM models WHERE {_PRESENT} "
            f"UNION SELECT fisher_digest FROM models WHERE {_PRESENT}) "
            "WHERE digest NOT IN (SELECT digest FROM parts) "
            "UNION SELECT digest FROM curvatures "
            "WHERE model_id NOT IN (SELECT model_id FROM destroyed) "
            "UNION SELECT base FROM parts UNION SELECT pack FROM parts WHERE pack != '' "
            "UNION SELECT digest FROM prepared WHERE digest NOT IN (SELECT digest FROM parts)"
        ).fetchall()
        return {digest for (digest,) in rows}

    def holds(self, digest: str) -> bool:
        """Whether a version with weights refers to an object with this digest."""
        query = (
            f"SELECT 1 FROM models WHERE (digest = ? OR fisher_digest = ?) AND {_PRESENT} LIMIT 1"
        )
        return self._db.execute(query, (digest, digest)).fetchone() is not None

    def part(self, digest: str) -> Delta | None:
        """Return the delta of an object, or `None` for a full object."""
        row = self._db.execute(
            "SELECT base, pack, place, cleared FROM parts WHERE digest = ?", (digest,)
        ).fetchone()
        if row is None:
            return None
        base, pack, place, cleared = row
        return Delta(digest, base, pack, place, tuple(json.loads(cleared)))

    def parts(self) -> list[Delta]:
        """Return the deltas of all objects without a full file."""
        rows = self._db.execute("SELECT digest, base, pack, place, cleared FROM parts").fetchall()
        return [
            Delta(digest, base, pack, place, tuple(json.loads(cleared)))
            for digest, base, pack, place, cleared in rows
        ]

    def add_part(self, part: Delta) -> None:
        """Record the delta of an object."""
        values = (part.digest, part.base, part.pack, part.place, json.dumps(part.cleared))
        self._db.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?)", values)

    def written_out(self, digest: str) -> None:
        """Record that an object has a full file."""
        self._db.execute("DELETE FROM parts WHERE digest = ?", (digest,))

    def _entry(self, query: str, *values: str) -> LedgerEntry | None:
        row = self._db.execute(query, values).fetchone()
        if row is None:
            return None
        try:
            return replace(LedgerEntry(*row[:-1]), forgotten=Forgotten.from_text(row[-1]))
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"Expected a sound ledger in {self._path}, but got: {error}. Restore the index and "
                "the folder beside it from a backup."
            ) from error

    def _record(self, row: tuple[Any, ...]) -> ModelRecord:
        try:
            return _parsed(self._owner, row)
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"Expected a sound record of model {row[0]!r} in {self._path}, but got: {error}. "
                "Restore the index and the folder beside it from a backup."
            ) from error


@lru_cache(maxsize=_PARSED)
def _parsed(owner: str, row: tuple[Any, ...]) -> ModelRecord:
    """Return the record in a row; one is read several times while its version is worked on."""
    model_id, architecture, labels, digest, created_us, provenance, fisher_digest, status = row
    return ModelRecord(
        id=model_id,
        owner=owner,
        architecture=architecture,
        labels=tuple(json.loads(labels)),
        digest=digest,
        created_us=created_us,
        provenance=None if provenance is None else Provenance(*json.loads(provenance)),
        fisher_digest=fisher_digest,
        status=ModelStatus(status),
    )
