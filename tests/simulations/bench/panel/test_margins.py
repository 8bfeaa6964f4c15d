"""Margins of references of other seeds, against the divergence of normal distributions."""

import dataclasses
import math

import pytest
import torch

from disinherit.common.errors import InputError, NotMeasuredError
from disinherit.common.models.membership import confidence
from disinherit.simulations.bench.cases.subjects import Case
from disinherit.simulations.bench.panel.exam import EvaluationContext, PanelSettings
from disinherit.simulations.bench.panel.margins import (
    MOST,
    divergence,
    margin_divergences,
    margins_of,
    train_references,
    without,
)
from disinherit.simulations.bench.panel.measuring import measure
from tests.support.case import digits_case

SETTINGS = PanelSettings(samples=100, relearn_steps=2)


@pytest.fixture(scope="module")
def case() -> Case:
    return digits_case(granularity="memorised")


def draws(*size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*size, generator=generator, dtype=torch.float64)


def test_the_divergence_is_that_of_normal_distributions() -> None:
    margins, references = draws(6), draws(4, 6) * 2
    means = [sum(references[:, sample].tolist()) / 4 for sample in range(6)]
    squares = sum(
        (value - mean) ** 2
        for sample, mean in enumerate(means)
        for value in references[:, sample].tolist()
    )
    spread = math.sqrt(squares / (6 * 3))
    total = 0.0
    for sample, mean in enumerate(means):
        mine = torch.distributions.Normal(margins[sample], spread)
        theirs = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), spread)
        total += torch.distributions.kl_divergence(mine, theirs).item()
    assert divergence(margins, references) == pytest.approx(total / 6)


def test_another_reference_is_at_what_is_said_and_no_sample_counts_for_ever() -> None:
    many = draws(4, 20000)
    assert divergence(many[0], many[1:]) == pytest.approx((1 + 1 / 3) / 2, rel=0.05)
    assert divergence(torch.full((2,), 1e6), draws(3, 2)) == MOST
    assert divergence(torch.zeros(2), torch.zeros(3, 2)) == 0.0


def test_references_are_the_root_retrained_in_other_orders(case: Case) -> None:
    found, again = train_references(case, "r1", 3), train_references(case, "r1", 3)
    for one, other in zip(found, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    layers = [one["features.1.weight"] for one in (*found, case.subjects["r1"].retrained)]
    assert len(layers) == 4
    for position, layer in enumerate(layers):
        assert not any(torch.equal(layer, other) for other in layers[:position])


def test_the_retrained_model_is_one_more_reference_and_the_original_is_not(case: Case) -> None:
    models = train_references(case, "r1", 3)
    known = margins_of(EvaluationContext(case, "r1", SETTINGS), models)
    exam = EvaluationContext(case, "r1", SETTINGS, references=known)
    subject = case.subjects["r1"]
    first = subject.network(models[0])(exam.splits["forget"].inputs).detach()
    expected = confidence(first, exam.splits["forget"].targets)
    torch.testing.assert_close(known["forget"][0], expected)

    retrained, original = (
        measure(exam, weights).values for weights in (subject.retrained, subject.original)
    )

    assert retrained["margin_divergence_forget"] < 2
    assert original["margin_divergence_forget"] > 5 * retrained["margin_divergence_forget"]
    assert retrained["margin_divergence_held_out"] < 2


def test_one_reference_is_compared_with_the_others() -> None:
    known = {"forget": torch.tensor([[1.0], [2.0], [3.0]])}
    assert without(known, 1)["forget"].tolist() == [[1.0], [3.0]]


def test_without_references_the_figure_is_missing_with_its_reason(case: Case) -> None:
    readings = measure(EvaluationContext(case, "r2", SETTINGS), case.subjects["r2"].original)
    assert readings.missing["margin_divergence_forget"] == (
        "no reference was retrained with other seeds"
    )
    asked = EvaluationContext(case, "r2", PanelSettings(samples=100, reference_seeds=3))
    with pytest.raises(NotMeasuredError, match="only roots that retain samples"):
        margin_divergences(asked, asked.original)


def test_a_root_whose_start_or_data_is_no_reference_has_none(case: Case) -> None:
    subject = case.subjects["r1"]
    gone = dataclasses.replace(subject, retain=subject.retain[:0])
    left = dataclasses.replace(case, subjects={**case.subjects, "r1": gone})
    assert train_references(left, "r1", 3) == []
    pair = dataclasses.replace(
        case,
        roots={"r1": (), "r2": ()},
        forget_at_root=dict.fromkeys(("r1", "r2"), subject.forget),
    )
    assert train_references(pair, "r2", 3) == []


@pytest.mark.parametrize("count", [1, 2])
def test_a_spread_of_too_few_is_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"3 or more reference_seeds, or 0, but got {count}"):
        PanelSettings(reference_seeds=count)
