"""Cases, subjects and their views: what fits together, and what a method cannot see."""

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from disinherit.common.errors import DataError, GraphError
from disinherit.simulations.bench.cases.subjects import Case, Samples, Subject
from tests.support.case import FORGOTTEN, digits_case


def samples(*targets: int) -> Samples:
    found = torch.tensor(targets, dtype=torch.int64)
    return Samples(found.float().unsqueeze(1), found)


@pytest.fixture
def case() -> Case:
    return digits_case()


def test_a_replay_is_exact(case: Case) -> None:
    again = case.replay()
    assert list(again) == list(case.subjects)
    for name, subject in case.subjects.items():
        assert all(torch.equal(again[name][key], subject.retrained[key]) for key in again[name])


@pytest.mark.parametrize("granularity", ["class", "memorised"])
def test_a_view_has_nothing_to_be_measured_with(granularity: Any) -> None:
    view = digits_case(granularity=granularity).view()
    hidden = {"retrained", "test_forget", "test_retain", "retrain_seconds"}
    assert not any(hasattr(view, name) for name in hidden)
    for subject in view.subjects.values():
        assert not isinstance(subject, Subject)
        assert not any(hasattr(subject, name) for name in hidden)


def test_upstream_roots_and_forgotten_classes(case: Case) -> None:
    assert {m: case.upstream(m) for m in case.subjects} == dict.fromkeys(case.subjects, ("r1",))
    assert case.forgotten("r3") == (FORGOTTEN,)
    assert digits_case(granularity="memorised").forgotten("r3") == ()


def test_a_model_is_below_only_its_own_roots(case: Case) -> None:
    two = dataclasses.replace(
        case,
        roots={"r2": ("5",), "r1": ("3",)},
        forget_at_root={"r1": case.subjects["r1"].forget, "r2": case.subjects["r2"].retain.of([5])},
    )
    assert {m: two.upstream(m) for m in two.subjects} == {
        "r1": ("r1",),
        "r2": ("r2", "r1"),
        "r3": ("r2", "r1"),
    }
    assert two.forgotten("r1") == (3,)
    assert two.forgotten("r3") == (3, 5)


def test_what_to_forget_is_inherited_and_ones_own(case: Case) -> None:
    root, child = case.subjects["r1"], case.subjects["r2"]
    assert len(case.to_forget("r1")) == len(root.forget)
    assert len(case.to_forget("r2")) == len(root.forget) + len(child.forget)
    assert set(case.to_forget("r2").targets.tolist()) == {FORGOTTEN}


def test_inherited_samples_are_relabelled_by_class_name(case: Case) -> None:
    child = case.subjects["r3"]
    empty: dict[str, Any] = dict.fromkeys(_SPLITS, samples())
    other = dataclasses.replace(child, labels=("x", "3"), parents=("r1",), **empty)
    case = dataclasses.replace(case, subjects={"r1": case.subjects["r1"], "r3": other})
    assert case.forgotten("r3") == (1,)
    assert set(case.to_forget("r3").targets.tolist()) == {1}
    unknown = dataclasses.replace(other, labels=("x", "y"))
    case = dataclasses.replace(case, subjects={"r1": case.subjects["r1"], "r3": unknown})
    assert len(case.to_forget("r3")) == 0


_SPLITS = ("forget", "retain", "tuning", "test_forget", "test_retain")


def test_a_builder_can_be_sent_to_another_process(case: Case) -> None:
    subject = case.subjects["r1"]
    network = pickle.loads(pickle.dumps(subject.build))()
    network.load_state_dict(subject.original)


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        (torch.zeros(2, 1), torch.zeros(2)),
        (torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.int64)),
        (torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64)),
    ],
)
def test_samples_that_do_not_fit_are_refused(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    with pytest.raises(DataError, match="Expected"):
        Samples(inputs, targets)


@pytest.mark.parametrize("split", _SPLITS)
@pytest.mark.parametrize("target", [-1, 10])
def test_a_subject_has_only_its_own_classes(case: Case, split: str, target: int) -> None:
    changed: Any = {split: samples(1, target)}
    with pytest.raises(DataError, match=f"{split} samples of model 'r1'"):
        dataclasses.replace(case.subjects["r1"], **changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("a", "a")}, "distinct labels"),
        ({"parents": ("base", "base")}, "distinct parents"),
        ({"retrained": {}}, "retrained weights of model 'r1'"),
    ],
)
def test_a_subject_that_does_not_fit_is_refused(
    case: Case, changes: dict[str, Any], message: str
) -> None:
    empty: dict[str, Any] = dict.fromkeys(_SPLITS, samples())
    with pytest.raises((DataError, GraphError), match=message):
        dataclasses.replace(case.subjects["r1"], **(empty | changes))


def _wrong_order(case: Case) -> dict[str, Any]:
    return {"subjects": dict(reversed(list(case.subjects.items())))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (_wrong_order, "Expected the parents of model"),
        (lambda case: {"subjects": {"x": case.subjects["r1"]}, **_at(case, "x")}, "under its id"),
        (lambda case: {"roots": {}, "forget_at_root": {}}, "at least one root"),
        (lambda case: {"forget_at_root": {}}, "at least one root"),
        (lambda case: _at(case, "base"), "root 'base' among the subjects"),
        (lambda case: _at(case, "r3"), "'r1' does not"),
        (lambda case: {"roots": {"r1": ("11",)}}, "'11', which is none"),
        (lambda case: {"roots": {"r1": ()}}, "Expected classes to forget"),
        (lambda case: {"granularity": "samples"}, "Expected no class to forget"),
        (lambda case: {"granularity": "model"}, "Expected a granularity"),
        (lambda case: {"forget_at_root": {"r1": samples()}}, "samples to forget at root 'r1'"),
    ],
)
def test_a_case_that_does_not_fit_is_refused(
    case: Case, changes: Callable[[Case], dict[str, Any]], message: str
) -> None:
    with pytest.raises((DataError, GraphError), match=message):
        dataclasses.replace(case, **changes(case))


def _at(case: Case, root: str) -> dict[str, Any]:
    return {"roots": {root: ("3",)}, "forget_at_root": {root: case.forget_at_root["r1"]}}
