"""The SQLite file of an owner's index: its tables, their upgrades, and its errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinherit.common.errors import StoreError

SCHEMA_VERSION = 8
BUSY_SECONDS = 60.0

_DESTROYED = """CREATE TABLE destroyed (
    model_id TEXT PRIMARY KEY REFERENCES models, request_id TEXT NOT NULL, digest TEXT NOT NULL,
    held_by TEXT NOT NULL)"""
_STRUCTURES = """CREATE TABLE structures (
    model_id TEXT PRIMARY KEY REFERENCES models, structure TEXT NOT NULL)"""
_CURVATURES = """CREATE TABLE curvatures (
    model_id TEXT PRIMARY KEY REFERENCES models, digest TEXT NOT NULL)"""
# Content of a request, and data that a version forgot; empty in rows of older versions.
_CONTENT = (
    "ALTER TABLE ledger ADD COLUMN request_digest TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE ledger ADD COLUMN forgotten TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE rollbacks ADD COLUMN request_digest TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE destroyed ADD COLUMN request_digest TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX ledger_successor ON ledger (successor_id)",
    "CREATE INDEX ledger_request ON ledger (request_id)",
)
# New weights of roots, made before their request is applied, and where they come from.
_PREPARED = """CREATE TABLE prepared (
    request_id TEXT NOT NULL, model_id TEXT NOT NULL REFERENCES models, digest TEXT NOT NULL,
    origin BLOB NOT NULL, PRIMARY KEY (request_id, model_id))"""
_SET_VERSION = f"PRAGMA user_version = {SCHEMA_VERSION}"
_SCHEMA = (
    "CREATE TABLE store (owner TEXT NOT NULL)",
    """CREATE TABLE models (
        id TEXT PRIMARY KEY, architecture TEXT NOT NULL, labels TEXT NOT NULL,
        digest TEXT NOT NULL, created_us INTEGER NOT NULL, provenance TEXT,
        fisher_digest TEXT NOT NULL, fisher_scope TEXT NOT NULL, status TEXT NOT NULL)""",
    "CREATE INDEX models_digest ON models (digest)",
    "CREATE INDEX models_fisher_digest ON models (fisher_digest)",
    # One entry per version: the next request is applied to its successor.
    """CREATE TABLE ledger (
        request_id TEXT NOT NULL, model_id TEXT PRIMARY KEY REFERENCES models,
        digest_before TEXT NOT NULL, successor_id TEXT NOT NULL REFERENCES models,
        digest_after TEXT NOT NULL, result BLOB NOT NULL)""",
    """CREATE TABLE rollbacks (
        request_id TEXT NOT NULL, model_id TEXT NOT NULL REFERENCES models,
        digest TEXT NOT NULL, retired_id TEXT NOT NULL, PRIMARY KEY (request_id, model_id))""",
    """CREATE TABLE parts (
        digest TEXT PRIMARY KEY, base TEXT NOT NULL, pack TEXT NOT NULL, place INTEGER NOT NULL,
        cleared TEXT NOT NULL)""",
    _DESTROYED,
    _STRUCTURES,
    _CURVATURES,
    *_CONTENT,
    _PREPARED,
    _SET_VERSION,
)
_UPGRADES = {
    3: (_DESTROYED, _STRUCTURES, _CURVATURES, *_CONTENT, _PREPARED, _SET_VERSION),
    4: (_STRUCTURES, _CURVATURES, *_CONTENT, _PREPARED, _SET_VERSION),
    5: (_CURVATURES, *_CONTENT, _PREPARED, _SET_VERSION),
    6: (_CURVATURES, _PREPARED, _SET_VERSION),
    7: (_CURVATURES, _SET_VERSION),
}
"""Older version -> statements of the upgrade to the present one."""


@contextmanager
def index_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into a `StoreError` that names the index at `path`.

    Raises:
        StoreError: for any error of SQLite, or a value that it cannot store.
    """
    try:
        yield
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        raise StoreError(
            f"Expected to use the index {path}, but got: {error}. If it is damaged, restore it and "
            "the folder beside it from a backup; if it is locked or the disk is full, try again."
        ) from error


def open_index(path: Path, owner: str) -> sqlite3.Connection:
    """Open the index of an owner, with its tables at their present version.

    Args:
        path: the file; created, with its tables, if it does not exist.
        owner: owner of the models.

    Raises:
        StoreError: if the file is damaged, was written by a newer Disinherit or by another program,
            or belongs to another owner.
    """
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # EXTRA is FULL and also syncs the folder after a commit, so that a power loss does not undo
        # a change after its reply.
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("PRAGMA foreign_keys = ON")
        _prepare(db, path, owner)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit all changes of the block durably at its end, or none of them."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise


def _prepare(db: sqlite3.Connection, path: Path, owner: str) -> None:
    """Make or upgrade the tables, and check that they are sound and of this owner."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    tables = db.execute("SELECT name FROM sqlite_master").fetchall()
    if version == 0 and not tables:
        with transaction(db):
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute("INSERT INTO store VALUES (?)", (owner,))
        return
    if version in _UPGRADES:
        with transaction(db):
            for statement in _UPGRADES[version]:
                db.execute(statement)
    elif version != SCHEMA_VERSION:
        raise StoreError(
            f"Expected schema version {SCHEMA_VERSION} in {path}, but got {version}. It was "
            "written by a newer Disinherit, by a version before the first release, or by another "
            "program."
        )
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreError(
            f"Expected a sound index in {path}, but got: {verdict}. Restore it and the folder "
            "beside it from a backup."
        )
    owners = [found for (found,) in db.execute("SELECT owner FROM store")]
    if owners != [owner]:
        raise StoreError(
            f"Expected a store of {owner!r} in {path.parent}, but got that of {owners}. Use "
            "another folder."
        )
