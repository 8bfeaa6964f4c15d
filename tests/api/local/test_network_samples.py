"""Samples that a network forgets: at their root, and what is retrained there."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from disinherit import DisinheritError, InputError, Method, Network
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.local import local_pass
from disinherit.local.loaders import SomeSamples
from disinherit.server.campaign.outcomes import outcome_of
from disinherit.server.states import Answered, Task, TaskState
from tests.support.blobs import blobs, trained
from tests.support.local_networks import ALL, LABELS, loader


def test_samples_are_forgotten_at_the_root_and_it_says_what_became_of_others(
    network: Network,
) -> None:
    data = blobs(ALL, 1)
    result = network.forget(samples=[0, 3, 6], root="base")
    assert result.what == "3 samples at base"
    assert [one.model for one in result.outcomes] == ["base", "child", "grandchild"]
    for outcome in result.outcomes:
        assert outcome.state in ("verified", "ineffective")
        assert bool(outcome.reason) == (outcome.state == "ineffective")
    assert result["base"].forget is None or result["base"].forget.measure == "auc"
    copies = network.forget(samples=Subset(data, [0, 3]), root="base", inplace=False)
    assert copies.what == "2 samples at base"
    batches = [(data.tensors[0][:2], data.tensors[1][:2])]
    assert network.forget(samples=batches, root="base", inplace=False).what == "2 samples at base"


@pytest.mark.parametrize(
    ("samples", "root", "message"),
    [
        ([], "base", "samples that model 'base' was trained on, but got none"),
        ([180], "base", "indices from 0 to 179 .* 'base', but got 180"),
        ([-1], "base", "but got -1"),
        (blobs(ALL, 7), "base", "180 of 180 are not among"),
        (7, "base", "indices, a data set or batches .* but got int"),
        ([0], None, "one root with samples=.* but got none"),
        ([0], ["base", "child"], "but got base, child"),
    ],
)
def test_samples_that_are_not_there_are_refused(
    network: Network, samples: object, root: Any, message: str
) -> None:
    with pytest.raises(DisinheritError, match=message):
        network.forget(samples=samples, root=root)


@pytest.mark.parametrize("samples", [[3], {3}, range(3, 4), torch.tensor([3]), np.array([3])])
def test_a_sample_goes_by_its_index_in_any_collection(network: Network, samples: object) -> None:
    result = network.forget(samples=samples, root="base", inplace=False)
    assert result.what == "1 sample at base"


def test_a_model_that_can_be_trained_again_is_replayed_without_samples() -> None:
    asked: list[int | None] = []

    def retrain(batches: Any) -> Mapping[str, Tensor]:
        if batches is None:
            asked.append(None)
            return nn.Linear(2, 3).state_dict()
        asked.append(sum(len(targets) for _, targets in batches))
        return model.state_dict()

    data = blobs(ALL, 1)
    model = trained(data)
    network = Network(labels=LABELS, scope="all")
    network.add("base", model, loader(ALL, 1), retrain=retrain)
    network.add("child", copy.deepcopy(model), loader(ALL, 2), parents=["base"])
    owner = network._owner
    record, other = owner.store.record("base"), owner.store.record("child")
    assert owner.can_retrain(record)
    assert not owner.can_retrain(other)
    ids = owner.sample_ids(record)
    assert weights_digest(owner.retrain(record, ids[:5])) == record.digest
    owner.retrain(record, None)
    assert asked == [len(data) - 5, None]
    network._members["base"].retrain = lambda _: None  # type: ignore[assignment, return-value]
    with pytest.raises(InputError, match="retrain of model 'base' to return a state_dict, but"):
        owner.retrain(record, None)


def test_retraining_gets_batches_as_the_loader_yields_them() -> None:
    got: list[object] = []

    def retrain(batches: Any) -> Mapping[str, Tensor]:
        got.extend(inputs for inputs, _ in batches)
        return model.state_dict()

    model = trained(blobs(ALL, 1))
    network = Network(labels=LABELS, scope="all")
    network.add("base", model, loader(ALL, 1), retrain=retrain)
    owner = network._owner
    record = owner.store.record("base")
    ids = owner.sample_ids(record)
    owner.retrain(record, ids[:5])
    assert all(isinstance(one, Tensor) and one.shape[1:] == (4,) for one in got)
    pairs = [((inputs, inputs), targets) for inputs, targets in loader(ALL, 1)]
    (first, *_) = SomeSamples(pairs, frozenset(), among=False)
    assert [part.shape for part in first[0]] == [(32, 4), (32, 4)]


def test_what_retraining_says_when_it_fails_is_in_the_result() -> None:
    def retrain(_: Any) -> Mapping[str, Tensor]:
        raise ValueError("my own\nwords")

    network = Network(labels=LABELS, scope="all")
    network.add("base", trained(blobs(ALL, 1)), loader(ALL, 1), retrain=retrain)
    method = Method(scope="all", mechanism="delta", root_method="replay")
    result = network.forget(samples=[0, 1], method=method)
    said = "Expected retrain of model 'base' to train it again, but got ValueError: my own words"
    assert said in result["base"].reason


def test_a_model_is_put_back_with_its_root_and_gets_the_next_change_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def retrain(batches: Any) -> Mapping[str, Tensor]:
        if batches is None:
            return {name: torch.zeros_like(value) for name, value in start.items()}
        missing = len(data) - sum(len(targets) for _, targets in batches)
        return {name: value - 0.01 * missing for name, value in start.items()}

    def judged(base: TaskState, task: Task, *args: Any, **options: Any) -> Answered | Task:
        """Figures on so few samples tell nothing."""
        found = outcome_of(task, *args, **options)
        assert isinstance(found, Answered)
        state = base if task.model_id == "base" else TaskState.APPLIED
        return replace(found, task=replace(found.task, state=state, reason=""))

    data = blobs(ALL, 1)
    model = trained(data)
    child = copy.deepcopy(model)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    network = Network(labels=LABELS, scope="all")
    network.add("base", model, loader(ALL, 1), retrain=retrain)
    network.add("child", child, loader(ALL, 2), parents=["base"])
    method = Method(scope="all", repair_steps=0)
    monkeypatch.setattr(local_pass, "outcome_of", partial(judged, TaskState.INEFFECTIVE))
    first = network.forget(samples=[0, 3], root="base", method=method)
    assert [outcome.state for outcome in first.outcomes] == ["ineffective", "ineffective"]
    assert first["child"].reason == (
        "model 'child' was put back with its root 'base', which has not taken the change that it "
        "inherits"
    )
    for one in (model, child):
        assert all(torch.equal(value, start[name]) for name, value in one.state_dict().items())
    monkeypatch.setattr(local_pass, "outcome_of", partial(judged, TaskState.APPLIED))
    second = network.forget(samples=[0, 3, 6], root="base", method=method)
    assert second.complete
    for one in (model, child):
        for name, value in one.state_dict().items():
            assert torch.allclose(value, start[name] - 0.03, atol=1e-6)
