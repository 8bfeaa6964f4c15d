"""The panel on a small real case: what original, retrained and broken models look like in it."""

import dataclasses
from typing import Any

import pytest
import torch

from disinherit.simulations.bench.cases.subjects import Case, Granularity, Samples
from disinherit.simulations.bench.panel.exam import EvaluationContext, PanelSettings
from disinherit.simulations.bench.panel.measuring import METRICS, Metrics, measure
from disinherit.simulations.bench.panel.sanity import check_gates, overlaps, remembers
from disinherit.simulations.bench.panel.shadows import Shadows, train_shadows
from tests.support.case import digits_case

SETTINGS = PanelSettings(samples=300, relearn_steps=80)


@pytest.fixture(scope="module", params=["class", "memorised"])
def granularity(request: pytest.FixtureRequest) -> Granularity:
    chosen: Granularity = request.param
    return chosen


@pytest.fixture(scope="module")
def case(granularity: Granularity) -> Case:
    return digits_case(granularity=granularity)


@pytest.fixture(scope="module")
def shadows(case: Case) -> Shadows:
    found = train_shadows(case, "r1", 8)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def panels(case: Case, shadows: Shadows) -> dict[str, dict[str, Metrics]]:
    exams = {
        model: EvaluationContext(case, model, SETTINGS, {"r1": shadows}) for model in case.subjects
    }
    return {
        "original": {m: measure(e, e.subject.original) for m, e in exams.items()},
        "retrained": {m: measure(e, e.subject.retrained) for m, e in exams.items()},
    }


def test_every_metric_has_values_or_a_reason(panels: dict[str, dict[str, Metrics]]) -> None:
    for panel in panels.values():
        for readings in panel.values():
            found = {name.partition("/")[0] for name in readings.values}
            for names in METRICS:
                for name in names:
                    assert (name in found) != (name in readings.missing), name
            assert all(readings.missing.values())


def test_retraining_is_its_own_reference(panels: dict[str, dict[str, Metrics]]) -> None:
    for readings in panels["retrained"].values():
        assert readings.values["tug_of_war"] == 1.0
        for name, value in readings.values.items():
            if name.startswith(("js_divergence", "logit_distance", "neighbour_leakage")):
                assert value == pytest.approx(0.0, abs=1e-9), name


def test_the_gates_let_a_sound_case_through(
    case: Case, panels: dict[str, dict[str, Metrics]]
) -> None:
    assert check_gates(case, SETTINGS, panels["original"], panels["retrained"]) == []


def test_the_gates_stop_a_case_that_shows_nothing(
    case: Case, panels: dict[str, dict[str, Metrics]]
) -> None:
    (wrong,) = check_gates(case, SETTINGS, panels["retrained"], panels["retrained"])
    assert wrong.startswith("The original r1 passes")
    swapped = check_gates(case, SETTINGS, panels["original"], panels["original"])
    assert any(reason.startswith("The retrained r1 fails the panel: ") for reason in swapped)


def test_the_attack_finds_members_of_the_original_only(
    case: Case, panels: dict[str, dict[str, Metrics]]
) -> None:
    if case.by_class:
        pytest.skip("well-known classes have few samples that are learnt by heart")
    assert panels["original"]["r1"].values["lira_tpr"] > 50
    assert panels["retrained"]["r1"].values["lira_tpr"] < 10
    assert remembers(case, SETTINGS, "r1", panels["original"]["r1"]).startswith("lira_auc is 0.9")


def test_what_is_known_need_not_be_relearned(
    case: Case, panels: dict[str, dict[str, Metrics]]
) -> None:
    for name in ("relearn_steps_few_shot", "relearn_steps_retain_only"):
        assert panels["original"]["r1"].values[name] == 0
        assert panels["retrained"]["r1"].values[name] > 0


def test_class_accuracies_add_up(case: Case, panels: dict[str, dict[str, Metrics]]) -> None:
    subject = case.subjects["r1"]
    values = panels["original"]["r1"].values
    tested = Samples.joined([subject.test_forget, subject.test_retain])
    total = sum(
        values[f"class_accuracy/{name}"] * len(tested.of([index]))
        for index, name in enumerate(subject.labels)
    )
    assert values["test_accuracy"] == pytest.approx(total / len(tested))
    right = subject.network(subject.original)(tested.inputs).argmax(dim=1) == tested.targets
    assert values["test_accuracy"] == pytest.approx(100 * right.double().mean().item())


def test_measuring_leaves_the_weights_alone(case: Case) -> None:
    exam = EvaluationContext(case, "r1", SETTINGS)
    before = {name: value.clone() for name, value in exam.subject.original.items()}
    measure(exam, exam.subject.original)
    assert all(torch.equal(before[name], exam.subject.original[name]) for name in before)


def test_without_shadow_models_the_attack_is_missing_with_its_reason(case: Case) -> None:
    readings = measure(EvaluationContext(case, "r1", SETTINGS), case.subjects["r1"].original)
    assert "no shadow models" in readings.missing["lira_tpr"]
    assert "lira_tpr" not in readings.values


def test_outputs_that_are_not_finite_are_no_figures(case: Case) -> None:
    exam = EvaluationContext(case, "r1", SETTINGS)
    broken = {name: value * torch.nan for name, value in exam.subject.original.items()}
    readings = measure(exam, broken)
    assert "not finite" in readings.missing["js_divergence_retain"]
    assert all(value == value for value in readings.values.values())


@pytest.mark.parametrize("split", ["tuning", "test_retain"])
def test_splits_that_share_samples_are_found(case: Case, split: str) -> None:
    subject = case.subjects["r1"]
    assert overlaps(subject) == []
    leaked = Samples.joined([getattr(subject, split), subject.retain[:20]])
    changed: Any = {split: leaked}
    (reason,) = overlaps(dataclasses.replace(subject, **changed))
    assert f"retain and {split} of r1" in reason
    assert "20 of" in reason
