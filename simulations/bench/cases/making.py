"""The affected models of a case as methods and metrics see them, from weights and indices."""

from collections.abc import Callable, Collection, Mapping
from functools import partial

import torch
from torch import Tensor

from disinherit.common.graph.labels import class_indices
from disinherit.common.models.devices import pick_device
from disinherit.simulations.bench.cases.store import Trained
from disinherit.simulations.bench.cases.subjects import (
    BY_CLASS,
    Case,
    Granularity,
    NetworkBuild,
    Samples,
    Subject,
)
from disinherit.simulations.data.backdoors import triggered
from disinherit.simulations.data.splits import seeded_generator
from disinherit.simulations.run.fitting import fit_batches, train
from disinherit.simulations.run.replaying import retrain_one, start_of
from disinherit.simulations.scenario.forgetting import Forgetting
from disinherit.simulations.scenario.inheriting import Weights, classes_of
from disinherit.simulations.scenario.settings import OWNER_THREADS, Settings
from disinherit.simulations.scenario.shares import SharedData, TensorBatches, owner_name, share_out

_Known = dict[str, set[str]]


def build_case(
    name: str,
    granularity: Granularity,
    forgetting: Forgetting,
    trained: Trained,
    replay: Callable[[Mapping[str, Weights]], dict[str, Weights]],
) -> Case:
    """Return a case; its labels are the data set's classes, whatever the scenario calls them.

    So every method, also one from elsewhere, may match classes by name.

    Args:
        name: of the case.
        granularity: of the request.
        forgetting: what is to be forgotten in the run.
        trained: its weights.
        replay: does the exact retraining again, given the unaffected models' weights.
    """
    data = share_out(forgetting.settings)
    samples = _SampleSets(data, forgetting, granularity)
    asked = forgetting.spaces.sensitive(forgetting.settings.forget)
    derivations = {d.id: d for d in forgetting.settings.scenario.derivations}
    subjects = {
        model: samples.subject(model, derivations[model].parents, trained)
        for model in forgetting.affected
    }
    unaffected = {
        parent: trained.original[parent]
        for subject in subjects.values()
        for parent in subject.parents
        if parent not in subjects
    }
    return Case(
        name=name,
        seed=forgetting.settings.seed,
        granularity=granularity,
        subjects=subjects,
        unaffected=unaffected,
        roots={root: asked[root] if granularity in BY_CLASS else () for root in forgetting.roots},
        forget_at_root={
            root: subjects[root].forget.of(class_indices(subjects[root].labels, asked[root]))
            if granularity in BY_CLASS
            else subjects[root].forget
            for root in forgetting.roots
        },
        replay=lambda: replay(unaffected),
        retrain=partial(_retrain, forgetting, trained.original, samples.positions),
        train_seconds=trained.train_seconds,
        retrain_seconds=trained.retrain_seconds,
        refit=partial(_refit, forgetting, trained.original, subjects),
    )


def _retrain(
    forgetting: Forgetting,
    weights: Mapping[str, Weights],
    positions: Mapping[str, Tensor],
    model: str,
    without: Collection[int] | None,
) -> Weights:
    """Train a subject again as it was trained, without the samples at some of its positions."""
    derivation = next(d for d in forgetting.settings.scenario.derivations if d.id == model)
    indices = None if without is None else positions[model][sorted(without)].tolist()
    return retrain_one(derivation, forgetting, weights, indices)


def _refit(
    forgetting: Forgetting,
    weights: Mapping[str, Weights],
    subjects: Mapping[str, Subject],
    root: str,
    samples: Samples,
    seed: int,
) -> Weights:
    """Train a root from its own start on given samples."""
    settings = forgetting.settings
    derivation = next(d for d in settings.scenario.derivations if d.id == root)
    start = start_of(derivation, forgetting, weights)
    return fit_batches(
        settings,
        settings.network_spec(share_out(settings).dataset, len(subjects[root].labels)).build(
            settings.seed
        ),
        samples.batches(settings.batch_size),
        start,
        derivation.trains,
        seed,
        pick_device(settings.device),
    )


class _SampleSets:
    """Which samples are what to which model.

    Attributes:
        positions: model -> indices in the data set's pool of its samples to forget and, after
            these, of the retained ones.
    """

    def __init__(self, data: SharedData, forgetting: Forgetting, granularity: Granularity) -> None:
        self._data = data
        self._forgetting = forgetting
        self._granularity = granularity
        self._known = _known_classes(data, forgetting)
        self._made: dict[tuple[object, ...], Samples] = {}
        self.positions: dict[str, Tensor] = {}

    def subject(self, model: str, parents: tuple[str, ...], trained: Trained) -> Subject:
        forgetting, settings = self._forgetting, self._forgetting.settings
        spaces, splits = forgetting.spaces, self._data.splits
        owner = settings.scenario.owner_of(model, settings.clients)
        space = classes_of(spaces, model)
        out = forgetting.classes_left_out(model, replay=False)
        held = [c for c in space if c not in out]
        direct = self._data.chosen(
            self._data.train[owner], held, forgetting.samples_left_out(model, replay=False)
        )
        asked = torch.isin(direct, torch.tensor(forgetting.samples_left_out(model, replay=True)))
        forgotten: list[str] = []
        if self._granularity in BY_CLASS:
            sensitive = {c for names in spaces.sensitive(settings.forget).values() for c in names}
            forgotten = [c for c in space if c in self._inherited(model) & sensitive]
            asked = torch.isin(self._data.dataset.targets[direct], self._numbers(forgotten))
        self.positions[model] = torch.cat([direct[asked], direct[~asked]])
        kept = [c for c in space if c in self._known[model] and c not in forgotten]
        test_forget = self._samples("test", self._of(splits.evaluation, forgotten), space)
        if self._granularity == "backdoor":
            test_forget = self._attack(space)
        return Subject(
            id=model,
            owner=owner_name(owner),
            labels=tuple(space),
            parents=parents,
            build=NetworkBuild(
                settings.network_spec(self._data.dataset, len(space)), settings.seed
            ),
            original=trained.original[model],
            forget=self._samples("train", direct[asked], space),
            retain=self._samples("train", direct[~asked], space),
            tuning=self._samples("tuning", self._of(self._data.tuning[owner], held), space),
            retrained=trained.retrained[model],
            test_forget=test_forget,
            test_retain=self._samples("test", self._of(splits.evaluation, kept), space),
        )

    def _inherited(self, model: str) -> set[str]:
        """Return the classes that are to be forgotten in a model: those of the roots above it."""
        forgetting = self._forgetting
        topology, sensitive = forgetting.settings.scenario, forgetting.spaces
        asked = sensitive.sensitive(forgetting.settings.forget)
        return {
            name
            for root, names in asked.items()
            if model in topology.descendants(root)
            for name in names
        }

    def _numbers(self, classes: list[str]) -> Tensor:
        names = self._data.dataset.classes
        return torch.tensor([names.index(name) for name in classes], dtype=torch.int64)

    def _of(self, indices: Tensor, classes: list[str]) -> Tensor:
        return self._data.chosen(indices, classes)

    def _samples(self, split: str, indices: Tensor, space: list[str]) -> Samples:
        """Return samples in a label space; the same ones only once in memory."""
        key = (split, tuple(space), indices.numpy().tobytes())
        if key not in self._made:
            batches = self._data.owned(indices, space, max(len(indices), 1), space)
            self._made[key] = Samples(batches.inputs, batches.targets)
        return self._made[key]

    def _attack(self, space: list[str]) -> Samples:
        """Return held-out samples with the trigger, labelled as the backdoor wants them."""
        backdoor = self._forgetting.settings.backdoor
        assert backdoor is not None
        if backdoor.target not in space:
            return self._samples("test", torch.empty(0, dtype=torch.int64), space)
        indices = self._data.chosen(self._data.splits.evaluation, [backdoor.source])
        inputs = triggered(self._data.dataset, self._data.dataset.inputs[indices])
        return Samples(inputs, torch.full((len(indices),), space.index(backdoor.target)))


def _known_classes(data: SharedData, forgetting: Forgetting) -> _Known:
    """Return the classes that each model or one of its ancestors was trained on."""
    settings = forgetting.settings
    known: _Known = {}
    for derivation in settings.scenario.derivations:
        owner = settings.scenario.owner_of(derivation.id, settings.clients)
        out = forgetting.classes_left_out(derivation.id, replay=False)
        own = {name for name in data.held(owner) if name not in out}
        known[derivation.id] = own.union(*(known[parent] for parent in derivation.parents))
    return known


def least_predictable(
    settings: Settings, data: SharedData, indices: Tensor, count: int
) -> tuple[int, ...]:
    """Return the samples whose label is the least predictable from the others'.

    The criterion is cross-validated confidence.  If a network trained on the other half of the data
    gives a sample's label a low probability, the sample is atypical or mislabelled, and a network
    trained on it has memorised it (after Feldman and Zhang, arXiv 2008.03703).

    Args:
        settings: of the run; its network and training.
        data: of the run.
        indices: samples to choose from, in the pool.
        count: how many to return, at most half of them.

    Returns:
        Pool indices in ascending order.
    """
    order = torch.from_numpy(seeded_generator(settings.seed).permutation(len(indices)))
    halves = indices[order].tensor_split(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(OWNER_THREADS)
    try:
        confidence = torch.cat(
            [_confidence(settings, data, halves[1 - i], half) for i, half in enumerate(halves)]
        )
    finally:
        torch.set_num_threads(threads)
    lowest = confidence.argsort(stable=True)[:count]
    return tuple(torch.cat(halves)[lowest].sort().values.tolist())


def _confidence(settings: Settings, data: SharedData, known: Tensor, held_out: Tensor) -> Tensor:
    """Return the probability `[n]` of the held-out samples' labels after training on the others."""
    dataset = data.dataset
    network = settings.network_spec(dataset).build(settings.seed)
    batches = TensorBatches(dataset.inputs[known], dataset.targets[known], settings.batch_size)
    device = pick_device(settings.device)
    train(network, batches, settings, settings.seed, device)
    network.eval()
    with torch.inference_mode():
        logits = torch.cat(
            [network(part.to(device)).cpu() for part in dataset.inputs[held_out].split(256)]
        )
    targets = dataset.targets[held_out].unsqueeze(1)
    return logits.softmax(dim=1).gather(1, targets).squeeze(1)
