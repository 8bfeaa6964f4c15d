"""Cases from tables of derivations: starts of training, recorded parents, and wrong labels."""

import pytest
import torch

from disinherit.simulations.bench.cases.derivations import (
    DerivedModel,
    derived_case,
    mislabelled,
)
from disinherit.simulations.bench.cases.subjects import MethodCase, Samples

MODELS = {
    "stranger": DerivedModel(),
    "root": DerivedModel(wrong=20, classes=8),
    "fewer": DerivedModel(parents=("root",), classes=5),
    "more": DerivedModel(parents=("root",)),
    "new": DerivedModel(parents=("root",), classes=8, new_head=True, initialisation=7),
    "average": DerivedModel(parents=("stranger", "stranger"), recorded=("root",)),
}


@pytest.fixture(scope="module")
def made() -> tuple[MethodCase, Samples]:
    return derived_case(MODELS, 0, "mlp", 100, 1.0)


def test_rows_of_a_head_start_from_those_of_the_same_classes(
    made: tuple[MethodCase, Samples],
) -> None:
    case, _ = made
    root = case.subjects["root"].original["head.weight"]
    fresh = case.subjects["more"].build().state_dict()["head.weight"]
    more = case.retrain("more", None)["head.weight"]
    assert torch.equal(case.retrain("fewer", None)["head.weight"], root[:5])
    assert torch.equal(more[:8], root)
    assert torch.equal(more[8:], fresh[8:])
    new = case.retrain("new", None)["head.weight"]
    assert torch.equal(new, case.subjects["new"].build().state_dict()["head.weight"])
    assert float((new - root).norm()) > 0.9 * float(root.norm())


def test_models_have_samples_of_their_own_classes_and_a_root_wrong_ones(
    made: tuple[MethodCase, Samples],
) -> None:
    case, test = made
    for subject in case.subjects.values():
        assert 0 < len(subject.retain) <= 100
        assert int(subject.retain.targets.max()) == len(subject.labels) - 1
    assert len(case.subjects["root"].forget) == 20
    assert int(test.targets.max()) == 9


def test_a_recorded_parent_taints_a_model_that_has_nothing_of_it(
    made: tuple[MethodCase, Samples],
) -> None:
    case, _ = made
    assert case.subjects["average"].parents == ("root",)
    assert case.upstream("average") == ("root",)
    original, again = case.subjects["average"].original, case.replay()["average"]
    assert all(torch.equal(value, again[name]) for name, value in original.items())


def test_wrong_labels_are_of_other_classes() -> None:
    targets = torch.arange(8).repeat(50)
    wrong = mislabelled(targets, 3, 8)
    assert not (wrong == targets).any()
    assert set(wrong.tolist()) == set(range(8))
