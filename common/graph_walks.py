"""Walks along inheritance: what can be reached, and what each version can be reached from.

Pure functions over ids: the caller says which edges count.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import compress

Step = Callable[[str], Iterable[str]]
"""The ids one edge away from an id."""


def reach(starts: Iterable[str], step: Step) -> set[str]:
    """Return `starts` and all that repeated steps lead to.

    Args:
        starts: ids to start from.
        step: the ids one edge away from an id.

    Returns:
        The ids reached; every one was asked for its step once.

    Example:
        >>> sorted(reach("a", {"a": "bc", "b": "c", "c": "", "d": "a"}.__getitem__))
        ['a', 'b', 'c']
    """
    pending = list(starts)
    seen = set(pending)
    while pending:
        for id in step(pending.pop()):
            if id not in seen:
                seen.add(id)
                pending.append(id)
    return seen


def group_by_sources(
    ids: Iterable[str], sources: Sequence[str], step: Step
) -> dict[frozenset[str], tuple[str, ...]]:
    """Group `ids` by the sources among themselves and their ancestors, in one sweep.

    Args:
        ids: parents before children.
        sources: the distinct ids to look for.
        step: the parents of an id; those not in `ids` do not count.

    Returns:
        Sources -> ids, in the order of `ids`, groups by their first member.

    Example:
        >>> group_by_sources("rsm", "rs", {"r": "", "s": "", "m": "sr"}.__getitem__)[
        ...     frozenset("rs")
        ... ]
        ('m',)
    """
    bits = {source: 1 << position for position, source in enumerate(sources)}
    masks: dict[str, int] = {}  # id -> its sources as bits: unions of ints are cheap
    members: dict[int, list[str]] = {}
    shared: dict[int, int] = {}  # equal masks are one object, or many sources fill the memory
    for id in ids:
        mask = bits.get(id, 0)
        for parent in step(id):
            mask |= masks.get(parent, 0)
        masks[id] = shared.setdefault(mask, mask)
        members.setdefault(mask, []).append(id)
    return {
        frozenset(compress(sources, map(int, reversed(f"{mask:b}")))): tuple(group)
        for mask, group in members.items()
    }
