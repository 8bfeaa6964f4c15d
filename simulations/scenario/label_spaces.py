"""Label spaces of a scenario: labels of each model, and the classes that it is trained on.

A class has one name in a data set and perhaps another in a scenario (an alias).  Labels are the
scenario's names; classes are the data set's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from disinherit.common.errors import DataError
from disinherit.common.graph.records import Inheritance
from disinherit.simulations.data.datasets import Dataset
from disinherit.simulations.scenario.topology import ClassChoice, Derivation, Topology

_RANGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*%\s*")


@dataclass(frozen=True, slots=True)
class LabelSpaces:
    """The label spaces of a topology on a data set.

    Attributes:
        topology: the topology.
        classes: the data set's classes.
        labels: model -> its labels, in the order of the head's rows.
        held: model -> classes that it is trained on.
    """

    topology: Topology
    classes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    held: Mapping[str, tuple[str, ...]]

    def class_of(self, label: str) -> str:
        """Return the data set's class that a label stands for."""
        return self.topology.aliases.get(label, label)

    def label_of(self, model: str, name: str) -> str | None:
        """Return what a model calls a class; `None` if it has no label for it."""
        return next((x for x in self.labels[model] if self.class_of(x) == name), None)

    def sensitive(self, forget: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """Return root -> classes, of root -> labels."""
        return {root: tuple(map(self.class_of, labels)) for root, labels in forget.items()}

    def never_trained(self, model: str, forget: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Return the classes that a model is not trained on: not held, or not below their root."""
        sensitive = self.topology.never_learned(model, self.sensitive(forget))
        held = set(self.held[model])
        return tuple(name for name in self.classes if name not in held or name in sensitive)

    def left_out(self, model: str, forget: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Return the classes left out when an affected model is retrained exactly.

        These are the classes it does not hold, those it is to forget, and those it never learned:
        all sensitive ones.
        """
        sensitive = {name for names in self.sensitive(forget).values() for name in names}
        held = set(self.held[model])
        return tuple(name for name in self.classes if name not in held or name in sensitive)

    def edges(self, derivation: Derivation) -> list[Inheritance]:
        """Return the edges to a model, with label mappings where a class changes its name."""
        return [
            replace(edge, labels=self._renamed(edge.parent, edge.child))
            for edge in self.topology.edges(derivation)
        ]

    def _renamed(self, parent: str, child: str) -> dict[str, str]:
        names = {label: self.label_of(child, self.class_of(label)) for label in self.labels[parent]}
        return {a: b for a, b in names.items() if b is not None and a != b}


def label_spaces(topology: Topology, dataset: Dataset) -> LabelSpaces:
    """Resolve the class choices of a topology.

    Raises:
        DataError: if it names a class that the data set does not have, an alias takes the name of
            another class, or a label space or training data is empty or names a class twice.
    """
    for alias, name in topology.aliases.items():
        dataset.class_name(name)
        if alias in dataset.classes:
            raise DataError(
                f"Expected an alias that is no class of data set {dataset.name!r}, but got "
                f"{alias!r}."
            )
    labels, held = {}, {}
    for derivation in topology.derivations:
        what = f"classes of model {derivation.id!r}"
        labels[derivation.id] = _choose(topology, dataset, derivation.classes, what)
        classes = tuple(topology.aliases.get(x, x) for x in labels[derivation.id])
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise DataError(
                f"Expected two or more distinct {what}, but got {list(labels[derivation.id])}."
            )
        data = classes
        if derivation.data is not None:
            chosen = _choose(topology, dataset, derivation.data, f"data of {derivation.id!r}")
            data = tuple(topology.aliases.get(x, x) for x in chosen)
        surplus = [name for name in data if name not in classes]
        if surplus:
            raise DataError(
                f"Expected the data of model {derivation.id!r} to be of its classes "
                f"{list(classes)}, but got {surplus} too."
            )
        if not data:
            raise DataError(f"Expected data of model {derivation.id!r}, but got no class.")
        held[derivation.id] = data
    return LabelSpaces(topology, dataset.classes, labels, held)


def _choose(
    topology: Topology, dataset: Dataset, choice: ClassChoice, what: str
) -> tuple[str, ...]:
    """Return the labels that a choice stands for."""
    if choice is None:
        return dataset.classes
    if isinstance(choice, tuple):
        return tuple(x if x in topology.aliases else dataset.class_name(x) for x in choice)
    match = _RANGE.fullmatch(choice)
    first, last = (float(number) for number in match.groups()) if match else (1.0, 0.0)
    if not 0 <= first < last <= 100:
        raise DataError(
            f"Expected the {what} as a list of names or as a range such as '0-60%', but got "
            f"{choice!r}."
        )
    count = len(dataset.classes)
    start, stop = (int(share * count / 100 + 0.5) for share in (first, last))
    if start == stop:
        raise DataError(
            f"Expected the {what}, {choice!r}, to be at least one of the {count} classes of "
            f"{dataset.name!r}, but it is none. Choose a wider range."
        )
    return dataset.classes[start:stop]
