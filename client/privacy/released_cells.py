"""Cells: the smallest groups of samples that released sums of Fisher information separate.

Sums can be subtracted: two releases of many samples each may differ in one sample.  So counting the
samples of each packet bounds nothing.  All releases together separate *cells*: samples that were in
exactly the same releases.  Any result computed from released sums is a function of the cells' sums.
So no group of fewer than `k` samples can be separated as long as every cell has at least `k`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from disinherit.client.privacy.release_ledger import Release, Released

Sizes = Mapping[str, int]
"""Class name -> number of samples."""


def smallest_cell_of_all(
    known: Sequence[Released],
    new: Released,
    classes_of: Callable[[frozenset[str]], Sizes | None],
) -> int | None:
    """Return the size of the smallest group that releases of several training sets separate.

    Each release of whole classes is taken as one of all samples of all these sets, without those
    that its own set does not have.

    Args:
        known: all earlier releases.
        new: the new one.
        classes_of: returns the number of samples per class among some HMACs; `None` if unknown.

    Returns:
        The size; `None` if it cannot be determined, because the samples that two of the sets share
        are unknown.
    """
    linked = _linked(known, new)
    if any(one.release.labels and one.data.samples is None for one in linked):
        if len({one.data.name for one in linked}) > 1:
            return None
        return smallest_cell([one.release for one in linked], classes_of)
    members = {part for one in linked for part in (_samples(one), one.release.without) if part}
    everything = frozenset[str]().union(*members)
    without: dict[tuple[str, frozenset[str]], frozenset[str]] = {}
    releases = []
    for one in linked:
        release = one.release
        if release.labels and one.data.samples is not None:
            key = one.data.name, release.without
            if key not in without:
                without[key] = (everything - one.data.samples) | release.without
            release = replace(release, without=without[key])
        releases.append(release)
    return smallest_cell(releases, classes_of)


def _linked(known: Sequence[Released], new: Released) -> list[Released]:
    """Return the new release, and all earlier ones of training sets that may share its samples.

    Directly, or with another such set between.
    """
    by_name: dict[str, list[Released]] = {}
    for one in [*known, new]:
        by_name.setdefault(one.data.name, []).append(one)
    linked, rest = [by_name.pop(new.data.name)], list(by_name.values())
    for group in linked:  # grows while it is walked
        far: list[list[Released]] = []
        for other in rest:
            (linked if _may_share(group, other) else far).append(other)
        rest = far
    return [one for group in linked for one in group]


def _may_share(group: Sequence[Released], others: Sequence[Released]) -> bool:
    """Whether releases of two training sets may have a sample in common."""
    names, other_names = (
        {label for one in each for label, _ in one.release.sizes} for each in (group, others)
    )
    if names.isdisjoint(other_names):
        return False
    members, other_members = (set(map(_samples, each)) for each in (group, others))
    return any(
        one is None or other is None or not one.isdisjoint(other)
        for one in members
        for other in other_members
    )


def _samples(one: Released) -> frozenset[str] | None:
    """Return HMACs that a release is among; `None` if unknown."""
    return one.release.samples if not one.release.labels else one.data.samples


def smallest_cell(
    releases: Sequence[Release], classes_of: Callable[[frozenset[str]], Sizes | None]
) -> int | None:
    """Return the size of the smallest group of samples that the releases separate.

    Sets of a class are taken to contain one another, except for samples that are named.  If one
    release has more samples of a class than another, the additional ones are a group of their own.

    Args:
        releases: all earlier releases, and the new one.
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
    parts = {part for release in releases for part in (release.samples, release.without) if part}
    for sample in frozenset[str]().union(*parts):
        inside = frozenset(index for index, part in enumerate(parts) if sample in part)
        groups.setdefault(inside, set()).add(sample)
    yield from map(frozenset, groups.values())
