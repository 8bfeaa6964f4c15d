"""Comparison of Fishers: a copy of a root has scale 1 and score 1 for any request."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disinherit.client.dampening.comparison import Comparison, Inherited, Own
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import make_method
from tests.support.owner import LABELS, PointsOwner, direct_transport


def results(
    folder: Path, holds: Sequence[str], forget: Sequence[str], **method: Any
) -> dict[str, pb.ModelResult]:
    """Forget classes in a root and in its copy, whose owner holds the samples of some classes."""
    with PointsOwner(folder / "anna", "anna", tuning=False) as owner:
        root = owner.train("root", LABELS, created_us=1)
        weights = owner.store.weights("root")
        copy = owner.store.add(_copy(root, {name: 24 for name in LABELS if name in holds}), weights)
    with closing(CoordinatorStore(folder / "c.db")) as store:
        store.add_model(root, [])
        store.add_model(copy, [Inheritance("root", "copy", InheritanceKind.TRANSFER)])
        coordinator = Coordinator(store, direct_transport(folder, ["anna"], tuning=False))
        assert not coordinator.register(["anna"], "all")
        request = pb.UnlearningRequest(
            id="q",
            reason="r",
            roots=[pb.Root(model_id="root", classes=forget)],
            method=make_method(rescale=True, **method).to_proto(),
        )
        coordinator.submit(request)
        tasks = coordinator.run("q").tasks
    found = {model: task.result for model, task in tasks.items()}
    assert all(found.values()), {model: task.reason for model, task in tasks.items()}
    return {model: result for model, result in found.items() if result is not None}


def _copy(root: ModelRecord, counts: dict[str, int]) -> ModelRecord:
    return replace(
        root, id="copy", created_us=2, provenance=Provenance("points", counts), fisher_digest=""
    )


@settings(max_examples=20, deadline=None)
@given(
    forget=st.sets(st.sampled_from(LABELS[:3]), min_size=1),
    lacks=st.sets(st.sampled_from(LABELS[:3]), max_size=2),
    merge=st.sampled_from(["max", "mean", "sum"]),
    scope=st.sampled_from(["head", "all", "2.weight", "0.*"]),
    row_scoped=st.booleans(),
)
def test_a_copy_has_scale_one_and_score_one(
    tmp_path_factory: pytest.TempPathFactory,
    forget: set[str],
    lacks: set[str],
    merge: str,
    scope: str,
    row_scoped: bool,
) -> None:
    holds = [name for name in LABELS if name not in lacks]
    found = results(
        tmp_path_factory.mktemp("copy"),
        holds,
        sorted(forget),
        merge=merge,
        scope=scope,
        row_scoped=row_scoped,
        min_inheritance=0.999,
    )["copy"]
    if forget - lacks:
        assert found.scale == pytest.approx(1.0, rel=1e-6)
        assert found.inheritance == pytest.approx(1.0, rel=1e-6)
    else:
        # Nothing of these classes to compare, and nothing to show harm; if not only rows of a part
        # of the head can be selected, which are never spared.
        never_spared = scope == "2.weight" and row_scoped
        assert found.scale <= 1 if never_spared else found.scale >= 1
        assert not found.HasField("inheritance")


def test_a_copy_that_holds_some_of_the_classes_is_dampened_as_its_root_is(tmp_path: Path) -> None:
    """Its retained classes are the same, so the selection in all layers is the same."""
    method = {"scope": "all", "alpha": 2.0}
    found = results(tmp_path, ["cat", "dog", "owl", "yak"], ["cat", "dog"], **method)
    partly = results(tmp_path / "partly", ["cat", "owl", "yak"], ["cat", "dog"], **method)
    digests = {found["copy"].successor.digest, partly["copy"].successor.digest}
    assert digests == {found["root"].successor.digest}


# --- the comparison alone

W = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]), "x": torch.tensor([5.0])}


def inherited(values: float, classes: str = "a", rows: Sequence[int] = (0, 1)) -> Inherited:
    return Inherited({n: v * values for n, v in W.items()}, frozenset(classes), {"w": rows})


def test_only_common_rows_are_compared() -> None:
    """The third row is of a class that the roots do not have: their Fisher is zero there."""
    forget = inherited(2.0)
    forget.values["w"][2] = 0
    reference = {"w": W["w"].clone(), "x": W["x"]}
    comparison = Comparison(forget, None)
    assert comparison.scale(None, reference, spare=False) == pytest.approx(2.0)
    own = Own(reference, frozenset("a"))
    assert comparison.scale(own, reference, spare=False) == pytest.approx(2.0)
    assert comparison.score(own, {}) == pytest.approx(1.0)


@pytest.mark.parametrize(("times", "spared"), [(0.01, 1.0), (50.0, 50.0)])
def test_reference_of_other_classes_scales_down_only_with_tuning_data(
    times: float, spared: float
) -> None:
    comparison = Comparison(inherited(times), None)
    assert comparison.scale(None, W, spare=False) == pytest.approx(times)
    assert comparison.scale(None, W, spare=True) == pytest.approx(spared)
    samples = Comparison(inherited(times, classes=""), None)
    assert samples.scale(None, W, spare=True) == pytest.approx(times), "samples are like samples"


def test_fishers_of_different_classes_are_not_compared() -> None:
    own = Own(W, frozenset("a"))
    assert Comparison(inherited(3.0, "ab"), None).scale(own, W, spare=False) == 1.0
    assert Comparison(inherited(3.0, "ab"), None).score(own, {}) is None
    both = Comparison(inherited(3.0, "ab"), inherited(7.0, "a"))
    assert both.scale(own, W, spare=True) == pytest.approx(7.0)
    assert both.score(own, {"w": [0]}) == pytest.approx(1.0)


def test_parameters_that_are_left_out_do_not_count() -> None:
    forget = inherited(1.0)
    forget.values["x"].mul_(9)
    comparison = Comparison(forget, None).without(["w"])
    assert comparison.scale(None, W, spare=False) == pytest.approx(9.0)
