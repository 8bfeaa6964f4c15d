"""Entry points of the installed packages, through which others add methods and computations.

What is installed is read once: a look at it opens a file of every package.
"""

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType


def installed(group: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of a group by their names, sorted.

    Args:
        group: for example `disinherit.root_methods`.

    Returns:
        Name -> entry point.  Of several of one name it is the one that is first on `sys.path`.
    """
    return _read(group, tuple(sys.path))


@cache
def _read(group: str, places: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, point)
    return MappingProxyType(dict(sorted(found.items())))
