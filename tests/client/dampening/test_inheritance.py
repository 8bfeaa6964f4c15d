"""Inheritance scores: reported by owners, and least scores for unlearning."""

import hashlib
from pathlib import Path

import pytest
from torch import Tensor

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.privacy.policy import ReleasePolicy
from disinherit.common.fiun.comparing import inheritance_score
from disinherit.common.method import Method
from disinherit.common.tensors.checkpoints import tensor_bytes
from disinherit.common.wire.packets import PackedFisher
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import HEAD, collect, make_method, make_task
from tests.support.owner import PointsOwner

KNOW = ("cat", "dog", "owl")


def own_fisher(owner: PointsOwner, model: str) -> dict[str, Tensor]:
    """A model's registered Fisher of cats."""
    registered = owner.store.fishers(model)
    assert registered is not None
    return {name: registered[0].over([0]).values[name] for name in HEAD}


def results(folder: Path, method: Method, *, tuning: bool) -> dict[str, pb.ModelResult]:
    """Forget cats in a root, in a model that learned them independently, and in a descendant."""
    with PointsOwner(folder, "anna", tuning=tuning) as owner:
        owner.train("root", KNOW, created_us=1)
        owner.train("apart", KNOW, created_us=2, steps=3)
        owner.train("heir", ("dog", "owl"), created_us=3, start=[owner.store.weights("root")])
        register(owner, pb.RegisterTask(scope="head"))
        packet = collect(owner, "root", ["cat"], method)
        task = make_task(owner, ["root", "apart", "heir"], packet, method)
        found = {result.model_id: result for result in unlearn(owner, task).models}
        for model, result in found.items():
            if result.outcome == pb.OUTCOME_FAILED:
                before = owner.store.record(model)
                assert owner.store.applied("forget", before.digest, model) is None
        over = {model: own_fisher(owner, model) for model in ("root", "apart")}
    expected = inheritance_score(over["root"], over["apart"], {name: [0] for name in HEAD})
    if "apart" in found and not found["apart"].error:
        assert found["apart"].inheritance == pytest.approx(expected, rel=1e-6)
    return found


@pytest.mark.parametrize("tuned", [True, False])
def test_every_model_is_compared_before_it_is_changed(tmp_path: Path, tuned: bool) -> None:
    method = make_method(**(dict.fromkeys(("alpha", "lam", "gauge")) if tuned else {}))

    found = results(tmp_path, method, tuning=tuned)

    assert all(result.outcome != pb.OUTCOME_FAILED for result in found.values()), found
    assert found["root"].inheritance == pytest.approx(1.0)
    assert 0 < found["apart"].inheritance < 0.999
    assert not found["heir"].HasField("inheritance"), "it has no cats of its own to compare with"


@pytest.mark.parametrize("tuned", [True, False])
def test_model_below_the_least_score_is_unchanged(tmp_path: Path, tuned: bool) -> None:
    method = make_method(
        min_inheritance=0.9999, **(dict.fromkeys(("alpha", "lam", "gauge")) if tuned else {})
    )

    found = results(tmp_path, method, tuning=tuned)

    assert found["root"].outcome == found["heir"].outcome == pb.OUTCOME_APPLIED
    assert found["apart"].outcome == pb.OUTCOME_FAILED
    assert "similarity >= 0.9999" in found["apart"].error
    assert "Make it a root, or retrain it" in found["apart"].error


@pytest.mark.parametrize("tuned", [True, False])
def test_the_scale_of_the_roots_fisher_does_not_matter(tmp_path: Path, tuned: bool) -> None:
    """The Fisher of an overfitted root is small everywhere, and as informative for a descendant.

    Smaller than even the reference of a descendant that is overfitted, too.
    """
    method = make_method(
        row_scoped=False,
        rescale=True,
        **(dict.fromkeys(("alpha", "lam", "gauge")) if tuned else {}),
    )
    digests = []
    for folder, times in (("small", 2.0**-50), ("tiny", 2.0**-60)):
        with PointsOwner(tmp_path / folder, "anna", tuning=tuned) as owner:
            owner.train("root", KNOW, created_us=1)
            owner.train("apart", KNOW, created_us=2, steps=3)
            owner.train("heir", ("dog", "owl"), created_us=3, start=[owner.store.weights("root")])
            register(owner, pb.RegisterTask(scope="head"))
            packet = collect(owner, "root", ["cat"], method)
            smaller = {
                n: value * times for n, value in PackedFisher.from_packet(packet).values.items()
            }
            packet.tensors = tensor_bytes(smaller)
            packet.digest = hashlib.sha256(packet.tensors).hexdigest()
            task = make_task(owner, ["apart", "heir"], packet, method)
            found = {result.model_id: result for result in unlearn(owner, task).models}
            own = own_fisher(owner, "apart")
        assert all(result.outcome != pb.OUTCOME_FAILED for result in found.values()), found
        assert found["apart"].outcome == pb.OUTCOME_APPLIED, found
        totals = [sum(float(v.double().sum()) for v in f.values()) for f in (smaller, own)]
        assert found["apart"].scale == pytest.approx(totals[0] / totals[1], rel=1e-6)
        # The descendant has no cats and no tuning data, so its Fisher of other classes scales
        # nothing down.
        assert found["heir"].scale == 1
        digests.append(found["apart"].successor.digest)
    assert digests[0] == digests[1]


def test_unset_options_have_their_defaults(tmp_path: Path) -> None:
    """A request without `rescale` has it set."""
    digests = {}
    for rescale in (None, True, False):
        method = make_method(rescale=rescale is not False, row_scoped=False)
        with PointsOwner(tmp_path / str(rescale), "anna", tuning=False) as owner:
            owner.train("root", KNOW, created_us=1)
            owner.train("apart", KNOW, created_us=2, steps=3)
            register(owner, pb.RegisterTask(scope="head"))
            packet = collect(owner, "root", ["cat"], method)
            task = make_task(owner, ["apart"], packet, method)
            if rescale is None:
                task.method.ClearField("rescale")
            (found,) = unlearn(owner, task).models
        digests[rescale] = found.successor.digest
        assert (found.scale == 1) == (rescale is False)
    assert digests[None] == digests[True] != digests[False]


@pytest.mark.parametrize("rescale", [True, False])
def test_root_is_compared_with_itself_unscaled(tmp_path: Path, rescale: bool) -> None:
    method = make_method(rescale=rescale)
    with PointsOwner(tmp_path, "anna", tuning=False) as owner:
        owner.train("root", KNOW, created_us=1)
        register(owner, pb.RegisterTask(scope="head"))
        task = make_task(owner, ["root"], collect(owner, "root", ["cat"], method), method)
        (found,) = unlearn(owner, task).models
    assert found.scale == 1


@pytest.mark.parametrize("rescale", [True, False])
def test_clipped_root_is_compared_at_the_scale_of_its_clipped_fisher(
    tmp_path: Path, rescale: bool
) -> None:
    """Otherwise it would not forget, since its own reference is not clipped."""
    method = make_method(rescale=rescale, row_scoped=False)
    with PointsOwner(tmp_path, "anna", tuning=False) as owner:
        owner.train("root", KNOW, created_us=1)
        register(owner, pb.RegisterTask(scope="head"))
        packet = collect(owner, "root", ["cat"], method, ReleasePolicy(clip_norm=1e-9))
        assert packet.clip_norm == 1e-9
        fishers = PackedFisher.from_packet(packet).values, own_fisher(owner, "root")
        (found,) = unlearn(owner, make_task(owner, ["root"], packet, method)).models
    sent, own = (sum(float(v.double().sum()) for v in one.values()) for one in fishers)
    assert found.scale == pytest.approx(sent / own if rescale else 1.0, rel=1e-6)
    # Without scaling, the clipped Fisher is too small to select relevant parameters.
    expected = pb.OUTCOME_APPLIED if rescale else pb.OUTCOME_INEFFECTIVE
    assert found.outcome == expected


@pytest.mark.parametrize("row_scoped", [True, False])
def test_rows_of_forgotten_classes_are_never_spared(tmp_path: Path, row_scoped: bool) -> None:
    """A model that fits its data better than the root has a small Fisher, and is dampened, too."""
    method = make_method(rescale=True, row_scoped=row_scoped)
    with PointsOwner(tmp_path, "anna", tuning=False) as owner:
        owner.train("root", KNOW, created_us=1, steps=3)
        owner.train("apart", KNOW, created_us=2, steps=300)
        register(owner, pb.RegisterTask(scope="head"))
        packet = collect(owner, "root", ["cat"], method)
        (found,) = unlearn(owner, make_task(owner, ["apart"], packet, method)).models
    assert found.scale == 1 if row_scoped else found.scale > 1
