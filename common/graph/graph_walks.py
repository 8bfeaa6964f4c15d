"""Walks along inheritance: what can be reached.

Pure functions over ids: the caller says which edges count.
"""

from collections.abc import Callable, Iterable

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
