"""Training on an owner, alone and as a Flower message."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, Message
from torch import nn

from disinherit.client.actions.evaluate import evaluate
from disinherit.common.errors import CampaignError, DataError, StoreError
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.server.flower.exchange import exchange
from disinherit.simulations.run.fitting import Fit, train
from disinherit.simulations.run.owners import SimulatedOwner
from disinherit.simulations.run.training import (
    Fitted,
    build_simulation_app,
    confusion,
    fit_model,
)
from disinherit.simulations.scenario.inheriting import Weights, average
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import SharedData, TensorBatches
from disinherit.simulations.scenario.topology import Layers
from disinherit.v1 import unlearning_pb2 as pb
from tests.support import direct_grid
from tests.support.direct_grid import DirectGrid

DIGITS = Settings("digits", {"r1": ("3",)}, network="mlp", clients=2, limit=20, epochs=2)


@pytest.fixture
def owner(tmp_path: Path) -> SimulatedOwner:
    return SimulatedOwner(DIGITS, 0, tmp_path)


def test_an_average_is_plain_or_weighted() -> None:
    parents = [
        {"w": torch.tensor([[1.0, 2.0]]), "counter": torch.tensor(7)},
        {"w": torch.tensor([[3.0, -2.0]]), "counter": torch.tensor(8)},
        {"w": torch.tensor([[5.0, 3.0]]), "counter": torch.tensor(9)},
    ]
    start = average(parents, [1 / 3] * 3)
    assert start["w"].tolist() == [[3.0, 1.0]]
    assert start["counter"].item() == 7
    start = average(parents, [0.5, 0.25, 0.25])
    assert start["w"].tolist() == [[2.5, 1.25]]


def test_training_is_what_the_record_says(owner: SimulatedOwner) -> None:
    fitted = fit_model(owner, DIGITS, Fit("m", 5, ("3", "4")), None)
    record = fitted.record
    assert (record.id, record.owner, record.created_us) == ("m", "owner-0", 5)
    assert record.digest == weights_digest(fitted.weights)
    assert record.provenance is not None
    counts = record.provenance.samples_per_class
    assert counts["3"] == counts["4"] == 0
    targets = owner.data.dataset.targets[owner.data.train[0]]
    assert counts["5"] == int((targets == 5).sum()) > 0
    stored = owner.store.weights("m")
    assert all(torch.equal(stored[name], fitted.weights[name]) for name in stored)
    assert set(stored) == set(fitted.weights)


def test_a_class_left_out_has_no_influence(owner: SimulatedOwner) -> None:
    """Training without a class equals training where its samples are not there at all."""
    fitted = fit_model(owner, DIGITS, Fit("m", 1, ("3",), keep=False), None)
    targets = owner.data.dataset.targets
    own = owner.data.train[0]
    spoiled = owner.data.dataset.inputs.clone()
    spoiled[own[targets[own] == 3]] = 1.0
    owner.data = dataclasses.replace(
        owner.data, dataset=dataclasses.replace(owner.data.dataset, inputs=spoiled)
    )
    again = fit_model(owner, DIGITS, Fit("m", 1, ("3",), keep=False), None)
    assert again.record.digest == fitted.record.digest
    with_class = fit_model(owner, DIGITS, Fit("m", 1, (), keep=False), None)
    assert with_class.record.digest != fitted.record.digest


def test_training_is_repeatable_and_differs_between_models_and_seeds(
    owner: SimulatedOwner,
) -> None:
    def digest(model: str, seed: int = 0) -> str:
        settings = dataclasses.replace(DIGITS, seed=seed)
        return fit_model(owner, settings, Fit(model, 1, (), keep=False), None).record.digest

    state = torch.get_rng_state()
    assert digest("m") == digest("m")
    assert len({digest("m"), digest("n"), digest("m", seed=1)}) == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_training_starts_from_what_it_is_given(owner: SimulatedOwner) -> None:
    settings = dataclasses.replace(DIGITS, learning_rate=1e-12, epochs=1)
    start = {name: torch.full_like(v, 0.25) for name, v in owner.new_network().state_dict().items()}
    fitted = fit_model(owner, settings, Fit("m", 1, (), keep=False), start)
    for name, value in fitted.weights.items():
        torch.testing.assert_close(value, start[name], atol=1e-6, rtol=0)


PATIENT = dataclasses.replace(DIGITS, epochs=40, patience=2, learning_rate=1e-2, batch_size=2)
"""An epoch has more steps than those that end no training."""


def spoilt(owner: SimulatedOwner, indices: torch.Tensor) -> SharedData:
    """The owner's data with other inputs at some places of the pool."""
    inputs = owner.data.dataset.inputs.clone()
    inputs[indices] = 1.0
    return dataclasses.replace(
        owner.data, dataset=dataclasses.replace(owner.data.dataset, inputs=inputs)
    )


def score(owner: SimulatedOwner, weights: Weights) -> tuple[int, float]:
    """Right answers on the owner's tuning samples, and the loss, times -1."""
    tuning = owner.data.owned(owner.data.tuning[0], owner.data.dataset.classes, 64)
    network = owner.new_network()
    network.load_state_dict(weights)
    network.eval()
    with torch.no_grad():
        logits = network(tuning.inputs)
    right = int((logits.argmax(1) == tuning.targets).sum())
    return right, -float(nn.functional.cross_entropy(logits, tuning.targets))


@pytest.mark.parametrize("layers", ["all", "head"])
def test_a_training_with_patience_has_the_best_weights_by_tuning_samples(
    owner: SimulatedOwner, layers: Layers
) -> None:
    fit = Fit("m", 1, (), keep=False, layers=layers)
    settings = dataclasses.replace(PATIENT, learning_rate=1e-2 if layers == "all" else 0.3)
    patient = fit_model(owner, settings, fit, None).record.digest
    scores: list[tuple[int, float]] = []
    digests: list[str] = []
    while len(scores) < 3 or max(scores) in scores[-2:]:
        fixed = dataclasses.replace(settings, patience=None, epochs=len(scores) + 1)
        weights = fit_model(owner, fixed, fit, None).weights
        scores.append(score(owner, weights))
        digests.append(weights_digest(weights))
    assert len(scores) < settings.epochs
    assert patient == digests[scores.index(max(scores))]


def test_test_samples_and_those_of_other_owners_end_no_training(owner: SimulatedOwner) -> None:
    before = fit_model(owner, PATIENT, Fit("m", 1, (), keep=False), None).record.digest
    other = torch.cat([owner.data.splits.evaluation, owner.data.tuning[1], owner.data.train[1]])
    owner.data = spoilt(owner, other)
    assert fit_model(owner, PATIENT, Fit("m", 1, (), keep=False), None).record.digest == before
    owner.data = spoilt(owner, owner.data.tuning[0])
    assert fit_model(owner, PATIENT, Fit("m", 1, (), keep=False), None).record.digest != before


def test_tuning_samples_of_a_class_left_out_end_no_training(owner: SimulatedOwner) -> None:
    """Else what is retrained for reference would follow from what is to be forgotten."""
    fit = Fit("m", 1, ("3",), keep=False)
    before = fit_model(owner, PATIENT, fit, None).record.digest
    own = owner.data.tuning[0]
    owner.data = spoilt(owner, own[owner.data.dataset.targets[own] == 3])
    assert fit_model(owner, PATIENT, fit, None).record.digest == before


def test_without_tuning_samples_all_epochs_are_trained(owner: SimulatedOwner) -> None:
    fit = Fit("m", 1, (), keep=False)
    short = dataclasses.replace(PATIENT, epochs=20)
    fixed = fit_model(owner, dataclasses.replace(short, patience=None), fit, None).record.digest
    assert fit_model(owner, short, fit, None).record.digest != fixed
    owner.data = dataclasses.replace(owner.data, tuning=(owner.data.tuning[0][:0],) * 2)
    assert fit_model(owner, short, fit, None).record.digest == fixed


def test_a_replay_is_not_kept(owner: SimulatedOwner) -> None:
    fit_model(owner, DIGITS, Fit("m", 1, (), keep=False), None)
    assert owner.store.records() == ()


def test_without_data_nothing_is_trained(owner: SimulatedOwner) -> None:
    everything = tuple(map(str, range(10)))
    with pytest.raises(DataError, match="samples to train model 'm' .*owner-0 has none"):
        fit_model(owner, DIGITS, Fit("m", 1, everything), None)
    assert owner.store.records() == ()


@pytest.mark.parametrize("patient", [False, True])
def test_training_that_diverges_is_refused(owner: SimulatedOwner, patient: bool) -> None:
    patience = 1 if patient else None
    settings = dataclasses.replace(DIGITS, learning_rate=1e30, patience=patience)
    with pytest.raises(DataError, match=r"'m', but it diverged with learning rate 1e\+30"):
        fit_model(owner, settings, Fit("m", 1, ()), None)
    assert owner.store.records() == ()


def test_other_weights_under_the_same_id_are_refused(owner: SimulatedOwner) -> None:
    fit_model(owner, DIGITS, Fit("m", 1, ()), None)
    with pytest.raises(StoreError, match="new weights under a new id"):
        fit_model(owner, DIGITS, Fit("m", 1, ("3",)), None)


@pytest.mark.parametrize(("samples", "size"), [(5, 4), (1, 4), (5, 1)])
def test_every_size_of_share_and_batch_trains(samples: int, size: int) -> None:
    """A single sample is left out only where it is what remains of larger batches."""
    network = nn.Linear(3, 2)
    before = network.weight.detach().clone()
    data = TensorBatches(torch.ones(samples, 3), torch.zeros(samples, dtype=torch.int64), size)
    settings = dataclasses.replace(DIGITS, batch_size=size)
    train(network, data, settings, 0, torch.device("cpu"))
    assert not torch.equal(network.weight, before)


def test_a_sample_left_over_does_not_break_batch_normalisation() -> None:
    normalised = nn.BatchNorm1d(3)
    data = TensorBatches(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), 4)
    settings = dataclasses.replace(DIGITS, batch_size=4, epochs=3)
    train(nn.Sequential(normalised, nn.Linear(3, 2)), data, settings, 0, torch.device("cpu"))
    assert normalised.state_dict()["num_batches_tracked"].item() == 3


def test_own_confusion_counts_are_what_the_owner_answers(owner: SimulatedOwner) -> None:
    fitted = fit_model(owner, DIGITS, Fit("m", 1, ()), None)
    answer = evaluate(owner, pb.EvaluateTask(model_ids=["m"])).models[0]
    own = confusion(DIGITS, owner.data, fitted.weights)
    assert [count for row in own for count in row] == list(answer.confusion)
    assert sum(answer.confusion) == len(owner.data.splits.evaluation)
    assert math.fsum(own[i][i] for i in range(10)) > 0


def ask(grid: DirectGrid, fit: Fit, node: int = 1) -> Message | None:
    start = None
    return dict(exchange(grid, {"m": fit.message(start, node, 5.0)}, 5.0))["m"]


def test_training_as_a_message_is_the_same_training(tmp_path: Path) -> None:
    grid = DirectGrid(build_simulation_app(DIGITS, tmp_path / "flower"), 2)
    with SimulatedOwner(DIGITS, 0, tmp_path / "direct") as owner:
        parent = fit_model(owner, DIGITS, Fit("p", 1, ("3",)), None)
        direct = fit_model(owner, DIGITS, Fit("m", 2, ()), parent.weights)
    message = Fit("m", 2, ()).message(parent.weights, 1, 5.0)
    reply = dict(exchange(grid, {"m": message}, 5.0))["m"]
    fitted = Fitted.from_reply("m", reply)
    assert fitted.record == direct.record
    assert weights_digest(fitted.weights) == direct.record.digest
    with SimulatedOwner(DIGITS, 0, tmp_path / "flower") as owner:
        assert owner.store.record("m") == direct.record


def test_weights_travel_bit_for_bit() -> None:
    weights = {
        "w": torch.tensor([[0.1, -0.0], [math.pi, 1e-40]]),
        "half": torch.tensor([0.1, 65504.0], dtype=torch.float16),
        "counter": torch.tensor(7),
    }
    record = Fit("m", 1, ()).message(weights, 1, 5.0).content["start"]
    assert isinstance(record, ArrayRecord)
    assert weights_digest(dict(record.to_torch_state_dict())) == weights_digest(weights)


def test_a_failure_to_train_names_the_model_and_the_reason(tmp_path: Path) -> None:
    grid = DirectGrid(build_simulation_app(DIGITS, tmp_path), 2)
    reply = ask(grid, Fit("m", 1, tuple(map(str, range(10)))))
    with pytest.raises(CampaignError, match="model 'm' to be trained, but: .*owner-0 has none"):
        Fitted.from_reply("m", reply)
    (tmp_path / "owners" / "owner-1").write_text("in the way")
    reply = ask(grid, Fit("m", 1, ()), node=2)
    with pytest.raises(CampaignError, match=r"model 'm' .*models of 'owner-1'"):
        Fitted.from_reply("m", reply)


def test_an_answer_that_does_not_come_is_a_failure_of_the_model() -> None:
    with pytest.raises(CampaignError, match="'m' to be trained, but no answer came"):
        Fitted.from_reply("m", None)


def test_of_a_clients_stack_trace_the_last_line_is_shown() -> None:
    order = direct_grid.numbered(Fit("m", 1, ()).message(None, 1, 5.0))
    reason = "<class 'X'>:<'trace\n  File ...\nflwr.ClientAppException: \nException: no memory'>"
    with pytest.raises(CampaignError, match="'m' to be trained, but: Exception: no memory$"):
        Fitted.from_reply("m", direct_grid.failure(order, reason))
