"""The release ledger: the samples of each sum of Fisher information that left the owner.

Sums can be subtracted: two releases of many samples each may differ in one sample.  So counting the
samples of each packet bounds nothing.  All releases together separate *cells*: samples that were in
exactly the same releases.  Any result computed from released sums is a function of the cells' sums.
So no group of fewer than `k` samples can be separated as long as every cell has at least `k`, and
the ledger enforces that.

It names samples by an HMAC of their id under the owner's key, and classes by name.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from disinherit.client.store.index import BUSY_SECONDS, index_errors

LEDGER_FILE = "releases.db"
"""File name of the ledger in an owner's folder."""

_SCHEMA = """CREATE TABLE IF NOT EXISTS releases (
    training_set TEXT NOT NULL, labels TEXT NOT NULL, without TEXT NOT NULL, samples TEXT NOT NULL,
    sizes TEXT NOT NULL, PRIMARY KEY (training_set, labels, without, samples))"""

Sizes = Mapping[str, int]
"""Class name -> number of samples."""


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


class ReleaseLedger:
    """The releases of one owner, on disk.

    Every method raises `StoreError` if the file cannot be used.

    Args:
        folder: folder of the owner's `ModelStore`.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEDGER_FILE

    def add(
        self,
        training_set: str,
        release: Release,
        allows: Callable[[Sequence[Release]], None],
        is_former: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Record a release before it leaves, if earlier ones allow it; once for each set.

        Args:
            training_set: key of the training data.
            release: the set of samples.
            allows: called with the earlier releases; raises if this one must not be added.
            is_former: whether a key in the ledger is an earlier one of the same training data.
        """
        with index_errors(self._path), closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")  # no other release between the check and the record
            names = [name for (name,) in db.execute("SELECT DISTINCT training_set FROM releases")]
            same = [name for name in names if name == training_set or is_former(name)]
            known = [one for name in same for one in self._releases(db, name)]
            if release not in known:
                allows(known)
                db.execute(
                    "INSERT INTO releases VALUES (?, ?, ?, ?, ?)",
                    (
                        training_set,
                        *(
                            json.dumps(sorted(part))
                            for part in (release.labels, release.without, release.samples)
                        ),
                        json.dumps(dict(release.sizes)),
                    ),
                )
            db.execute("COMMIT")

    def _releases(self, db: sqlite3.Connection, training_set: str) -> list[Release]:
        rows = db.execute(
            "SELECT labels, without, samples, sizes FROM releases WHERE training_set = ?",
            (training_set,),
        )
        found = []
        for row in rows:
            labels, without, samples = (frozenset[str](json.loads(part)) for part in row[:3])
            sizes = tuple(sorted(json.loads(row[3]).items()))
            found.append(Release(labels, without, samples, sizes))
        return found

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")
            db.execute(_SCHEMA)
        except sqlite3.Error:
            db.close()
            raise
        return db


def smallest_cell(
    releases: Sequence[Release], classes_of: Callable[[frozenset[str]], Sizes | None]
) -> int | None:
    """Return the size of the smallest group of samples that the releases separate.

    Versions may have been trained on growing sets of the same data.  If one release has more
    samples of a class than another, the additional ones are a group of their own.

    Args:
        releases: all earlier releases of one training set, and the new one.
        classes_of: returns the number of samples per class among some HMACs; `None` if unknown.

    Returns:
        The size; `None` if it cannot be determined.

    Example:
        >>> everything = Release(frozenset("abc"), frozenset(), frozenset(), (("a", 9), ("b", 9),
        ...     ("c", 1)))
        >>> ab = Release(frozenset("ab"), frozenset(), frozenset(), (("a", 9), ("b", 9)))
        >>> smallest_cell([everything], dict), smallest_cell([everything, ab], dict)
        (19, 1)
    """
    whole = {index for index, release in enumerate(releases) if release.labels}
    cells: Counter[frozenset[int]] = Counter()
    named: Counter[str] = Counter()  # samples of a class that some release names
    left_out: Counter[tuple[int, str]] = Counter()  # by release and class
    for samples in _alike(releases):
        some = next(iter(samples))
        listed = {index for index, release in enumerate(releases) if some in release.samples}
        if not whole:
            cells[frozenset(listed)] += len(samples)
            continue
        # The ledger knows the sizes of a set released as such, even if its samples are gone.
        as_released = (dict(one.sizes) for one in releases if one.samples == samples)
        counts = next(as_released, None) or classes_of(samples)
        if counts is None:
            return None
        for label, count in counts.items():
            named[label] += count
            around = {index for index in whole if label in releases[index].labels}
            without = {index for index in around if some in releases[index].without}
            left_out.update({(index, label): count for index in without})
            cells[frozenset(listed | around - without)] += count
    for label in frozenset[str]().union(*(release.labels for release in releases)):
        around = {index for index in whole if label in releases[index].labels}
        sizes = {i: dict(releases[i].sizes).get(label, 0) + left_out[i, label] for i in around}
        below = named[label]
        for size in sorted(set(sizes.values())):
            larger = frozenset(i for i in around if sizes[i] >= size)
            cells[larger] += max(0, size - below)
            below = max(below, size)
    counted = [count for inside, count in cells.items() if inside and count > 0]
    return min(counted, default=0)


def _alike(releases: Sequence[Release]) -> Iterator[frozenset[str]]:
    """Yield the named samples in groups that no release separates by name."""
    groups: dict[frozenset[int], set[str]] = {}
    parts = [part for release in releases for part in (release.samples, release.without)]
    for sample in frozenset[str]().union(*parts):
        inside = frozenset(index for index, part in enumerate(parts) if sample in part)
        groups.setdefault(inside, set()).add(sample)
    yield from map(frozenset, groups.values())
