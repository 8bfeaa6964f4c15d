"""The release ledger: the samples of each sum of Fisher information that left the owner.

Sums can be subtracted, so that a release is allowed or not together with all earlier ones
(`disinherit.client.privacy.released_cells`).

All releases of an owner count together.  Data that grew by one sample is other data, under whatever
name, and the difference of the totals of both is that sample.  So the ledger keeps which samples
each training set had when something of it was released.

It names samples by an HMAC of their id under the owner's key, and classes by name.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from disinherit.client.privacy.sample_keys import KEY_FILE
from disinherit.client.store.index_file import BUSY_SECONDS, index_errors
from disinherit.common.errors import StoreError

LEDGER_FILE = "releases.db"
"""File name of the ledger in an owner's folder."""

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS releases (
    training_set TEXT NOT NULL, labels TEXT NOT NULL, without TEXT NOT NULL, samples TEXT NOT NULL,
    sizes TEXT NOT NULL, PRIMARY KEY (training_set, labels, without, samples))""",
    """CREATE TABLE IF NOT EXISTS training_sets (
    name TEXT PRIMARY KEY, samples BLOB NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS versions (
    version TEXT NOT NULL, training_set TEXT NOT NULL, PRIMARY KEY (version, training_set))""",
    "CREATE TABLE IF NOT EXISTS keys (key_digest TEXT PRIMARY KEY)",
)
_BYTES = 16
"""Size of a sample's HMAC in the ledger."""


@dataclass(frozen=True, slots=True)
class Release:
    """The set of samples in a released sum.

    Attributes:
        labels: classes with all their samples, except `without`; empty for a set of `samples`.
        without: HMACs of samples of these classes that are not in the set: forgotten earlier.
        samples: HMACs of the samples; empty for whole classes.
        sizes: number of samples of each class in the set.
    """

    labels: frozenset[str]
    without: frozenset[str]
    samples: frozenset[str]
    sizes: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """A text that is equal for equal sets, however they were requested."""
        return json.dumps([sorted(self.labels), sorted(self.without), sorted(self.samples)])


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The samples that a version was trained on.

    Attributes:
        name: equal for equal data.
        version: a version that was trained on it.
        samples: HMACs of all its samples; `None` if unknown.
    """

    name: str
    version: str
    samples: frozenset[str] | None = None

    @classmethod
    def of(cls, samples: frozenset[str], version: str) -> "TrainingSet":
        """Return the training set of known samples; its name follows from them.

        Args:
            samples: HMACs of all its samples.
            version: a version that was trained on it.
        """
        return cls(f"samples {hashlib.sha256(_packed(samples)).hexdigest()}", version, samples)


@dataclass(frozen=True, slots=True)
class Released:
    """A set of samples that was released, or is to be, with the training set it is part of.

    Attributes:
        data: the training set.
        release: the set.
    """

    data: TrainingSet
    release: Release


class ReleaseLedger:
    """The releases of one owner, on disk.

    Every method raises `StoreError` if the file cannot be used.

    Args:
        folder: folder of the owner's `ModelStore`.
        key_digest: of the key of the HMACs; empty if there are none.
    """

    def __init__(self, folder: Path, key_digest: str = "") -> None:
        self._path = folder / LEDGER_FILE
        self._key_digest = key_digest

    def add(
        self,
        new: Released,
        allows: Callable[[Sequence[Released], Released], None],
        is_former: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Record a release before it leaves, if earlier ones allow it; once for each set.

        Args:
            new: the release.
            allows: called with all earlier releases, and this one; raises if it must not be added.
            is_former: whether a name is what the ledger once called this training set.
        """
        with index_errors(self._path), closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")  # no other release between the check and the record
            self._check_key(db)
            if new.data.samples is None:
                new = replace(new, data=_known_data(db, new.data))
            data, release = new.data, new.release
            known = [
                replace(one, data=data)
                if one.data.samples is None and is_former(one.data.name)
                else one
                for one in _read(db)
            ]
            same = [one.release for one in known if one.data.name == data.name]
            if release not in same:
                allows(known, new)
                parts = (release.labels, release.without, release.samples)
                db.execute(
                    "INSERT INTO releases VALUES (?, ?, ?, ?, ?)",
                    (
                        data.name,
                        *(json.dumps(sorted(part)) for part in parts),
                        json.dumps(dict(release.sizes)),
                    ),
                )
            if data.samples is not None:
                db.execute(
                    "INSERT OR IGNORE INTO training_sets VALUES (?, ?)",
                    (data.name, _packed(data.samples)),
                )
                db.execute(
                    "INSERT OR IGNORE INTO versions VALUES (?, ?)", (new.data.version, data.name)
                )
            db.execute("COMMIT")

    def _check_key(self, db: sqlite3.Connection) -> None:
        """Refuse names of another key: equal samples would seem to be different ones."""
        if not self._key_digest:
            return
        db.execute("INSERT OR IGNORE INTO keys VALUES (?)", (self._key_digest,))
        if db.execute("SELECT COUNT(*) FROM keys").fetchone()[0] > 1:
            raise StoreError(
                f"Expected the key of the samples in {self._path}, but {KEY_FILE} beside it is "
                "another. Put the former key back from a backup of the folder."
            )

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")
            for table in _SCHEMA:
                db.execute(table)
        except sqlite3.Error:
            db.close()
            raise
        return db


def _known_data(db: sqlite3.Connection, data: TrainingSet) -> TrainingSet:
    """Return the training set of a version as its first release had it."""
    found = db.execute(
        "SELECT name, samples FROM training_sets JOIN versions ON name = training_set"
        " WHERE version = ? ORDER BY versions.rowid",
        (data.version,),
    ).fetchone()
    return data if found is None else TrainingSet(found[0], data.version, _unpacked(found[1]))


def _read(db: sqlite3.Connection) -> Iterator[Released]:
    versions = dict(db.execute("SELECT training_set, version FROM versions ORDER BY rowid"))
    sets = {
        name: TrainingSet(name, versions.get(name, ""), _unpacked(packed))
        for name, packed in db.execute("SELECT name, samples FROM training_sets")
    }
    query = "SELECT training_set, labels, without, samples, sizes FROM releases"
    for name, *texts, counted in db.execute(query):
        labels, without, samples = (frozenset[str](json.loads(text)) for text in texts)
        sizes = tuple(sorted(json.loads(counted).items()))
        data = sets.setdefault(name, TrainingSet(name, ""))
        yield Released(data, Release(labels, without, samples, sizes))


def _packed(samples: frozenset[str]) -> bytes:
    return b"".join(map(bytes.fromhex, sorted(samples)))


def _unpacked(packed: bytes) -> frozenset[str]:
    text = packed.hex()
    return frozenset(text[at : at + 2 * _BYTES] for at in range(0, len(text), 2 * _BYTES))
