"""Ledger of released Fisher information: which samples each packet that left the owner is a sum of.

Sums can be subtracted.  Each of two releases may be of many samples and their difference of one, so
a count of the samples behind one packet bounds nothing.  What all releases together can tell apart
are *cells*: samples that were in exactly the same releases.  Whatever is computed from released
sums is a function of the cells' sums.  So no group of fewer than `k` samples can be told apart as
long as every cell has at least `k`, and that is what the ledger keeps.

Samples stand in it by an HMAC of their id under the owner's key, and classes by name.
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
"""Name of the file in an owner's folder that has the ledger."""

_SCHEMA = """CREATE TABLE IF NOT EXISTS releases (
    training_set TEXT NOT NULL, labels TEXT NOT NULL, without TEXT NOT NULL, samples TEXT NOT NULL,
    sizes TEXT NOT NULL, PRIMARY KEY (training_set, labels, without, samples))"""

Sizes = Mapping[str, int]
"""Class name -> number of samples."""


@dataclass(frozen=True, slots=True)
class Release:
    """A set of samples that a released sum is of.

    Attributes:
        labels: classes of which it is all samples, but for `without`; none if it is of `samples`.
        without: HMACs of samples of these classes that it is not of: they were forgotten before.
        samples: HMACs of the samples; none if it is of whole classes.
        sizes: how many samples of each class it is of.
    """

    labels: frozenset[str]
    without: frozenset[str]
    samples: frozenset[str]
    sizes: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """A text that is the same for the same set, however it was asked for."""
        return json.dumps([sorted(self.labels), sorted(self.without), sorted(self.samples)])


class ReleaseLedger:
    """Releases of one owner, on disk.

    Every method raises `StoreError` if the file cannot be used.

    Args:
        folder: of the owner's `ModelStore`.
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
        """Record a release before it leaves, if what left before allows it; once for each set.

        Args:
            training_set: what tells the training data apart that it is from.
            release: the set.
            allows: called with the releases so far; raises if this one must not join them.
            is_former: whether a name in the ledger is an earlier one of the same training data.
        """
        with index_errors(self._path), closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")  # nobody else releases between the look and the record
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
    """Return the number of samples in the smallest group that releases can tell apart.

    Versions may have been trained on more and more of the same data: where one release is of more
    samples of a class than another, those that it has more are a group by themselves.

    Args:
        releases: all that left the owner, or is about to, of one training set.
        classes_of: the number of samples of each class among some, by their HMACs; `None` if it is
            not known any more.

    Returns:
        The number; `None` if it cannot be known.

    Example:
        >>> everything = Release(frozenset("abc"), frozenset(), frozenset(), (("a", 9), ("b", 9),
        ...     ("c", 1)))
        >>> ab = Release(frozenset("ab"), frozenset(), frozenset(), (("a", 9), ("b", 9)))
        >>> smallest_cell([everything], dict), smallest_cell([everything, ab], dict)
        (19, 1)
    """
    whole = {index for index, release in enumerate(releases) if release.labels}
    cells: Counter[frozenset[int]] = Counter()
    named: Counter[str] = Counter()  # samples of a class that are named somewhere
    left_out: Counter[tuple[int, str]] = Counter()  # of a release and a class
    for samples in _alike(releases):
        some = next(iter(samples))
        listed = {index for index, release in enumerate(releases) if some in release.samples}
        if not whole:
            cells[frozenset(listed)] += len(samples)
            continue
        # Of a set that was released as it is, the ledger knows; also when the samples have left.
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
    """Yield the samples that releases name, in groups that no release tells apart by name."""
    groups: dict[frozenset[int], set[str]] = {}
    parts = [part for release in releases for part in (release.samples, release.without)]
    for sample in frozenset[str]().union(*parts):
        inside = frozenset(index for index, part in enumerate(parts) if sample in part)
        groups.setdefault(inside, set()).add(sample)
    yield from map(frozenset, groups.values())
