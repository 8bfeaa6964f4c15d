"""What comes back: after merging with a sibling, after four bits, after training on other data."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from disinherit.common.errors import NotMeasuredError
from disinherit.simulations.bench.cases.subjects import Case, Subject, Weights
from disinherit.simulations.bench.panel.exam import EvaluationContext, PanelSettings
from disinherit.simulations.bench.panel.merging import merged_accuracy, merged_with, sibling_of
from disinherit.simulations.bench.panel.quantisation import int4_accuracy
from disinherit.simulations.bench.panel.relearning import other_data_relearning
from tests.support.case import FORGOTTEN, digits_case

SETTINGS = PanelSettings(samples=300, relearn_steps=4, learning_rate=3e-3)


@pytest.fixture
def case() -> Case:
    return digits_case()


def recall(subject: Subject, weights: Weights) -> float:
    network = subject.network(weights)
    predicted: list[int] = network(subject.test_forget.inputs).argmax(dim=1).tolist()
    return 100.0 * predicted.count(FORGOTTEN) / len(predicted)


def test_the_sibling_shares_most_parents(case: Case) -> None:
    assert sibling_of(case, "r1") == "r3"  # both come from base; r2 comes from r1
    assert sibling_of(case, "r2") == "r1"  # none shares a parent
    renamed = dataclasses.replace(
        case.subjects["r3"], labels=tuple(f"class {i}" for i in range(10))
    )
    other = dataclasses.replace(case, subjects={**case.subjects, "r3": renamed})
    assert sibling_of(other, "r1") == "r2"
    assert sibling_of(other, "r3") is None


def test_an_average_is_that_of_floats_and_keeps_counters() -> None:
    one = {"w": torch.tensor([1.0, 3.0]), "steps": torch.tensor(4)}
    other = {"w": torch.tensor([2.0, 5.0]), "steps": torch.tensor(9)}
    found = merged_with(one, other)
    assert found["w"].tolist() == [1.5, 4.0]
    assert found["steps"].item() == 4


def test_it_is_the_average_with_the_sibling_as_it_was_that_is_measured(case: Case) -> None:
    exam = EvaluationContext(case, "r1", SETTINGS)
    subject = case.subjects["r1"]
    halved = {
        name: (value + subject.retrained[name]) / 2 for name, value in subject.original.items()
    }
    for weights in (subject.original, halved, subject.retrained):
        found = merged_accuracy(exam, exam.candidate(weights))
        middle = merged_with(weights, case.subjects["r3"].original)
        assert found["merged_forget_accuracy"] == pytest.approx(recall(subject, middle))
        assert found["merged_retain_accuracy"] > 70


def test_nobody_to_merge_with_is_a_reason(case: Case) -> None:
    alone = dataclasses.replace(case, subjects={"r1": case.subjects["r1"]})
    exam = EvaluationContext(alone, "r1", SETTINGS)
    with pytest.raises(NotMeasuredError, match="no other affected model"):
        merged_accuracy(exam, exam.original)


def test_four_bits_hurt_a_little_and_leave_the_weights_alone(case: Case) -> None:
    exam = EvaluationContext(case, "r1", SETTINGS)
    before = {name: value.clone() for name, value in case.subjects["r1"].original.items()}
    found = int4_accuracy(exam, exam.original)
    assert set(found) == {"int4_forget_accuracy", "int4_retain_accuracy"}
    assert found["int4_retain_accuracy"] > 70
    assert all(torch.equal(before[name], exam.subject.original[name]) for name in before)


def test_other_data_is_what_is_held_out_without_what_is_forgotten(case: Case) -> None:
    """The same steps by hand: Adam on held-out samples of the other classes, nothing else."""
    subject = case.subjects["r1"]
    weakened = {name: value.clone() for name, value in subject.original.items()}
    weakened["head.bias"][FORGOTTEN] -= 3.0
    network = subject.network(weakened).train()
    others = subject.test_retain
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(case.seed))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for chosen in order.split(64)[:4]:
        optimizer.zero_grad()
        F.cross_entropy(network(others.inputs[chosen]), others.targets[chosen]).backward()
        optimizer.step()
    expected = recall(subject, dict(network.state_dict()))
    exam = EvaluationContext(case, "r1", SETTINGS)

    found = other_data_relearning(exam, exam.candidate(weakened))

    assert found["relearn_other_forget_accuracy"] == pytest.approx(expected)
    assert other_data_relearning(exam, exam.retrained)["relearn_other_forget_accuracy"] < 5
    assert other_data_relearning(exam, exam.original)["relearn_other_forget_accuracy"] > 50
