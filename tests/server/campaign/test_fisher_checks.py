"""Plausibility of a root's Fisher information, by its registered scale."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import FisherError
from disinherit.common.graph.records import FisherScale, ModelRecord, Provenance
from disinherit.common.wire.packets import PackedFisher
from disinherit.server.campaign.dry_pass import bound_by
from disinherit.server.campaign.fisher_checks import SLACK, check_scale
from disinherit.v1 import unlearning_pb2 as pb

CLASSES = ("cat", "dog", "owl")
COUNTS = {"cat": 4, "dog": 2, "owl": 10}


def packet(classes: tuple[str, ...], mean: float, samples: int) -> PackedFisher:
    """Values of a head that sum to `mean`, beside others that sum to as much."""
    return PackedFisher(
        values={"head": torch.full((3, 2), mean / 6), "deep": torch.full((4,), mean / 4)},
        labels=CLASSES,
        head_weight="head",
        head_bias="",
        sources=("r",),
        classes=classes,
        samples=samples,
    )


def root(sums: tuple[float, ...] = (8.0, 2.0, 30.0), scope: str = "all") -> ModelRecord:
    return ModelRecord(
        id="r",
        owner="anna",
        architecture="",
        labels=CLASSES,
        digest="ab",
        created_us=1,
        provenance=Provenance("set", COUNTS),
        fisher_scale=FisherScale(scope, sums),
    )


BY_CLASS = pb.Root(model_id="r", classes=["cat"])
OF_CLIENT = pb.Root(model_id="r")
OF_SAMPLES = pb.Root(model_id="r", samples=["ab" * 32] * 5)


@given(
    st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), min_size=3, max_size=3),
    st.data(),
)
def test_true_fisher_always_passes(squares: list[list[float]], data: st.DataObject) -> None:
    """Squared gradients per sample of each class; a class, all, or any subset of the samples."""
    record = replace(
        root(tuple(sum(of_class) for of_class in squares)),
        provenance=Provenance("set", dict(zip(CLASSES, map(len, squares), strict=True))),
    )
    everything = [value for of_class in squares for value in of_class]
    some = data.draw(st.lists(st.sampled_from(range(len(everything))), min_size=1, unique=True))
    for asked, classes, behind in (
        (BY_CLASS, ("cat",), squares[0]),
        (OF_CLIENT, (), everything),
        (pb.Root(samples=["ab"] * len(some)), (), [everything[i] for i in some]),
    ):
        mean = sum(behind) / len(behind)
        sent = packet(classes, mean / 2, len(behind))  # the other half is in deeper layers
        check_scale(asked, record, "all", [sent])


@pytest.mark.parametrize(
    ("asked", "classes", "samples", "most"),
    [(BY_CLASS, ("cat",), 4, 8.0), (OF_CLIENT, (), 16, 40.0), (OF_SAMPLES, (), 5, 40.0)],
)
def test_fisher_above_the_bound_is_refused(
    asked: pb.Root, classes: tuple[str, ...], samples: int, most: float
) -> None:
    def mean(total: float) -> float:
        return total / samples / 2

    check_scale(asked, root(), "all", [packet(classes, mean(0.99 * SLACK * most), samples)])
    with pytest.raises(FisherError, match="more than 2 times as much"):
        check_scale(asked, root(), "all", [packet(classes, mean(1.01 * SLACK * most), samples)])


def test_reporting_fewer_samples_does_not_pass_the_check() -> None:
    with pytest.raises(FisherError, match="more than 2 times"):
        check_scale(BY_CLASS, root(), "all", [packet(("cat",), 10.0, 1)])
    with pytest.raises(FisherError, match="the 5 samples that the request names, but .* of 1"):
        check_scale(OF_SAMPLES, root(), "all", [packet((), 10.0, 1)])


@pytest.mark.parametrize(
    ("record", "scope", "refused"),
    [
        (lambda: root(scope="all"), "head", True),
        (lambda: root(scope="head"), "all", True),  # of the head alone
        (lambda: root(scope="head"), "head", True),
        (lambda: root(scope="deep*"), "deep*", True),
        (lambda: root(scope="deep*"), "all", False),
        (lambda: replace(root(), fisher_scale=None), "all", False),
    ],
)
def test_only_what_was_registered_can_be_compared(
    record: Callable[[], ModelRecord], scope: str, refused: Any
) -> None:
    sent = [packet(("cat",), 100.0, 4)]
    if refused:
        with pytest.raises(FisherError, match="more than 2 times"):
            check_scale(BY_CLASS, record(), scope, sent)
    else:
        check_scale(BY_CLASS, record(), scope, sent)


@pytest.mark.parametrize(
    "said",
    [
        {"clip_norm": math.nan},
        {"clip_norm": math.inf},
        {"clip_norm": -1.0},
        {"noise": math.nan},
        {"noise": -1.0},
        {"samples": 0},
        {"samples": -5},
    ],
)
def test_non_finite_numbers_are_refused(said: dict[str, Any]) -> None:
    good = packet(("cat",), 1.0, 4)
    check_scale(BY_CLASS, root(), "all", [good])
    with pytest.raises(FisherError, match="finite clip_norm|finite noise|at least one sample"):
        check_scale(BY_CLASS, root(), "all", [replace(good, **said)])


def test_noise_allows_no_more_than_the_bound_again() -> None:
    def noisy(total: float) -> PackedFisher:
        return replace(packet(("cat",), total / 4 / 2, 4), clip_norm=1e308, noise=1e308)

    check_scale(BY_CLASS, root(), "all", [noisy(2.9 * 8)])
    for total in (3.1 * 8, 8e6, math.inf):
        with pytest.raises(FisherError, match="more than 2 times"):
            check_scale(BY_CLASS, root(), "all", [noisy(total)])


def test_scale_registered_before_the_request_bounds_the_answer() -> None:
    before = root()
    now = replace(
        before,
        fisher_digest="1f",
        fisher_scale=FisherScale("all", (8e6, 2e6, 3e7)),
        provenance=None,
    )
    assert bound_by(now, before).fisher_scale == before.fisher_scale
    assert bound_by(now, before).provenance == before.provenance
    assert bound_by(now, None) == bound_by(now, replace(before, fisher_scale=None)) == now
