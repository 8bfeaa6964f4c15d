"""Dampening of one model, against the rule computed by hand in float64."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.logits import CachedLogits
from disinherit.client.dampening.one import dampen_model
from disinherit.client.dampening.summaries import register
from disinherit.client.dampening.tuning import ALPHAS, GAUGES, LAMBDAS
from disinherit.client.owner.owner import Batches, load_network
from disinherit.common.errors import (
    CheckpointError,
    FisherError,
    LabelError,
)
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.packets import PackedFisher, encode_fisher
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import HEAD, by_hand, collect, make_method, make_task, naive_sums
from tests.support.owner import FEATURES, LABELS, PointsOwner, make_network, make_points


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[PointsOwner]:
    """An owner of a root "m" of all classes and its child "n", trained on three of them."""
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", LABELS, 1)
        owner.train("n", LABELS[:3], 2, start=[owner.store.weights("m")])
        yield owner


def add(owner: PointsOwner, network: nn.Module, model_id: str = "x", **changes: object) -> None:
    """Register a network, as if trained on the owner's points of all classes."""
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    values: dict[str, object] = {
        "id": model_id,
        "owner": owner.name,
        "architecture": architecture_fingerprint(weights),
        "labels": LABELS,
        "digest": weights_digest(weights),
        "created_us": 5,
        "provenance": Provenance("points", dict.fromkeys(LABELS, 24)),
    }
    owner.store.add(ModelRecord(**(values | changes)), weights)  # type: ignore[arg-type]


class Networks(PointsOwner):
    """An owner with another network for model "x"."""

    made: nn.Module

    def __enter__(self) -> Self:
        return self

    def network(self, record: ModelRecord) -> nn.Module:
        return self.made if record.id == "x" else super().network(record)


def sums_of(owner: PointsOwner, model: str, classes: tuple[str, ...]) -> dict[str, Tensor]:
    record = owner.store.record(model)
    points = make_points(owner.name, "train", record.labels, classes)
    network = make_network(len(record.labels))
    return naive_sums(network, owner.store.weights(model), *points, len(record.labels))


def mean(sums: dict[str, Tensor], classes: list[int]) -> dict[str, Tensor]:
    """Every class of the fixture has 24 samples."""
    return {name: value[classes].sum(0) / (24 * len(classes)) for name, value in sums.items()}


@pytest.mark.parametrize("reference", ["retain", "all"])
@pytest.mark.parametrize(("alpha", "lam"), [(1.0, 1.0), (0.3, 0.5), (5.0, 0.1)])
def test_weights_equal_the_rule_computed_by_hand(
    owner: PointsOwner, reference: str, alpha: float, lam: float
) -> None:
    method = make_method(reference=reference, alpha=alpha, lam=lam, row_scoped=False)
    packet = collect(owner, "m", ["cat"], method)
    done = dampen_model(owner, owner.store.record("n"), PackedFisher.from_packet(packet), method)
    forget = mean(sums_of(owner, "m", LABELS), [0])
    own = mean(sums_of(owner, "n", LABELS[:3]), [1, 2] if reference == "retain" else [0, 1, 2])
    stored = owner.store.weights("n")
    for name in HEAD:
        expected = by_hand(stored[name], forget[name], own[name], range(4), alpha, lam)
        torch.testing.assert_close(done.weights[name], expected, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(done.weights[name], stored[name]) for name in stored if name not in HEAD)
    counts = {s.parameter: (list(s.rows), s.total) for s in done.result.selections}
    for name in HEAD:
        chosen = (forget[name] > alpha * own[name]).double().reshape(len(LABELS), -1).sum(1)
        assert counts[name] == (chosen.long().tolist(), stored[name].numel())
    assert counts["2.weight"][0][0] > 0


def taken_out(theta: Tensor, row: int) -> Tensor:
    """The head's weight or bias with one class below all others, by hand."""
    result = theta.clone()
    kept = [value for place, value in enumerate(theta) if place != row]
    result[row] = sum(kept) / len(kept) - (5.0 if theta.ndim == 1 else 0.0)
    return result


@pytest.mark.parametrize("changes", [{}, {"alpha": 100.0}, {"scope": "all", "reference": "all"}])
def test_rows_of_forgotten_classes_are_taken_out(
    owner: PointsOwner, changes: dict[str, object]
) -> None:
    method = make_method(**changes)
    packet = PackedFisher.from_packet(collect(owner, "m", ["cat"], method))
    done = dampen_model(owner, owner.store.record("n"), packet, method)
    stored = owner.store.weights("n")
    for name in HEAD:
        expected = taken_out(stored[name], 0)
        assert torch.equal(done.weights[name][1:], stored[name][1:])
        torch.testing.assert_close(done.weights[name], expected, rtol=1e-12, atol=1e-12)
    counts = {s.parameter: list(s.rows) for s in done.result.selections}
    assert (counts["2.weight"], counts["2.bias"]) == ([12, 0, 0, 0], [1, 0, 0, 0])
    assert done.result.scale == 1
    if "scope" not in changes:
        assert not any((done.result.alpha, done.result.lam, done.result.gauge, done.result.tuned))


@pytest.mark.parametrize("steps", [0, 50])
def test_rows_stay_taken_out_after_a_repair(owner: PointsOwner, steps: int) -> None:
    method = make_method(repair_steps=steps)
    packet = collect(owner, "m", ["cat"], method)
    done = dampen_model(owner, owner.store.record("n"), PackedFisher.from_packet(packet), method)
    assert done.result.repair_steps == steps
    for name in HEAD:
        expected = taken_out(done.weights[name], 0)
        torch.testing.assert_close(done.weights[name], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("together", [True, False])
def test_later_request_takes_out_earlier_rows_again(tmp_path: Path, together: bool) -> None:
    """The first row is the mean of the others, so it depends on the row of the next request."""
    network = make_network()
    with torch.no_grad():
        rows = torch.tensor([1.0, 40.0, -20.0, -20.0])[:, None]
        network.get_parameter("2.weight").copy_(rows.expand(-1, 12))
        network.get_parameter("2.bias").zero_()
    with Networks(tmp_path, "anna", tuning=not together) as owner:
        owner.made = network
        add(owner, network, "m")
        if together:
            owner.evaluation_data = lambda record: None  # type: ignore[method-assign]
        register(owner, pb.RegisterTask(scope="head"))
        for request, (model, name) in enumerate([("m", "cat"), ("m~q0", "dog")]):
            packet = collect(owner, model, [name], make_method())
            task = make_task(owner, [model], packet, make_method(), f"q{request}")
            (result,) = unlearn(owner, task).models
            assert result.outcome == pb.OUTCOME_APPLIED, result.error
        weights = owner.store.weights("m~q0~q1")
    for name in HEAD:
        for row in (0, 1):
            torch.testing.assert_close(weights[name][row], weights[name][1])
    network.load_state_dict(weights)
    assert set(network(make_points("anna", "train", LABELS, LABELS)[0]).argmax(1).tolist()) <= {
        2,
        3,
    }


def test_several_classes_merge_by_the_maximum_and_all_rows_may_be_selected(
    owner: PointsOwner,
) -> None:
    method = make_method(row_scoped=False, alpha=2.0)
    packet = collect(owner, "m", ["cat", "owl"], method)
    done = dampen_model(owner, owner.store.record("n"), PackedFisher.from_packet(packet), method)
    sums = sums_of(owner, "m", LABELS)
    own = mean(sums_of(owner, "n", LABELS[:3]), [1])
    for name in HEAD:
        forget = torch.maximum(sums[name][0], sums[name][2]) / 24
        expected = by_hand(owner.store.weights("n")[name], forget, own[name], range(4), 2.0, 1.0)
        torch.testing.assert_close(done.weights[name], expected, rtol=1e-9, atol=1e-12)


def test_rows_are_aligned_by_name_where_label_spaces_differ(owner: PointsOwner) -> None:
    owner.train("x", ("owl", "cat"), 3, labels=("owl", "dog", "cat"))
    method = make_method()
    packet = collect(owner, "m", ["cat"], method)
    done = dampen_model(owner, owner.store.record("x"), PackedFisher.from_packet(packet), method)
    for name in HEAD:
        expected = taken_out(owner.store.weights("x")[name], 2)
        torch.testing.assert_close(done.weights[name], expected, rtol=1e-12, atol=1e-12)
    everywhere = make_method(row_scoped=False)
    done = dampen_model(
        owner, owner.store.record("x"), PackedFisher.from_packet(packet), everywhere
    )
    forget = mean(sums_of(owner, "m", LABELS), [0])
    own = mean(sums_of(owner, "x", ("owl", "cat")), [0])
    for name in HEAD:
        aligned = forget[name][[2, 1, 0]]
        aligned[1] = forget[name][1]
        expected = by_hand(owner.store.weights("x")[name], aligned, own[name], range(3), 1.0, 1.0)
        torch.testing.assert_close(done.weights[name], expected, rtol=1e-9, atol=1e-12)


def test_a_class_the_model_does_not_know_selects_nothing(owner: PointsOwner) -> None:
    record = owner.train("x", ("dog", "owl"), 3, labels=("dog", "owl"))
    method = make_method(gauge=None, alpha=None)
    packet = collect(owner, "m", ["cat"], method)
    done = dampen_model(owner, record, PackedFisher.from_packet(packet), method)
    assert not any(row for selection in done.result.selections for row in selection.rows)
    assert weights_digest(done.weights) == record.digest
    assert not done.result.tuned
    everywhere = make_method(row_scoped=False)
    changed = dampen_model(owner, record, PackedFisher.from_packet(packet), everywhere)
    assert weights_digest(changed.weights) != record.digest


def test_deeper_scopes_dampen_all_layers(owner: PointsOwner) -> None:
    method = make_method(scope="all", alpha=2.0)
    packet = collect(owner, "m", ["cat"], method)
    done = dampen_model(owner, owner.store.record("n"), PackedFisher.from_packet(packet), method)
    forget = mean(sums_of(owner, "m", LABELS), [0])
    own = mean(sums_of(owner, "n", LABELS[:3]), [1, 2])
    stored = owner.store.weights("n")
    for name in ("0.weight", "0.bias"):
        factor = (own[name] / forget[name]).clamp(max=1)
        expected = torch.where(forget[name] > 2 * own[name], stored[name] * factor, stored[name])
        torch.testing.assert_close(done.weights[name], expected, rtol=1e-9, atol=1e-12)
        assert not torch.equal(done.weights[name], stored[name])


def test_parameters_the_model_does_not_have_are_out_of_scope(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Linear(FEATURES, 12, bias=False), nn.ReLU(), nn.Linear(12, len(LABELS))
    ).double()
    with Networks(tmp_path, "anna") as owner:
        owner.made = network
        owner.train("m", LABELS, 1)
        add(owner, network)
        method = make_method(scope="all")
        packet = collect(owner, "m", ["cat"], method)
        done = dampen_model(
            owner, owner.store.record("x"), PackedFisher.from_packet(packet), method
        )
    assert list(done.result.out_of_scope) == ["0.bias"]
    assert [s.parameter for s in done.result.selections] == ["0.weight", "2.weight", "2.bias"]


def test_packets_that_do_not_fit_name_both_sides(tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Linear(FEATURES, 20), nn.ReLU(), nn.Linear(20, len(LABELS))).double()
    with Networks(tmp_path, "anna") as owner:
        owner.made = wide
        owner.train("m", LABELS, 1)
        add(owner, wide)
        record, method = owner.store.record("x"), make_method()
        packet = collect(owner, "m", ["cat"], method)
        shape = r"shape \[4, 20\] for parameter '2.weight' as in model 'x', but that of m has "
        with pytest.raises(FisherError, match=shape + r"\[4, 12\]"):
            dampen_model(owner, record, PackedFisher.from_packet(packet), method)
        strange = encode_fisher(
            {"fc.weight": torch.ones(4, 12)},
            labels=LABELS,
            head_weight="fc.weight",
            head_bias="",
            sources=["r1", "r2"],
            classes=["cat"],
            samples=1,
        )
        with pytest.raises(
            FisherError, match=r"of r1, r2, fc\.weight, but the model's head is 2\.\*"
        ):
            dampen_model(owner, record, PackedFisher.from_packet(strange), method)
        packet.labels.append("bee")
        with pytest.raises(LabelError, match="5 rows in dimension 0"):
            dampen_model(owner, record, PackedFisher.from_packet(packet), method)


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    with Networks(tmp_path, "anna") as owner:
        owner.made = make_network()
        owner.train("m", LABELS, 1)
        add(owner, nn.Linear(FEATURES, len(LABELS)))
        packet = collect(owner, "m", ["cat"], make_method())
        with pytest.raises(CheckpointError, match="names and shapes of model 'x'") as caught:
            dampen_model(
                owner, owner.store.record("x"), PackedFisher.from_packet(packet), make_method()
            )
    assert "\n" not in str(caught.value)
    assert "0.weight" in str(caught.value)


def test_buffers_and_dtypes_are_preserved(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, len(LABELS))
    ).double()
    nn.init.normal_(network.get_parameter("1.bias"))
    network(make_points("anna", "train", LABELS, LABELS)[0])
    with Networks(tmp_path, "anna") as owner:
        owner.made = network
        add(owner, network)
        before = owner.store.weights("x")
        method = make_method(scope="all", row_scoped=False, alpha=1.5)
        packet = collect(owner, "x", ["cat"], method)
        after = dampen_model(
            owner, owner.store.record("x"), PackedFisher.from_packet(packet), method
        ).weights
    parameters = dict(network.named_parameters())
    assert after.keys() == before.keys()
    assert before["1.num_batches_tracked"].item() == 1
    for name, value in before.items():
        assert (after[name].dtype, after[name].shape) == (value.dtype, value.shape)
        assert torch.equal(after[name], value) == (name not in parameters), name


class TiedNetwork(nn.Module):
    """One weight under two names: as the first layer's and as the head's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, len(LABELS), bias=False)
        self.middle = nn.Linear(len(LABELS), FEATURES)
        self.head = nn.Linear(FEATURES, len(LABELS))
        self.head.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.middle(self.first(inputs).relu()).relu())
        return logits


def test_tied_weights_change_under_every_name(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = TiedNetwork().double()
    with Networks(tmp_path, "anna") as owner:
        owner.made = network
        add(owner, network)
        before = owner.store.weights("x")
        method = make_method(row_scoped=False, alpha=1.5)
        packet = collect(owner, "x", ["cat"], method)
        done = dampen_model(
            owner, owner.store.record("x"), PackedFisher.from_packet(packet), method
        )
        assert [s.parameter for s in done.result.selections] == ["first.weight", "head.bias"]
        assert not torch.equal(done.weights["head.weight"], before["head.weight"])
        assert torch.equal(done.weights["head.weight"], done.weights["first.weight"])
        loaded = load_network(owner, owner.store.record("x"), done.weights)
        value = loaded.get_parameter("first.weight").detach()
        assert torch.equal(value, done.weights["first.weight"])


def test_stored_half_precision_stays_half_precision(tmp_path: Path) -> None:
    with Networks(tmp_path, "anna") as owner:
        owner.made = make_network().float()
        add(owner, make_network().to(torch.bfloat16))
        sums = {"2.weight": torch.rand(4, 12), "2.bias": torch.rand(4)}
        packet = encode_fisher(
            sums,
            labels=LABELS,
            head_weight="2.weight",
            head_bias="2.bias",
            sources=["r"],
            classes=["cat"],
            samples=1,
        )
        owner.training_data = lambda record: [  # type: ignore[method-assign]
            (x.float(), y) for x, y in [make_points("anna", "train", LABELS, LABELS)]
        ]
        done = dampen_model(
            owner, owner.store.record("x"), PackedFisher.from_packet(packet), make_method()
        )
    assert {value.dtype for value in done.weights.values()} == {torch.bfloat16}


# --- a model without retained samples


@pytest.fixture
def single(owner: PointsOwner) -> ModelRecord:
    return owner.train("x", ("cat",), 3, start=[owner.store.weights("m")], steps=3)


def test_rows_are_taken_out_where_there_is_nothing_to_compare_with(
    owner: PointsOwner, single: ModelRecord
) -> None:
    packet = collect(owner, "m", ["cat"], make_method())
    done = dampen_model(owner, single, PackedFisher.from_packet(packet), make_method())
    stored = owner.store.weights("x")
    for name in HEAD:
        expected = taken_out(stored[name], 0)
        torch.testing.assert_close(done.weights[name], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("changes", [{"row_scoped": False}, {"scope": "all"}])
def test_nothing_else_is_cleared(
    owner: PointsOwner, single: ModelRecord, changes: dict[str, object]
) -> None:
    method = make_method(**changes)
    packet = collect(owner, "m", ["cat"], method)
    message = "model 'x' to have samples of retained classes.* all its 24 samples"
    with pytest.raises(FisherError, match=message):
        dampen_model(owner, single, PackedFisher.from_packet(packet), method)
    method = replace(method, reference="all")
    assert (
        dampen_model(owner, single, PackedFisher.from_packet(packet), method).result.outcome
        == pb.OUTCOME_APPLIED
    )


# --- data of the reference, and unused data


class NoData(PointsOwner):
    """Every access to data is an error."""

    def training_data(self, record: ModelRecord) -> Batches | None:
        raise AssertionError("the training data was asked for")

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        raise AssertionError("the tuning data was asked for")

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        raise AssertionError("the evaluation data was asked for")


def test_registered_summaries_need_no_data(owner: PointsOwner, tmp_path: Path) -> None:
    method = make_method()
    packet = collect(owner, "m", ["cat"], method)
    afresh = dampen_model(
        owner, owner.store.record("n"), PackedFisher.from_packet(packet), method
    ).weights
    register(owner, pb.RegisterTask(scope="head"))
    owner.store.close()
    with NoData(tmp_path / "anna", "anna") as again:
        packet_again = collect(again, "m", ["cat"], method)
        done = dampen_model(
            again, again.store.record("n"), PackedFisher.from_packet(packet_again), method
        )
    assert packet_again == packet
    assert weights_digest(done.weights) == weights_digest(afresh)


def test_without_summary_and_data_there_is_no_reference(tmp_path: Path) -> None:
    with PointsOwner(tmp_path, "anna") as owner:
        owner.train("m", LABELS, 1)
        packet = collect(owner, "m", ["cat"], make_method())
        owner.keeps_data = False
        with pytest.raises(FisherError, match=r"'m' for 2\.weight, 2\.bias, .* has neither"):
            dampen_model(
                owner, owner.store.record("m"), PackedFisher.from_packet(packet), make_method()
            )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "train"}, "reference to be one of retain, all, but got 'train'"),
        ({"exponent": 0.0}, "exponent > 0, but got 0"),
        ({"bound": 2.0}, "bound <= 1, but got 2"),
        ({"alpha": -1.0}, "alpha > 0, but got -1"),
        ({"lam": 0.0}, "lambda > 0, but got 0"),
        ({"gauge": -1.0}, "gauge >= 0, but got -1"),
    ],
)
def test_methods_out_of_range_are_refused(
    owner: PointsOwner, changes: dict[str, object], message: str
) -> None:
    packet = collect(owner, "m", ["cat"], make_method())
    task = make_task(owner, ["n"], packet, make_method())
    for name, value in changes.items():
        setattr(task.method, name, value)
    (result,) = unlearn(owner, task).models
    assert result.outcome == pb.OUTCOME_FAILED
    assert message in result.error
    (root,) = forget_fishers(
        owner, pb.FisherTask(roots=[pb.Root(model_id="m")], method=task.method)
    ).roots
    assert message in root.error


# --- tuning


def test_the_strength_is_the_best_on_the_tuning_split(owner: PointsOwner) -> None:
    method = make_method(alpha=None, lam=None, gauge=None, row_scoped=False)
    record = owner.store.record("n")
    packet = collect(owner, "m", ["cat", "owl"], method)
    inputs, targets = make_points("anna", "tuning", LABELS, LABELS[:3])
    forgotten = (targets == 0) | (targets == 2)

    def score(weights: dict[str, Tensor]) -> float:
        network = make_network()
        network.load_state_dict(weights)
        right = network(inputs).argmax(dim=1) == targets
        forget, retain = right[forgotten].double().mean(), right[~forgotten].double().mean()
        return float((1 - forget) * retain)

    scores = {}
    for alpha in ALPHAS:
        for lam in LAMBDAS:
            for gauge in GAUGES:
                pinned = make_method(alpha=alpha, lam=lam, gauge=gauge, row_scoped=False)
                weights = dampen_model(
                    owner, record, PackedFisher.from_packet(packet), pinned
                ).weights
                scores[alpha, lam, gauge] = score(dict(weights))
    assert len(set(scores.values())) > 3
    done = dampen_model(owner, record, PackedFisher.from_packet(packet), method)
    chosen = done.result.alpha, done.result.lam, done.result.gauge
    assert done.result.tuned
    assert scores[chosen] == max(scores.values()) > scores[1.0, 1.0, 1.0]
    assert score(dict(done.weights)) == scores[chosen]


@pytest.mark.parametrize(
    ("scope", "row_scoped", "expected"),
    [
        ("2.weight", True, (0.3, 0.1, 1.0)),  # a part of the head: its rows are dampened
        ("head", False, (1.0, 1.0, 1.0)),
        ("all", True, (10.0, 1.0, 1.0)),
        ("all", False, (10.0, 1.0, 1.0)),
    ],
)
def test_without_tuning_data_the_defaults_apply_and_the_result_says_so(
    tmp_path: Path, scope: str, row_scoped: bool, expected: tuple[float, float, float]
) -> None:
    method = make_method(scope=scope, row_scoped=row_scoped, alpha=None, lam=None, gauge=None)
    with PointsOwner(tmp_path, "anna", tuning=False) as owner:
        owner.train("m", LABELS, 1)
        packet = collect(owner, "m", ["cat"], method)
        done = dampen_model(
            owner, owner.store.record("m"), PackedFisher.from_packet(packet), method
        )
        alpha, lam, gauge = expected
        method = make_method(scope=scope, row_scoped=row_scoped, alpha=alpha, lam=lam, gauge=gauge)
        pinned = dampen_model(
            owner, owner.store.record("m"), PackedFisher.from_packet(packet), method
        )
    assert not done.result.tuned
    assert (done.result.alpha, done.result.lam, done.result.gauge) == expected
    assert weights_digest(done.weights) == weights_digest(pinned.weights)


def test_a_tuning_split_without_forgotten_samples_chooses_nothing(owner: PointsOwner) -> None:
    record = owner.train("x", ("dog", "owl"), 3, start=[owner.store.weights("m")])
    method = make_method(scope="all", alpha=None, lam=0.5)
    packet = collect(owner, "m", ["cat"], method)
    done = dampen_model(owner, record, PackedFisher.from_packet(packet), method)
    assert not done.result.tuned
    assert (done.result.alpha, done.result.lam) == (10.0, 0.5)


def test_fixed_strengths_need_no_tuning_data(owner: PointsOwner, tmp_path: Path) -> None:
    register(owner, pb.RegisterTask(scope="all"))
    packet = collect(owner, "m", ["cat"], make_method(scope="all"))
    owner.store.close()
    with NoData(tmp_path / "anna", "anna") as again:
        pinned = make_method(scope="all", alpha=3.0)
        done = dampen_model(
            again, again.store.record("n"), PackedFisher.from_packet(packet), pinned
        )
        assert (done.result.alpha, done.result.tuned) == (3.0, False)
        open_ = make_method(scope="all", alpha=None)
        with pytest.raises(AssertionError, match="tuning data was asked for"):
            dampen_model(again, again.store.record("n"), PackedFisher.from_packet(packet), open_)


def test_head_scope_is_tuned_on_cached_features(
    owner: PointsOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[CachedLogits] = []

    def remember(*args: object) -> CachedLogits:
        made.append(CachedLogits(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr("disinherit.client.dampening.one.CachedLogits", remember)
    method = make_method(alpha=None, row_scoped=False)
    packet = collect(owner, "m", ["cat"], method)
    assert dampen_model(
        owner, owner.store.record("n"), PackedFisher.from_packet(packet), method
    ).result.tuned
    assert [logits.cached for logits in made] == [True]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_accelerator_and_cpu_agree(owner: PointsOwner) -> None:
    method = make_method(scope="all", alpha=None)
    packet = collect(owner, "m", ["cat"], method)
    expected = dampen_model(
        owner, owner.store.record("n"), PackedFisher.from_packet(packet), method
    ).weights
    owner.device = torch.device("cuda")
    found = dampen_model(
        owner, owner.store.record("n"), PackedFisher.from_packet(packet), method
    ).weights
    for name, value in found.items():
        assert value.device.type == "cpu"
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)
