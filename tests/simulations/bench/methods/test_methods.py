"""Every installed method on a small real case, and each one's own rule."""

import dataclasses
import importlib.metadata
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.owner.owner import Retrains
from disinherit.client.roots import ekfac
from disinherit.common.errors import InputError, NotApplicableError
from disinherit.common.fiun.merging import merge_fishers
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.simulations.bench.cases.subjects import MethodCase, Samples, Weights
from disinherit.simulations.bench.methods.ascent import GradientAscent
from disinherit.simulations.bench.methods.campaign import replayed, size
from disinherit.simulations.bench.methods.case_owner import (
    owners_of,
    samples_to_forget,
    trained_on,
)
from disinherit.simulations.bench.methods.head_reset import HeadReset
from disinherit.simulations.bench.methods.method import (
    GROUP,
    Unlearned,
    known_methods,
    make_method,
    unlearn,
)
from disinherit.simulations.bench.methods.ours import InheritanceUnlearning
from disinherit.simulations.bench.methods.published import PublishedFiun
from disinherit.simulations.bench.methods.reference import Retraining
from disinherit.simulations.bench.methods.ssd import (
    Dampening,
    batch_importance,
    dampened,
    fisher,
)
from disinherit.simulations.bench.methods.training import FineTuning
from disinherit.simulations.bench.methods.tuning import BUDGET, Tuner, score_of
from tests.support.case import FORGOTTEN, digits_case

HEAD = ("head.weight", "head.bias")


@pytest.fixture
def case() -> MethodCase:
    return digits_case().view()


@pytest.fixture
def memorised() -> MethodCase:
    return digits_case(granularity="memorised").view()


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def clone(case: MethodCase) -> dict[str, Weights]:
    return {m: {k: v.clone() for k, v in s.original.items()} for m, s in case.subjects.items()}


@pytest.mark.parametrize("granularity", ["class", "memorised"])
@pytest.mark.parametrize("name", known_methods())
def test_every_method_makes_whole_models_and_leaves_the_old_ones(
    name: str, granularity: Any
) -> None:
    case = digits_case(granularity=granularity).view()
    before = clone(case)
    method = make_method(name, {})
    if name in ("head-reset", "class-changes", "damp") and granularity == "memorised":
        with pytest.raises(NotApplicableError, match="none for samples"):
            unlearn(method, case)
        return
    made = unlearn(method, case)
    assert list(made.weights) == list(case.subjects)
    for model, subject in case.subjects.items():
        assert same(subject.original, before[model])
        assert all(bool(value.isfinite().all()) for value in made.weights[model].values())
        changed = not same(made.weights[model], before[model])
        own = name in ("ssd",) and not len(subject.forget)
        assert changed == (name != "no-op" and not own), model
    assert set(made.sent) <= {subject.owner for subject in case.subjects.values()}


def test_the_same_call_gives_the_same_weights(case: MethodCase) -> None:
    for name in ("ours", "gradient-ascent", "distillation"):
        one, two = (unlearn(make_method(name, {}), case) for _ in range(2))
        assert all(same(one.weights[m], two.weights[m]) for m in case.subjects)


def test_retraining_is_the_reference() -> None:
    case = digits_case()
    made = unlearn(Retraining(), case.view())
    assert all(same(made.weights[m], case.subjects[m].retrained) for m in case.subjects)


def test_ours_changes_only_the_forgotten_row(case: MethodCase) -> None:
    made = unlearn(InheritanceUnlearning(), case)
    others = [c for c in range(10) if c != FORGOTTEN]
    for model, subject in case.subjects.items():
        new, old = made.weights[model], subject.original
        assert all(torch.equal(new[k], old[k]) for k in new if k not in HEAD)
        for name, margin in zip(HEAD, (0.0, 5.0), strict=True):
            assert torch.equal(new[name][others], old[name][others])
            expected = old[name][others].mean(dim=0) - margin
            assert torch.allclose(new[name][FORGOTTEN], expected, atol=1e-5)
    assert made.chosen["r1"] == {
        "repair_steps": 0,
        "inheritance": pytest.approx(1.0),
        "scale": 1.0,
        "remedy": "suppressed",
        "changes": {},
    }
    assert made.setup_seconds > 0
    assert made.setup_cpu_seconds > 0
    assert all(made.sent[subject.owner] > 0 for subject in case.subjects.values())


def test_what_was_chosen_is_recorded(case: MethodCase) -> None:
    made = unlearn(InheritanceUnlearning(row_scoped=False, alpha=2.0, lam=0.5), case)
    chosen = made.chosen["r2"]
    assert (chosen["alpha"], chosen["lambda"], chosen["gauge"]) == (2.0, 0.5, 1.0)
    assert chosen["scale"] not in (0, 1)


def test_ours_sends_the_merged_packet_to_every_owner(case: MethodCase) -> None:
    # One class of a head: its packet dominates whatever else a message holds.
    sent = unlearn(InheritanceUnlearning(), case).sent
    packet = size(case.subjects["r1"].original[name] for name in HEAD)
    assert packet < sent["owner-r2"] < 2 * packet
    assert 2 * packet < sent["owner-r1"]  # the root answers with one, too


def test_samples_and_clients_are_forgotten_by_the_deployments_own_code(
    memorised: MethodCase,
) -> None:
    """The Fisher information at the root is that of its samples, the reference that of the rest."""
    method = InheritanceUnlearning(
        scope="all", alpha=2.0, lam=0.5, rescale=False, mechanism="fisher"
    )
    made = unlearn(method, memorised)
    forget = fisher(memorised.subjects["r1"], memorised.forget_at_root["r1"], "all")
    for model, subject in memorised.subjects.items():
        reference = fisher(subject, subject.retain, "all")
        expected = dampened(subject, forget, reference, Dampening(alpha=2.0, lam=0.5))
        for name, value in made.weights[model].items():
            torch.testing.assert_close(value, expected[name])

    client = dataclasses.replace(memorised, granularity="client")
    left = unlearn(method, client)
    assert same(left.weights["r1"], memorised.subjects["r1"].original)
    assert "retire it" in left.chosen["r1"]
    everything = fisher(memorised.subjects["r1"], trained_on(memorised.subjects["r1"]), "all")
    subject = memorised.subjects["r2"]
    reference = fisher(subject, subject.retain, "all")
    expected = dampened(subject, everything, reference, Dampening(alpha=2.0, lam=0.5))
    torch.testing.assert_close(left.weights["r2"], dict(expected))


@pytest.mark.parametrize("mechanism", ["auto", "delta"])
def test_a_leaving_client_retains_nothing_that_its_root_could_be_trained_on(
    memorised: MethodCase, mechanism: Any
) -> None:
    client = dataclasses.replace(memorised, granularity="client")
    method = InheritanceUnlearning(mechanism=mechanism, root_method="neggrad+")
    with pytest.raises(NotApplicableError, match="leaving client"):
        method(client)


def test_a_root_method_that_refuses_a_case_does_not_apply_to_it(
    memorised: MethodCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ekfac, "MOST_RISE", -math.inf)
    with pytest.raises(NotApplicableError, match="Expected a step for root 'r1'"):
        InheritanceUnlearning(mechanism="delta", root_method="ekfac")(memorised)


@pytest.mark.parametrize("all_roots", [False, True])
def test_a_descendant_gets_what_it_inherited_or_as_published_what_any_root_sent(
    memorised: MethodCase, all_roots: bool
) -> None:
    """Two branches: r1 -> r3, and r2, which is younger than r3 in the case."""
    subjects = memorised.subjects
    apart = {
        "r1": subjects["r1"],
        "r3": dataclasses.replace(subjects["r3"], parents=("r1",)),
        "r2": dataclasses.replace(
            subjects["r2"], parents=("base",), forget=subjects["r2"].retain[:9]
        ),
    }
    forgets = {root: apart[root].forget for root in ("r1", "r2")}
    case = dataclasses.replace(
        memorised, subjects=apart, roots={"r1": (), "r2": ()}, forget_at_root=forgets
    )
    method = InheritanceUnlearning(
        scope="all",
        alpha=2.0,
        lam=0.5,
        rescale=False,
        mechanism="fisher",
        all_roots=all_roots,
    )

    made = unlearn(method, case)

    fishers = {root: fisher(apart[root], samples, "all") for root, samples in forgets.items()}
    merged = merge_fishers(list(fishers.values()), "max")
    strength = Dampening(alpha=2.0, lam=0.5)
    for model, packet in {**fishers, "r3": merged if all_roots else fishers["r1"]}.items():
        reference = fisher(apart[model], apart[model].retain, "all")
        expected = dampened(apart[model], packet, reference, strength)
        torch.testing.assert_close(made.weights[model], dict(expected))


def test_repair_trains_on_after_dampening(case: MethodCase) -> None:
    plain, repaired = (unlearn(InheritanceUnlearning(repair_steps=k), case) for k in (0, 5))
    for model in case.subjects:
        assert repaired.chosen[model]["repair_steps"] == 5
        changed = plain.weights[model], repaired.weights[model]
        assert {k for k in changed[0] if not torch.equal(changed[0][k], changed[1][k])} == {*HEAD}


def test_deeper_scope_changes_features(case: MethodCase) -> None:
    made = unlearn(InheritanceUnlearning(scope="all"), case)
    assert not torch.equal(
        made.weights["r1"]["features.1.weight"], case.subjects["r1"].original["features.1.weight"]
    )


def test_head_reset_masks_the_forgotten_row_alone(case: MethodCase) -> None:
    made = unlearn(HeadReset(margin=7.0), case)
    for model, subject in case.subjects.items():
        new, old = made.weights[model], subject.original
        mask = torch.arange(10) != FORGOTTEN
        assert torch.equal(new["head.weight"][mask], old["head.weight"][mask])
        assert torch.equal(new["head.bias"][mask], old["head.bias"][mask])
        assert not new["head.weight"][FORGOTTEN].any()
        assert new["head.bias"][FORGOTTEN] == old["head.bias"].min() - 7


def test_descendants_get_the_difference_that_ascent_made_at_the_root(case: MethodCase) -> None:
    made = unlearn(GradientAscent(scale=0.5), case)

    def change(model: str) -> Tensor:
        old = case.subjects[model].original["features.1.weight"]
        return made.weights[model]["features.1.weight"] - old

    assert change("r1").abs().max() > 1e-4
    for model in ("r2", "r3"):
        assert torch.allclose(change(model), 0.5 * change("r1"), atol=1e-6)
    root = case.subjects["r1"]
    forget = case.forget_at_root["r1"]

    def loss(weights: Weights) -> float:
        return F.cross_entropy(root.network(weights)(forget.inputs), forget.targets).item()

    assert loss(dict(made.weights["r1"])) > loss(root.original)


def test_fine_tuning_never_sees_what_is_to_be_forgotten(case: MethodCase) -> None:
    subject = case.subjects["r1"]
    noise = Samples(torch.rand_like(subject.forget.inputs), subject.forget.targets)
    subjects = {**case.subjects, "r1": dataclasses.replace(subject, forget=noise)}
    other = dataclasses.replace(case, subjects=subjects, forget_at_root={"r1": noise})
    one, two = (unlearn(FineTuning(), c).weights["r1"] for c in (case, other))
    assert same(one, two)


def test_ssd_is_the_textbooks_rule(case: MethodCase) -> None:
    subject = case.subjects["r1"]
    forget = {"head.bias": torch.tensor([4.0, 1.0, 0.0, 9.0] + [0.5] * 6)}
    everything = {"head.bias": torch.tensor([1.0, 1.0, 1.0, 0.0] + [0.5] * 6)}
    new = dampened(subject, forget, everything, Dampening(alpha=2.0, lam=0.5))
    expected = subject.original["head.bias"].clone()
    expected[0] *= 0.5 * 1 / 4
    expected[3] = 0.0
    assert torch.allclose(new["head.bias"], expected)
    assert torch.equal(new["head.weight"], subject.original["head.weight"])


def test_published_importance_squares_the_mean_gradient_of_a_batch() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    samples = Samples(torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0, 0]))
    found = batch_importance(network, samples, ["0.weight", "2.bias"], batch=3)
    expected = {name: torch.zeros_like(network.get_parameter(name)) for name in found}
    for start in (0, 3, 6):
        chosen = range(start, min(start + 3, 7))
        for name, total in expected.items():
            mean = torch.zeros_like(total)
            for index in chosen:
                network.zero_grad()
                logits = network(samples.inputs[index : index + 1])
                F.cross_entropy(logits, samples.targets[index : index + 1]).backward()
                gradient = network.get_parameter(name).grad
                assert gradient is not None
                mean += gradient / len(chosen)
            total += mean**2 / 3
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-9)


def test_published_scaling_is_for_several_roots_only(case: MethodCase) -> None:
    one, two = (unlearn(PublishedFiun(scaling=s), case).weights for s in (1.0, 50.0))
    assert all(same(one[m], two[m]) for m in case.subjects)
    subjects = case.subjects
    pair = dataclasses.replace(
        case,
        roots={"r1": ("3",), "r2": ("3",)},
        forget_at_root={m: subjects[m].forget for m in ("r1", "r2")},
    )
    one, two = (unlearn(PublishedFiun(scaling=s), pair).weights for s in (1.0, 50.0))
    assert same(one["r1"], two["r1"])
    assert not same(one["r3"], two["r3"])


def test_traffic_of_a_replay_is_counted_by_hand(case: MethodCase) -> None:
    model = size(case.subjects["r1"].original.values())
    # r1 receives base and sends itself to r2; r2 receives r1 and sends itself to r3;
    # r3 receives base and r2.
    assert replayed(case) == {
        "owner-r1": 2 * model,
        "owner-r2": 2 * model,
        "owner-r3": 2 * model,
    }


def test_tuning_takes_the_best_and_descendants_without_a_say_follow_their_root(
    memorised: MethodCase,
) -> None:
    tuner = Tuner(memorised, ["ruined", "kept"])
    good = memorised.subjects["r1"].original
    ruined = {name: torch.zeros_like(value) for name, value in good.items()}
    best = tuner.best("r1", lambda c: good if c == "kept" else ruined)
    assert best is good
    child = memorised.subjects["r2"]
    assert not len(child.forget)
    assert tuner.best("r2", lambda c: {c: torch.zeros(1)}) == {"kept": torch.zeros(1)}
    assert tuner.chosen == {"r1": "kept", "r2": "kept"}


def test_tuning_scores_are_what_they_say(case: MethodCase) -> None:
    score = score_of(case, "r1")
    assert score is not None
    subject = case.subjects["r1"]
    right = subject.network(subject.original)(subject.tuning.inputs).argmax(1) == (
        subject.tuning.targets
    )
    mask = subject.tuning.targets == FORGOTTEN
    forget, retain = right[mask].double().mean(), right[~mask].double().mean()
    assert score(subject.original) == pytest.approx(((1 - forget) * retain).item())


@pytest.mark.parametrize("count", [0, BUDGET + 1])
def test_the_budget_is_the_same_for_all(case: MethodCase, count: int) -> None:
    with pytest.raises(InputError, match=f"but got {count}: the budget"):
        Tuner(case, list(range(count)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("magic", {}, "Expected a method among .*ours.*, but got 'magic'"),
        ("ours", {"strength": 3}, "'ours' to take the options {'strength': 3}"),
    ],
)
def test_a_method_that_cannot_be_made_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_method(name, options)


def halve_root(case: MethodCase) -> dict[str, Weights]:
    """An outsider's method: a plain function that returns some weights."""
    return {"r1": {name: value / 2 for name, value in case.subjects["r1"].original.items()}}


def test_outsiders_add_methods_by_entry_points(
    case: MethodCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = importlib.metadata.EntryPoint(
        "halve", "tests.simulations.bench.methods.test_methods:make_halve", GROUP
    )
    monkeypatch.setattr(
        "disinherit.simulations.bench.methods.method.installed", lambda group: {"halve": point}
    )
    assert known_methods() == ["halve"]
    made = unlearn(make_method("halve", {}), case)
    assert torch.equal(
        made.weights["r1"]["head.bias"], case.subjects["r1"].original["head.bias"] / 2
    )
    assert same(made.weights["r2"], case.subjects["r2"].original)


def make_halve() -> Any:
    return halve_root


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"base": {}}, "affected models only, but got some of \\['base'\\]"),
        ({"r1": {}}, "weights of model 'r1'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    case: MethodCase, weights: dict[str, Weights], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        unlearn(lambda _: Unlearned(weights), case)


def test_an_owner_of_a_case_retrains_a_root_without_what_it_has_to_forget(tmp_path: Path) -> None:
    case = digits_case(granularity="memorised")
    (root,) = case.roots
    subject = case.subjects[root]
    with owners_of(case.view(), tmp_path)[subject.owner]() as owner:
        record = owner.store.record(root)
        assert isinstance(owner, Retrains)
        assert owner.can_retrain(record)
        found = owner.retrain(record, samples_to_forget(subject))
        assert weights_digest(found) == weights_digest(subject.retrained)
        assert weights_digest(owner.retrain(record, [])) == record.digest
        start = owner.retrain(record, None)
        assert weights_digest(start) == weights_digest(case.unaffected["base"])
