"""Class names across models with different label spaces: matched by name, never by index."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from disinherit.common.errors import LabelError

SEQUENCES = ("<sequence>", "<other>")
"""The label space of language models, which have no classes: whether a sequence is this one."""


def has_classes(labels: Sequence[str]) -> bool:
    """Whether a label space names classes: that of a language model does not.

    Example:
        >>> has_classes(["cat", "dog"]), has_classes(SEQUENCES)
        (True, False)
    """
    return tuple(labels) != SEQUENCES


def class_indices(labels: Sequence[str], classes: Iterable[str]) -> list[int]:
    """Return the row of each of `classes` in the label space `labels`, in the order of `classes`.

    Raises:
        LabelError: if a class is unknown, or `labels` are not distinct.

    Example:
        >>> class_indices(["cat", "dog", "owl"], ["owl", "cat"])
        [2, 0]
    """
    rows = _rows(labels, "the label space")
    wanted = list(classes)
    unknown = [name for name in wanted if name not in rows]
    if unknown:
        raise LabelError(f"Expected classes among {list(labels)}, but got unknown {unknown}.")
    return [rows[name] for name in wanted]


def union_labels(spaces: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return all class names of several label spaces, each once, in order of first appearance.

    Example:
        >>> union_labels([["cat", "dog"], ["owl", "cat"]])
        ('cat', 'dog', 'owl')
    """
    return tuple(dict.fromkeys(chain.from_iterable(spaces)))


def check_label_mapping(
    source: Sequence[str], target: Sequence[str], mapping: Mapping[str, str]
) -> None:
    """Check that `mapping` assigns source classes to target classes without ambiguity.

    Classes that are not in `mapping` correspond to those of the same name, if any.

    Args:
        source: distinct class names of the parent.
        target: distinct class names of the child.
        mapping: source class name -> target class name, where they differ.

    Raises:
        LabelError: if a label space repeats a name, a name in the mapping is unknown, or two
            source classes correspond to one target class.
    """
    if mapping:
        label_correspondence(source, target, mapping)
    else:  # by name, so that only repeated names could be wrong
        _rows(source, "the source label space")
        _rows(target, "the target label space")


def label_correspondence(
    source: Sequence[str], target: Sequence[str], mapping: Mapping[str, str]
) -> list[tuple[int, int]]:
    """Return (source row, target row) of every class that both sides have."""
    source_rows = _rows(source, "the source label space")
    target_rows = _rows(target, "the target label space")
    unknown = [name for name in mapping if name not in source_rows]
    if unknown:
        raise LabelError(
            f"Expected a label mapping from classes of the source {list(source)}, but got "
            f"{unknown}."
        )
    unknown = [name for name in mapping.values() if name not in target_rows]
    if unknown:
        raise LabelError(
            f"Expected a label mapping to classes of the target {list(target)}, but got {unknown}."
        )
    origins: dict[str, str] = {}
    for name in source:
        counterpart = mapping.get(name, name)
        if counterpart not in target_rows:
            continue
        if counterpart in origins:
            raise LabelError(
                f"Expected one source class for target class {counterpart!r}, but got "
                f"{origins[counterpart]!r} and {name!r}; a class that the mapping does not list "
                "corresponds to the one of the same name."
            )
        origins[counterpart] = name
    return [(source_rows[name], target_rows[label]) for label, name in origins.items()]


def _rows(labels: Sequence[str], what: str) -> dict[str, int]:
    rows = {name: row for row, name in enumerate(labels)}
    if len(rows) != len(labels):
        repeated = sorted({name for name in labels if list(labels).count(name) > 1})
        raise LabelError(f"Expected distinct class names in {what}, but got {repeated} repeatedly.")
    return rows
