"""Names of remedies: what was done so that a model forgets."""

from disinherit.v1.unlearning_pb2 import Remedy


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
