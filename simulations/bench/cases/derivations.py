"""Cases from a table of derivations: models that are trained anew, fine-tuned, or averaged.

Roots learn samples with wrong labels, so that they must memorise them, and are to forget them::

    {"root": DerivedModel(wrong=150), "child": DerivedModel(parents=("root",))}
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from disinherit.common.fiun.alignment import align_rows
from disinherit.common.models.descent import minimise, steps_of
from disinherit.simulations.bench.cases.subjects import (
    MethodCase,
    MethodSubject,
    NetworkBuild,
    Samples,
    Weights,
)
from disinherit.simulations.data.datasets import Dataset, load_dataset
from disinherit.simulations.networks.networks import NetworkSpec

_HEAD = "head."


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedModel:
    """How one model is made.

    Attributes:
        parents: models whose average its training starts from; of none, it is initialised.
        wrong: samples with wrong labels that it learns and is to forget.
        right_labels: whether these have their right labels all the same.
        learning_rate: of Adam.
        classes: it knows so many of the data set's classes, the first ones.
        new_head: whether its head is initialised, whatever its parents have.
        initialisation: added to the seed of what is initialised.
        recorded: its parents as they are registered, where those are others.
        owner: who holds it; empty for somebody of its own.
    """

    parents: tuple[str, ...] = ()
    wrong: int = 0
    right_labels: bool = False
    learning_rate: float = 1e-3
    classes: int = 10
    new_head: bool = False
    initialisation: int = 0
    recorded: tuple[str, ...] = ()
    owner: str = ""

    @property
    def registered(self) -> tuple[str, ...]:
        """Its parents as the inheritance graph has them."""
        return self.recorded or self.parents


def derived_case(
    models: Mapping[str, DerivedModel], seed: int, network: str, samples: int, epochs: float
) -> tuple[MethodCase, Samples]:
    """Train the models on Fashion-MNIST, and return the case with unseen test samples.

    Args:
        models: name -> derivation, parents first; those above and beside the roots are unaffected.
        seed: of data, labels, initialisation and order.
        network: name of the network.
        samples: training samples of each model.
        epochs: of a model's training; one with parents has half as many.
    """
    dataset = load_dataset("fashion-mnist")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset.targets), generator=generator)
    affected: list[str] = []
    for name, how in models.items():
        if how.wrong or not {*how.registered}.isdisjoint(affected):
            affected.append(name)
    names = [*affected, *(name for name in models if name not in affected)]
    parts = dict(zip(names, order[: samples * len(names)].split(samples), strict=True))
    held_out = order[samples * len(names) :][: 4 * samples]
    data = {name: _samples(dataset, parts[name], models[name].classes) for name in names}
    forget = {}
    for name, how in models.items():
        if how.wrong:
            own = data[name]
            targets = own.targets[: how.wrong]
            if not how.right_labels:
                targets = mislabelled(targets, seed, how.classes)
            forget[name] = Samples(own.inputs[: how.wrong], targets)
            data[name] = Samples.joined([forget[name], own[how.wrong :]])
    builds = {
        name: NetworkBuild(
            NetworkSpec.for_dataset(network, dataset, how.classes), seed + how.initialisation
        )
        for name, how in models.items()
    }
    weights: dict[str, Weights] = {}

    def train(model: str, known: Mapping[str, Weights], without: Collection[int] | None) -> Weights:
        """Train one model from its parents, without some samples, or return its start."""
        how, build = models[model], builds[model]
        labels = dataset.classes
        start = _start(
            [(known[parent], labels[: models[parent].classes]) for parent in how.parents],
            build,
            labels[: how.classes],
            new_head=how.new_head,
        )
        if without is None:
            return start
        chosen = torch.ones(len(data[model]), dtype=torch.bool)
        chosen[list(without)] = False
        share = 0.5 if how.parents else 1.0
        return _fit(build, start, data[model][chosen], share * epochs, how.learning_rate, seed)

    for model in models:
        weights[model] = train(model, weights, ())
    unaffected = {name: weights[name] for name in models if name not in affected}
    subjects = {}
    for model in affected:
        how = models[model]
        tuning = _samples(dataset, held_out[:samples], how.classes)
        subjects[model] = MethodSubject(
            id=model,
            owner=how.owner or f"owner of {model}".replace(" ", "-"),
            labels=dataset.classes[: how.classes],
            parents=how.registered,
            build=builds[model],
            original=weights[model],
            forget=forget.get(model, tuning[:0]),
            retain=data[model][how.wrong :],
            tuning=tuning,
        )

    def replay() -> dict[str, Weights]:
        known = dict(unaffected)
        for model in affected:
            known[model] = train(model, known, range(models[model].wrong))
        return {model: known[model] for model in affected}

    case = MethodCase(
        name=f"{network}-{seed}",
        seed=seed,
        granularity="memorised",
        subjects=subjects,
        unaffected={
            name: value
            for name, value in unaffected.items()
            if any(name in subject.parents for subject in subjects.values())
        },
        roots=dict.fromkeys(forget, ()),
        forget_at_root=forget,
        replay=replay,
        retrain=lambda model, without: train(model, weights, without),
    )
    return case, _samples(dataset, held_out[samples:], len(dataset.classes))


def mislabelled(targets: Tensor, seed: int, classes: int) -> Tensor:
    """Return labels of other classes, each as likely.

    Args:
        targets: the right ones.
        seed: of the choice.
        classes: number of classes.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    return (targets + torch.randint(1, classes, targets.shape, generator=generator)) % classes


def _samples(dataset: Dataset, chosen: Tensor, classes: int) -> Samples:
    samples = Samples(dataset.inputs[chosen], dataset.targets[chosen])
    return samples[samples.targets < classes]


def _start(
    parents: Sequence[tuple[Weights, tuple[str, ...]]],
    build: NetworkBuild,
    labels: tuple[str, ...],
    *,
    new_head: bool,
) -> Weights:
    """Return what training starts from: rows of the head by name, those of new classes as built."""
    own = {name: value.detach().clone() for name, value in build().state_dict().items()}
    if not parents:
        return own
    for name in own:
        head = name.startswith(_HEAD)
        if head and new_head:
            continue
        average = torch.stack([weights[name] for weights, _ in parents]).mean(0)
        theirs = parents[0][1]
        if head and theirs != labels:
            known = torch.tensor([label in theirs for label in labels])
            own[name][known] = align_rows(average, theirs, labels)[known]
        else:
            own[name] = average
    return own


def _fit(
    build: NetworkBuild, start: Weights, data: Samples, epochs: float, rate: float, seed: int
) -> Weights:
    network = build()
    network.load_state_dict(start)

    def loss(chosen: Tensor) -> Tensor:
        return F.cross_entropy(network(data.inputs[chosen]), data.targets[chosen])

    steps = steps_of(len(data), epochs)
    minimise(network, loss, len(data), steps=steps, learning_rate=rate, seed=seed)
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
