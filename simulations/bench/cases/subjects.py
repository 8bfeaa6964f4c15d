"""Subjects of measurement: one request on one trained network, as methods and metrics see it.

    Case      one request: scenario x data set x seed x granularity
    Subject   one affected model, with the exact retraining of it and with held-out samples
    view      what an unlearning method may see of a case: no retrained weights, no test samples

A method is handed a view, so that it cannot look at what it is going to be measured with.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from disinherit.common.errors import DataError, GraphError
from disinherit.common.models.heads import Head, find_head
from disinherit.common.models.inputs import first_inputs
from disinherit.simulations.networks.networks import NetworkSpec
from disinherit.simulations.scenario.shares import TensorBatches

Weights = dict[str, Tensor]

Granularity = Literal["class", "classes", "samples", "client", "backdoor", "memorised"]

BY_CLASS: tuple[Granularity, ...] = ("class", "classes")
"""The granularities at which whole classes are forgotten; at the others it is samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Labelled samples.

    Attributes:
        inputs: `[n, ...]`.
        targets: class indices `[n]` as int64, of the labels of the subject they belong to.

    Raises:
        DataError: if the two do not fit together.

    Example:
        >>> samples = Samples(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> len(samples.of([1])), [len(targets) for _, targets in samples.batches(2)]
        (2, [2, 1])
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if self.targets.ndim != 1 or self.targets.dtype != torch.int64:
            raise DataError(
                f"Expected int64 targets [n], but got {self.targets.dtype} of shape "
                f"{list(self.targets.shape)}."
            )
        if len(self.inputs) != len(self.targets):
            raise DataError(
                f"Expected as many inputs as targets, but got {len(self.inputs)} and "
                f"{len(self.targets)}."
            )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, chosen: Tensor | slice) -> "Samples":
        """Return the samples at given positions, in a range, or where a mask is true."""
        return Samples(self.inputs[chosen], self.targets[chosen])

    def of(self, classes: Iterable[int]) -> "Samples":
        """Return the samples of some classes."""
        return self[torch.isin(self.targets, torch.tensor(list(classes), dtype=torch.int64))]

    def batches(self, size: int) -> TensorBatches:
        """Return the samples in batches of at most `size`, as often as they are iterated."""
        return TensorBatches(self.inputs, self.targets, size)

    @staticmethod
    def joined(parts: Iterable["Samples"]) -> "Samples":
        """Return all samples of one or more parts, in order."""
        listed = list(parts)
        return Samples(
            torch.cat([part.inputs for part in listed]),
            torch.cat([part.targets for part in listed]),
        )


@dataclass(frozen=True, slots=True)
class NetworkBuild:
    """How a subject's network is made anew; can be sent to another process and stored.

    Attributes:
        spec: of the network.
        seed: of its initialisation.
    """

    spec: NetworkSpec
    seed: int

    def __call__(self) -> nn.Module:
        """Return the network, initialised."""
        return self.spec.build(self.seed)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MethodSubject:
    """One affected model, as a method sees it.

    Attributes:
        id: of the model.
        owner: who holds it.
        labels: its class names, `[C]`.
        parents: ids of the models it was derived from, affected or not.
        build: makes a module of its network.
        original: its weights.
        forget: what it was trained on directly and must forget; empty if it only inherited that.
        retain: its other direct training data.
        tuning: samples that neither training nor evaluation uses.

    Raises:
        DataError: if a class index is not one of the labels.
        GraphError: if a label or a parent occurs twice.
    """

    id: str
    owner: str
    labels: tuple[str, ...]
    parents: tuple[str, ...]
    build: Callable[[], nn.Module]
    original: Weights
    forget: Samples
    retain: Samples
    tuning: Samples

    def __post_init__(self) -> None:
        for what, values in (("labels", self.labels), ("parents", self.parents)):
            if len(set(values)) != len(values):
                raise GraphError(
                    f"Expected distinct {what} of model {self.id!r}, but got {list(values)}."
                )
        for split in ("forget", "retain", "tuning"):
            self._check_targets(split)

    def network(self, weights: Weights) -> nn.Module:
        """Return a module with given weights, in eval mode."""
        module = self.build()
        module.load_state_dict(weights)
        return module.eval()

    def head(self) -> Head:
        """Return the head of its network.

        Raises:
            ScopeError: if it has none.
            FisherError: if there is no sample to run it on.
        """
        splits = (self.retain, self.forget, self.tuning)
        inputs, _ = first_inputs((split.inputs, split.targets) for split in splits)
        return find_head(self.network(self.original), inputs)

    def _check_targets(self, split: str) -> None:
        targets: Tensor = getattr(self, split).targets
        if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < len(self.labels)):
            raise DataError(
                f"Expected class indices in [0, {len(self.labels)}) in the {split} samples of "
                f"model {self.id!r}, but got {int(targets.min())} to {int(targets.max())}."
            )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Subject(MethodSubject):
    """One affected model, as the panel sees it.

    Attributes:
        retrained: weights of its exact retraining: the derivation replayed without the data to
            forget.
        test_forget: held-out samples of the forgotten classes; empty where samples are forgotten.
        test_retain: held-out samples of everything else; of everything where samples are forgotten.

    Raises:
        DataError: if the retrained weights have other names or shapes.
    """

    retrained: Weights
    test_forget: Samples
    test_retain: Samples

    def __post_init__(self) -> None:
        MethodSubject.__post_init__(self)
        for split in ("test_forget", "test_retain"):
            self._check_targets(split)
        if _shapes(self.original) != _shapes(self.retrained):
            raise DataError(
                f"Expected retrained weights of model {self.id!r} with the names and shapes of the "
                "original ones, but got others."
            )

    def view(self) -> MethodSubject:
        """Return what a method may see of it."""
        return MethodSubject(
            id=self.id,
            owner=self.owner,
            labels=self.labels,
            parents=self.parents,
            build=self.build,
            original=self.original,
            forget=self.forget,
            retain=self.retain,
            tuning=self.tuning,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class MethodCase:
    """One request on one trained network of models, as a method sees it.

    Attributes:
        name: of the case.
        seed: of everything random in it.
        granularity: what is to be forgotten.
        subjects: the affected models, ancestors first.
        unaffected: weights of their parents that are not affected.
        roots: root -> names of the classes to forget there; of none where samples are forgotten.
        forget_at_root: root -> what it holds that is to be forgotten, in its own labels.
        replay: does the exact retraining and returns the weights of all affected models.
        retrain: trains one subject again as it was trained, from the same start, and returns its
            weights: without the samples at some positions among its `forget` followed by its
            `retain`, or, for `None`, without any training.  Its owner can do that by itself.

    Raises:
        GraphError: if subjects, parents and roots do not fit together.
        DataError: if a root has nothing to forget, or the granularity is unknown.
    """

    name: str
    seed: int
    granularity: Granularity
    subjects: Mapping[str, MethodSubject]
    unaffected: Mapping[str, Weights]
    roots: Mapping[str, tuple[str, ...]]
    forget_at_root: Mapping[str, Samples]
    replay: Callable[[], dict[str, Weights]]
    retrain: Callable[[str, Collection[int] | None], Weights]

    def __post_init__(self) -> None:
        if self.granularity not in get_args(Granularity):
            raise DataError(
                f"Expected a granularity among {', '.join(get_args(Granularity))}, but got "
                f"{self.granularity!r}."
            )
        _check_roots(self)
        known = set(self.unaffected)
        for name, subject in self.subjects.items():
            if subject.id != name:
                raise GraphError(f"Expected subject {name!r} under its id, but got {subject.id!r}.")
            if missing := [parent for parent in subject.parents if parent not in known]:
                raise GraphError(
                    f"Expected the parents of model {name!r} before it, or among the unaffected "
                    f"models, but {missing[0]!r} is not."
                )
            known.add(name)
            if not self.upstream(name):
                raise GraphError(
                    f"Expected every subject to be a root or to descend from one, but {name!r} "
                    "does not."
                )

    @property
    def by_class(self) -> bool:
        """Whether whole classes are to be forgotten, rather than samples."""
        return self.granularity in BY_CLASS

    def upstream(self, model: str) -> tuple[str, ...]:
        """Return the roots among a subject and its ancestors, in the order of `roots`."""
        reached = {model}
        left = [model]
        while left:
            subject = self.subjects.get(left.pop())
            new = [] if subject is None else [p for p in subject.parents if p not in reached]
            reached.update(new)
            left += new
        return tuple(root for root in self.roots if root in reached)

    def forgotten(self, model: str) -> tuple[int, ...]:
        """Return the indices of the classes that a subject must forget; of none for samples.

        Classes are matched by name, and those that the subject does not have are left out.
        """
        names = {name for root in self.upstream(model) for name in self.roots[root]}
        return tuple(i for i, name in enumerate(self.subjects[model].labels) if name in names)

    def to_forget(self, model: str) -> Samples:
        """Return all samples that a subject must forget, whether its own or inherited.

        They are in the labels of the subject; samples of classes that it does not have are left
        out.
        """
        subject = self.subjects[model]
        parts = [
            _relabelled(self.forget_at_root[root], self.subjects[root].labels, subject.labels)
            for root in self.upstream(model)
        ]
        if model not in self.roots:
            parts.append(subject.forget)
        return Samples.joined(part for part in parts if len(part)) if any(parts) else subject.forget


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Case(MethodCase):
    """One request on one trained network of models, as the panel sees it.

    Attributes:
        subjects: the affected models, ancestors first.
        train_seconds: what training all models took.
        retrain_seconds: what the exact retraining of the affected ones took.
        refit: trains a root as it was trained, from the same start, but on given samples and with
            a given seed, and returns its weights: what an attacker who knows everything else can
            do.
    """

    subjects: Mapping[str, Subject]
    train_seconds: float
    retrain_seconds: float
    refit: Callable[[str, Samples, int], Weights]

    def view(self) -> MethodCase:
        """Return what a method may see of it."""
        return MethodCase(
            name=self.name,
            seed=self.seed,
            granularity=self.granularity,
            subjects={name: subject.view() for name, subject in self.subjects.items()},
            unaffected=self.unaffected,
            roots=self.roots,
            forget_at_root=self.forget_at_root,
            replay=self.replay,
            retrain=self.retrain,
        )


def _check_roots(case: MethodCase) -> None:
    if not case.roots or set(case.roots) != set(case.forget_at_root):
        raise GraphError(
            "Expected at least one root, each with what is to be forgotten there, but got roots "
            f"{sorted(case.roots)} and samples of {sorted(case.forget_at_root)}."
        )
    for root, names in case.roots.items():
        if root not in case.subjects:
            raise GraphError(f"Expected root {root!r} among the subjects, but it is not.")
        if unknown := [name for name in names if name not in case.subjects[root].labels]:
            raise GraphError(
                f"Expected classes of root {root!r}, but got {unknown[0]!r}, which is none."
            )
        if bool(names) != case.by_class:
            raise DataError(
                f"Expected {'classes' if case.by_class else 'no class'} to forget at root {root!r} "
                f"with granularity {case.granularity!r}, but got {list(names)}."
            )
        if not len(case.forget_at_root[root]):
            raise DataError(f"Expected samples to forget at root {root!r}, but got none.")


def _relabelled(samples: Samples, theirs: tuple[str, ...], ours: tuple[str, ...]) -> Samples:
    """Return the samples whose class is among our labels, with our indices."""
    table = torch.tensor([ours.index(name) if name in ours else -1 for name in theirs])
    targets = table[samples.targets]
    return Samples(samples.inputs, targets)[targets >= 0]


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}
