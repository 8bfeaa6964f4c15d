"""Owners: shares that are disjoint, and data that matches what a record says."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from disinherit.client.owner.owner import ResolvesSamples, Retrains
from disinherit.common.errors import DataError
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.simulations.run.owners import SimulatedOwner
from disinherit.simulations.run.replaying import fit_of, replay, retrain_one, start_of
from disinherit.simulations.run.training import fit_model
from disinherit.simulations.scenario.forgetting import Forgetting, SampleRequest
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import SharedData, check_shares, owner_name, share_out

DIGITS = Settings("digits", {"r1": ("3",)}, network="mlp", clients=3, limit=20)


def record_of(classes: tuple[str, ...] | None, owner: str = "owner-0") -> ModelRecord:
    """A record of a model that was trained on ten samples of each class."""
    labels = tuple(map(str, range(10)))
    provenance = None
    if classes is not None:
        provenance = Provenance("digits", {name: 10 * (name in classes) for name in labels})
    return ModelRecord("m", owner, "a", labels, "0", 1, provenance)


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
@pytest.mark.parametrize("clients", [1, 2, 3, 10])
def test_training_and_tuning_data_are_shared_out_once(partition: str, clients: int) -> None:
    settings = dataclasses.replace(DIGITS, partition=partition, clients=clients)
    data = share_out(settings)
    for shares, split in ((data.train, data.splits.train), (data.tuning, data.splits.tuning)):
        assert len(shares) == clients
        assert torch.equal(torch.cat(shares).sort().values, split.sort().values)


def test_the_same_settings_share_out_the_same_data_once_per_process() -> None:
    assert share_out(DIGITS) is share_out(dataclasses.replace(DIGITS, epochs=9))
    assert share_out(DIGITS) is not share_out(dataclasses.replace(DIGITS, seed=1))


@pytest.mark.parametrize("count", [4, 5, 10])
def test_owners_hold_as_many_classes_as_the_pathological_partition_gives_them(count: int) -> None:
    settings = dataclasses.replace(DIGITS, partition="pathological", classes_per_client=count)
    data = share_out(settings)
    assert [len(data.held(index)) for index in range(3)] == [count] * 3


def test_more_owners_than_samples_are_refused() -> None:
    with pytest.raises(DataError, match="500 clients"):
        share_out(dataclasses.replace(DIGITS, clients=500))


def skewed(*held: tuple[int, ...]) -> tuple[Settings, SharedData]:
    """Owners that hold only the given classes; the pathological partition, but chosen."""
    settings = dataclasses.replace(DIGITS, clients=len(held))
    data = share_out(settings)
    targets = data.dataset.targets

    def only(classes: tuple[int, ...]) -> Tensor:
        wanted = torch.isin(targets[data.splits.train], torch.tensor(classes))
        return data.splits.train[wanted]

    return settings, dataclasses.replace(data, train=tuple(map(only, held)))


def test_what_an_owner_holds_is_named() -> None:
    _, data = skewed((3, 1), (0,))
    assert data.held(0) == ("1", "3")
    assert data.held(1) == ("0",)


def test_shares_that_leave_something_to_train_on_are_accepted() -> None:
    settings, data = skewed((1,), (2,), (3, 4))  # r1 is the third model: it needs class 3
    check_shares(settings, data)


def test_a_root_without_samples_of_its_class_is_refused() -> None:
    settings, data = skewed((1, 3), (2, 3), (4, 5))
    with pytest.raises(DataError, match=r"owner-2 .* class '3'.*'r1'.* only class 4, 5\. Choose"):
        check_shares(settings, data)


def test_an_owner_with_nothing_but_classes_to_forget_is_refused() -> None:
    settings, data = skewed((1,), (3,), (3, 4))
    with pytest.raises(DataError, match="owner-1 .* not to be forgotten, to train model 's'"):
        check_shares(settings, data)


def test_an_owner_without_models_may_hold_anything() -> None:
    settings, data = skewed(*[(1, 3)] * 7, (3,))
    check_shares(settings, data)


def test_an_owner_gives_exactly_the_data_that_a_record_names(tmp_path: Path) -> None:
    settings = dataclasses.replace(DIGITS, clients=2)
    data = share_out(settings)
    targets = data.dataset.targets
    with SimulatedOwner(settings, 1, tmp_path) as owner:
        training = owner.training_data(record_of(("1", "7")))
        tuning = owner.tuning_data(record_of(("1", "7")))
        evaluation = owner.evaluation_data(record_of(("1", "7")))
    for batches, share in (
        (training, data.train[1]),
        (tuning, data.tuning[1]),
        (evaluation, data.splits.evaluation),
    ):
        assert batches is not None
        found = torch.cat([t for _, t in batches])
        own = targets[share]
        expected = own if batches is evaluation else own[(own == 1) | (own == 7)]
        assert torch.equal(found.sort().values, expected.sort().values)
        assert all(len(inputs) == len(t) for inputs, t in batches)


@pytest.mark.parametrize("classes", [None, ()])
def test_a_model_that_was_not_trained_has_no_data(
    classes: tuple[str, ...] | None, tmp_path: Path
) -> None:
    with SimulatedOwner(DIGITS, 0, tmp_path) as owner:
        assert owner.training_data(record_of(classes)) is None
        assert owner.tuning_data(record_of(classes)) is None
        assert owner.evaluation_data(record_of(classes)) is not None


def test_an_owner_without_a_tuning_sample_of_the_classes_says_so(tmp_path: Path) -> None:
    with SimulatedOwner(DIGITS, 0, tmp_path) as owner:
        owner.data = dataclasses.replace(owner.data, tuning=(torch.empty(0, dtype=torch.int64),))
        assert owner.tuning_data(record_of(("1",))) is None


def test_all_owners_start_from_one_initialisation(tmp_path: Path) -> None:
    with SimulatedOwner(DIGITS, 0, tmp_path) as one, SimulatedOwner(DIGITS, 1, tmp_path) as two:
        first, second = one.new_network().state_dict(), two.new_network().state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert one.store.owner == owner_name(0)
        assert two.store.owner == owner_name(1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path]:
    """Owners with every model of the demo's topology, trained in this process."""
    folder = tmp_path_factory.mktemp("fleet")
    settings = dataclasses.replace(DIGITS, epochs=1)
    spaces = label_spaces(settings.scenario, share_out(settings).dataset)
    forgetting = Forgetting(settings, spaces)
    weights: dict[str, dict[str, Tensor]] = {}
    torch.set_num_threads(1)
    for number, derivation in enumerate(settings.scenario.derivations, start=1):
        index = settings.scenario.owner_of(derivation.id, settings.clients)
        with SimulatedOwner(settings, index, folder) as owner:
            fit = fit_of(derivation, forgetting, replay=False, created_us=number, keep=True)
            start = start_of(derivation, forgetting, weights)
            weights[derivation.id] = fit_model(owner, settings, fit, start).weights
    return settings, folder


def test_every_model_is_retrained_bit_for_bit(fleet: tuple[Settings, Path]) -> None:
    settings, folder = fleet
    for derivation in settings.scenario.derivations:
        index = settings.scenario.owner_of(derivation.id, settings.clients)
        with SimulatedOwner(settings, index, folder) as owner:
            record = owner.store.record(derivation.id)
            assert isinstance(owner, Retrains)
            assert owner.can_retrain(record)
            assert weights_digest(owner.retrain(record, [])) == record.digest
            start = owner.retrain(record, None)
            assert start.keys() == owner.store.weights(record.id).keys()
            assert weights_digest(start) != record.digest


def test_a_model_is_retrained_without_samples_as_in_the_exact_retraining(
    fleet: tuple[Settings, Path],
) -> None:
    settings, folder = fleet
    scenario = settings.scenario
    root = next(derivation.id for derivation in scenario.derivations if derivation.links)
    index = scenario.owner_of(root, settings.clients)
    with SimulatedOwner(settings, index, folder) as owner:
        record = owner.store.record(root)
        assert isinstance(owner, ResolvesSamples)
        ids = owner.sample_ids(record)[3:7]
        forget, retain = owner.split_training_data(record, ids)
        assert sum(len(targets) for _, targets in forget) == 4
        assert sum(len(targets) for _, targets in retain) == len(owner.sample_ids(record)) - 4
        found = owner.retrain(record, ids)
    plain = dataclasses.replace(settings, forget={})
    spaces = label_spaces(scenario, share_out(plain).dataset)
    request = SampleRequest(index, root, tuple(map(int, ids)))
    forgetting = Forgetting(plain, spaces, request)
    known = {}
    for parent in scenario.ids:
        with SimulatedOwner(settings, scenario.owner_of(parent, settings.clients), folder) as one:
            known[parent] = one.store.weights(parent)
    assert weights_digest(found) != record.digest
    out = spaces.never_trained(root, settings.forget)
    if not out:
        assert weights_digest(replay(forgetting, known)[root]) == weights_digest(found)
    derivation = next(d for d in scenario.derivations if d.id == root)
    expected = retrain_one(derivation, Forgetting(settings, spaces), known, list(map(int, ids)))
    assert weights_digest(found) == weights_digest(expected)


def test_other_models_have_no_samples_and_no_training(tmp_path: Path) -> None:
    with SimulatedOwner(DIGITS, 0, tmp_path) as owner:
        stranger = record_of(None)
        assert owner.sample_ids(stranger) == []
        assert not owner.can_retrain(stranger)
        with pytest.raises(DataError, match="'m' to be trained on data of owner-0, but it was not"):
            owner.split_training_data(stranger, ["1"])
