"""Names of remedies: what was done so that a model forgets."""

from collections.abc import Mapping
from types import MappingProxyType

from disinherit.v1.unlearning_pb2 import Remedy

REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "rebuilt": "computed again from its parents as it was made, all of which are exact",
        "replayed": "trained again without what is to be forgotten, exactly as it was trained",
        "approximated": "the change of its roots was added, or a root was unlearned in another way "
        "than by training it again",
        "suppressed": "values were dampened or rows taken out: it no longer shows what it may "
        "still contain",
        "untouched": "it is as it was",
        "retired": "it is out of use",
        "refused": "it is as it was, as the change does not fit or would do harm",
    }
)
"""Remedy -> what it means."""


def remedy_word(remedy: int) -> str:
    """Return the name of a remedy; `""` where there is none.

    Example:
        >>> remedy_word(2)
        'replayed'
    """
    if not remedy:
        return ""
    if remedy not in Remedy.values():
        return str(remedy)  # of a later release
    return Remedy.Name(Remedy.ValueType(remedy)).removeprefix("REMEDY_").lower()
