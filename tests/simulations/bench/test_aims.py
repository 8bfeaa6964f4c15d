"""Aims are met or not, and it is the figures that say so."""

import pytest

from disinherit.simulations.bench.aims import judge
from tests.support.bench import Record, cell, entry

AIMS = ("ours", "head-reset")


def by_class(method: str, seed: int, forget: float, retain: float, distance: float) -> Record:
    return cell(
        method,
        seed,
        {
            "forget_accuracy": entry(forget),
            "retain_accuracy": entry(90.0 + retain, 90.0),
            "js_divergence_forget": entry(distance),
            "js_divergence_retain": entry(distance),
        },
        seconds=200.0 if method == "retraining" else 1.0,
    )


def test_a_class_request_that_reaches_every_aim() -> None:
    cells = [
        one
        for seed in range(3)
        for one in (
            by_class("ours", seed, 0.5, -0.5, 0.1),
            by_class("head-reset", seed, 0.5, -0.5, 0.2),
            by_class("retraining", seed, 0.0, 0.0, 0.0),
        )
    ]

    judged = judge(cells, *AIMS)

    assert [one.met for one in judged] == [True] * 4
    assert judged[1].figure == "-0.50 ± 0.00 points"
    assert judged[2].figure == "200 times"
    assert judged[3].figure.startswith("closer: JS divergence, forgotten, bits; JS divergence")


def test_a_class_request_that_misses_every_aim() -> None:
    cells = [
        one
        for seed in range(3)
        for one in (
            by_class("ours", seed, 0.51, -0.51, 0.3),
            by_class("head-reset", seed, 0.51, -0.51, 0.2),
            cell("retraining", seed, {"forget_accuracy": entry(0.0)}, seconds=99.0),
        )
    ]

    assert [one.met for one in judge(cells, *AIMS)] == [False] * 4


def test_several_classes_may_lose_more() -> None:
    cells = [by_class("ours", seed, 0.0, -0.9, 0.1) | {"granularity": "classes"} for seed in (0, 1)]

    retain = judge(cells, *AIMS)[1]

    assert retain.met
    assert "1.0 points" in retain.aim


@pytest.mark.parametrize(
    ("attacks", "test", "met"),
    [
        ([8.0, 12.0, 9.0], -0.9, [True, True]),
        ([30.0, 31.0, 32.0], -1.1, [False, False]),
        ([1.0, 2.0, 3.0], 1.1, [True, False]),
    ],
)
def test_samples_are_judged_by_the_attack(
    attacks: list[float], test: float, met: list[bool]
) -> None:
    cells = [
        cell(
            "ours",
            seed,
            {"lira_tpr": entry(attack, 10.0), "test_accuracy": entry(90.0 + test, 90.0)},
            granularity="samples",
        )
        for seed, attack in enumerate(attacks)
    ]

    judged = judge(cells, *AIMS)

    assert [one.met for one in judged[:2]] == met
    assert judged[2].met is None, "nothing was retrained here, so there is no clock to compare"


def test_an_attack_that_was_not_made_meets_no_aim() -> None:
    metrics = {"lira_tpr": entry(None), "test_accuracy": entry(None)}
    cells = [cell("ours", 0, metrics, granularity="client")]

    assert [one.met for one in judge(cells, *AIMS)] == [None, None, None]


def test_a_method_that_was_not_run_is_not_judged() -> None:
    assert judge([by_class("head-reset", 0, 0.0, 0.0, 0.0)], *AIMS) == []
