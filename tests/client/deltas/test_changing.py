"""Changes of roots in models: sums against float64, heads, ties, statistics, scope and roots."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.store.ledger import Commit, Forgotten
from disinherit.common.deltas.packets import PackedDelta, relabelled
from disinherit.common.fiun.unlearning import clear_rows
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.delta_tasks import AnyNetworkOwner, asked_change, delta_task
from tests.support.delta_world import near, plus, same
from tests.support.owner import FEATURES, HIDDEN, LABELS
from tests.support.root_changes import (
    APPLIED,
    FORGOTTEN,
    REFUSED,
    apply,
    change_of,
    mlp,
    normed,
    summed,
)

# --- sums


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_descendant_gets_the_sum_rounded_once(owner: AnyNetworkOwner, dtype: torch.dtype) -> None:
    before = owner.add("n", lambda: mlp(dtype=dtype))
    packets = [change_of(before), change_of(before, seed=8, source="other")]
    result = apply(owner, packets, "n", 0.75, 0.5)
    assert result.outcome == APPLIED, result.error
    assert result.remedy == pb.REMEDY_APPROXIMATED
    after = owner.store.weights("n~q")
    assert all(value.dtype == dtype for value in after.values())
    assert same(after, summed(before, packets, 0.75, 0.5))
    assert [(one.root, one.coefficient, one.measured) for one in result.deltas] == [
        ("far", 0.75, 0.0),
        ("other", 0.5, 0.0),
    ]


@pytest.mark.parametrize(
    ("encoding", "rank", "within"),
    [
        (pb.DELTA_ENCODING_UNSPECIFIED, 0, 1e-6),
        (pb.DELTA_ENCODING_BFLOAT16, 0, 1e-2),
        (pb.DELTA_ENCODING_INT8, 0, 1e-2),
        (pb.DELTA_ENCODING_UNSPECIFIED, 2, 1.0),
        (pb.DELTA_ENCODING_INT8, 2, 1.0),
    ],
)
def test_shorter_encodings_add_what_they_decode_to(
    owner: AnyNetworkOwner, encoding: pb.DeltaEncoding.ValueType, rank: int, within: float
) -> None:
    before = owner.add("n", mlp)
    packet = change_of(before, encoding=encoding, rank=rank)
    assert apply(owner, [packet], "n", 0.5).outcome == APPLIED
    after = owner.store.weights("n~q")
    assert same(after, summed(before, [packet], 0.5))
    whole = summed(before, [change_of(before)], 0.5)
    assert max(float((after[name] - whole[name]).abs().max()) for name in whole) < within


# --- heads


def test_an_unknown_head_of_other_classes_is_left_as_it_is(owner: AnyNetworkOwner) -> None:
    before = owner.add("n", lambda: mlp(3), labels=("yak", "emu", "cat"), trained_on=())
    packet = change_of(mlp().state_dict())
    result = apply(owner, [packet], "n", 0.5)
    assert result.outcome == APPLIED
    assert sorted(result.out_of_scope) == ["2.bias", "2.weight"]
    expected, after = dict(before), owner.store.weights("n~q")
    change = PackedDelta.from_packet(packet).values
    for name in ("0.weight", "0.bias"):
        expected[name] = (before[name].double() + 0.5 * change[name].double()).float()
    assert same(after, expected)


def test_rows_of_a_known_head_go_by_class_name(tmp_path: Path) -> None:
    labels = ("yak", "emu", "cat")  # emu has no counterpart
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        owner.evaluates = False  # nobody has points of emus
        before = owner.add("n", lambda: mlp(3, torch.float64), labels, ("yak", "cat"))
        packet = change_of(mlp().state_dict())
        result = apply(owner, [packet], "n", 0.5)
        assert result.outcome == APPLIED, result.error
        change, after = PackedDelta.from_packet(packet).values, owner.store.weights("n~q")
        for name in ("2.weight", "2.bias"):
            for place, label in enumerate(labels):
                expected = before[name][place].double()
                if label in LABELS:
                    expected = expected + 0.5 * change[name][LABELS.index(label)].double()
                assert torch.allclose(after[name][place], expected, rtol=0, atol=1e-12), (
                    name,
                    label,
                )


def test_renamed_classes_go_by_their_new_names(tmp_path: Path) -> None:
    labels = ("kitten", "dog", "owl", "yak")
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        before = owner.add("n", lambda: mlp(4, torch.float64), labels, ("dog", "kitten"))
        packet = relabelled(change_of(before), {"cat": "kitten", "owl": None})
        assert apply(owner, [packet], "n", 1.0).outcome == APPLIED
        expected = summed(before, [packet], 1.0)
        expected["2.weight"][2], expected["2.bias"][2] = before["2.weight"][2], before["2.bias"][2]
        assert same(owner.store.weights("n~q"), expected)


def test_a_head_of_another_name_is_left_as_it_is_and_reported(tmp_path: Path) -> None:
    def other() -> nn.Module:
        network = nn.Sequential()
        network.add_module("0", nn.Linear(FEATURES, HIDDEN))
        network.add_module("1", nn.ReLU())
        network.add_module("out", nn.Linear(HIDDEN, len(LABELS)))
        return network.double()

    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        before = owner.add("n", other)
        result = apply(owner, [change_of(mlp().state_dict())], "n", 1.0)
        assert result.outcome == APPLIED, result.error
        assert sorted(result.out_of_scope) == ["2.bias", "2.weight"]
        after = owner.store.weights("n~q")
        for name in ("out.weight", "out.bias"):
            assert torch.equal(after[name], before[name])
        assert not torch.equal(after["0.weight"], before["0.weight"])


class Tied(nn.Module):
    """Two names of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, FEATURES, bias=False)
        self.second = nn.Linear(FEATURES, FEATURES, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(FEATURES, len(LABELS))
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(inputs).relu()))
        return logits


@pytest.mark.parametrize("repair_steps", [0, 2])
def test_tied_weights_change_once_and_alike(tmp_path: Path, repair_steps: int) -> None:
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        before = owner.add("n", Tied)
        change = {n: v for n, v in before.items() if n != "second.weight"}
        packet = change_of(change, head=("head.weight", "head.bias"))
        result = apply(owner, [packet], "n", 0.5, repair_steps=repair_steps)
        assert result.outcome == APPLIED, result.error
        after = owner.store.weights("n~q")
        assert torch.equal(after["first.weight"], after["second.weight"])
        assert result.repair_steps == repair_steps
        if not repair_steps:
            expected = summed(before, [packet], 0.5)
            assert torch.equal(after["first.weight"], expected["first.weight"])


# --- statistics of normalisation layers


def test_statistics_of_a_trained_descendant_are_those_of_its_own_data(tmp_path: Path) -> None:
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        before = owner.add("n", normed)
        packet = change_of(before)
        assert apply(owner, [packet], "n", 0.5).outcome == APPLIED
        after, expected = owner.store.weights("n~q"), summed(before, [packet], 0.5)
        inputs, _ = owner.points("train", LABELS, LABELS)
        hidden = inputs @ expected["0.weight"].T + expected["0.bias"]
        assert torch.allclose(after["1.running_mean"], hidden.mean(0))
        assert torch.allclose(after["1.running_var"], hidden.var(0))
        for name in ("0.weight", "1.weight", "1.bias", "2.weight", "2.bias"):
            assert torch.equal(after[name], expected[name])


def test_statistics_of_its_successor_are_so_too(tmp_path: Path) -> None:
    """A second request finds the data of the training, though its record names none."""
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        before = owner.add("n", normed)
        assert apply(owner, [change_of(before)], "n", 0.5).outcome == APPLIED
        packet = change_of(before, seed=9)
        result = apply(owner, [packet], "n~q", 0.5, request_id="p", repair_steps=3)
        assert result.outcome == APPLIED, result.error
        assert result.repair_steps == 3
        after, first = owner.store.weights("n~q~p"), owner.store.weights("n~q")
        inputs, _ = owner.points("train", LABELS, LABELS)
        changed = summed(first, [packet], 0.5)
        hidden = inputs @ changed["0.weight"].T + changed["0.bias"]
        assert torch.allclose(after["1.running_mean"], hidden.mean(0), atol=0.2)
        assert not torch.equal(after["1.running_mean"], changed["1.running_mean"])


def test_statistics_of_an_average_get_the_change(owner: AnyNetworkOwner) -> None:
    before = owner.add("n", normed, trained_on=())
    packet = change_of(before, head=("2.weight", "2.bias"))
    assert apply(owner, [packet], "n", 0.5).outcome == APPLIED
    after, expected = owner.store.weights("n~q"), summed(before, [packet], 0.5)
    expected["1.running_var"].clamp_(min=0)
    assert same(after, expected)
    assert torch.equal(after["1.num_batches_tracked"], before["1.num_batches_tracked"])


def test_statistics_of_unknown_origin_count_as_trained(owner: AnyNetworkOwner) -> None:
    before = owner.add("n", normed)
    record = owner.store.record("n")
    unknown = replace(record, id="u", provenance=None)
    owner.store.add(unknown, before)
    owner.networks["u"] = normed
    assert apply(owner, [change_of(before)], "u", 0.5).outcome == APPLIED
    after = owner.store.weights("u~q")
    for name in ("1.running_mean", "1.running_var"):
        assert torch.equal(after[name], before[name])
    assert not torch.equal(after["1.weight"], before["1.weight"])


# --- scope


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("repair_steps", [0, 3])
def test_what_is_out_of_scope_is_neither_changed_nor_repaired(
    tmp_path: Path, repair_steps: int
) -> None:
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        before = owner.add("n", normed)
        result = apply(owner, [change_of(before)], "n", 0.5, scope="2.*", repair_steps=repair_steps)
        assert result.outcome == APPLIED, result.error
        assert result.repair_steps == repair_steps
        assert changed(before, owner.store.weights("n~q")) == {"2.weight", "2.bias"}
        left_out = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
        assert set(result.out_of_scope) == left_out


def test_a_tied_parameter_is_in_scope_under_each_name(tmp_path: Path) -> None:
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        before = owner.add("n", Tied)
        change = {n: v for n, v in before.items() if n != "first.weight"}
        packet = change_of(change, head=("head.weight", "head.bias"))
        result = apply(owner, [packet], "n", 0.5, scope="first.*", repair_steps=2)
        assert result.outcome == APPLIED, result.error
        after = owner.store.weights("n~q")
        assert changed(before, after) == {"first.weight", "second.weight"}
        assert torch.equal(after["first.weight"], after["second.weight"])


def test_a_change_out_of_scope_is_refused(owner: AnyNetworkOwner) -> None:
    before = owner.add("n", mlp)
    packet = change_of({name: v for name, v in before.items() if name.startswith("2")})
    error = apply(owner, [packet], "n", 0.5, scope="0.*").error
    assert "in scope '0.*', but none of 2 has its name there" in error
    assert "matches none" in apply(owner, [packet], "n", 0.5, scope="9.*").error


@pytest.mark.parametrize("frozen", [("0.",), ("0.", "2.")])
def test_frozen_layers_are_changed_but_not_repaired(
    tmp_path: Path, frozen: tuple[str, ...]
) -> None:
    def partly() -> nn.Module:
        network = mlp(dtype=torch.float64)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        return network

    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        before = owner.add("n", partly)
        packet = change_of(before, scale=0.01)
        result = apply(owner, [packet], "n", 0.5, repair_steps=3)
        assert result.outcome == APPLIED, result.error
        plain, after = summed(before, [packet], 0.5), owner.store.weights("n~q")
        repaired = {n for n in before if not n.startswith(frozen)}
        assert changed(plain, after) == repaired
        assert result.repair_steps == (3 if repaired else 0)


# --- roots


def test_a_root_is_replayed_bit_for_bit_and_its_child_gets_the_change(
    rooted: AnyNetworkOwner,
) -> None:
    packet = asked_change(rooted, "r", FORGOTTEN)
    assert packet.delta.exact
    assert packet.samples == len(FORGOTTEN)
    own = {"r": FORGOTTEN}
    task = delta_task(rooted, [packet], {"r": [1.0], "n": [1.0]}, own=own)
    root, child = unlearn(rooted, task).models
    assert (root.outcome, root.remedy) == (APPLIED, pb.REMEDY_REPLAYED), root.error
    after = rooted.retrain(rooted.store.record("r"), FORGOTTEN)
    assert same(rooted.store.weights("r~q"), after)
    assert packet.delta.after == rooted.store.record("r~q").digest
    change = after, rooted.store.weights("r")
    expected = plus(rooted.store.weights("n"), [(1.0, *change)])
    assert child.successor.digest == rooted.store.record("n~q").digest
    assert near(rooted.store.weights("n~q"), expected)
    assert child.deltas[0].measured > 0.8


def test_a_root_below_a_root_has_both_changes(rooted: AnyNetworkOwner) -> None:
    ids = ["owl-1", "owl-2"]
    packets = [asked_change(rooted, "r", FORGOTTEN), asked_change(rooted, "s", ids)]
    task = delta_task(rooted, packets, {"s": [1.0, 1.0]}, own={"s": ids})
    (result,) = unlearn(rooted, task).models
    assert result.outcome in (APPLIED, REFUSED), result.error
    assert result.remedy == pb.REMEDY_APPROXIMATED
    replayed = rooted.retrain(rooted.store.record("s"), ids)
    change = rooted.retrain(rooted.store.record("r"), FORGOTTEN), rooted.store.weights("r")
    assert near(rooted.store.weights("s~q"), plus(replayed, [(1.0, *change)]))


def test_a_model_with_nothing_left_of_the_update_is_refused(rooted: AnyNetworkOwner) -> None:
    packet = asked_change(rooted, "r", FORGOTTEN)
    before = rooted.add("x", lambda: mlp(dtype=torch.float64))
    result = apply(rooted, [packet], "x", 1.0)
    assert (result.outcome, result.remedy) == (REFUSED, pb.REMEDY_REFUSED)
    assert "of the update of root 'r' is left in it, where 1.00 was expected" in result.error
    assert "\n" not in result.error
    assert not result.successor.id
    assert {record.id for record in rooted.store.records()} == {"n", "r", "s", "x"}
    assert same(rooted.store.weights("x"), before)


def test_an_average_has_its_share_left_and_a_method_may_ask_for_more(
    rooted: AnyNetworkOwner,
) -> None:
    packet, first = asked_change(rooted, "r", FORGOTTEN), rooted.store.weights("r")
    start = rooted.retrain(rooted.store.record("r"), None)
    half = {name: (value + start[name].detach()) / 2 for name, value in first.items()}
    rooted.add("a", lambda: mlp(dtype=torch.float64), trained_on=(), start=half)
    result = apply(rooted, [packet], "a", 0.5, min_inheritance=0.6)
    assert result.remedy == pb.REMEDY_REFUSED
    assert "0.50 of the update of root 'r'" in result.error
    assert "0.60 is needed" in result.error
    result = apply(rooted, [packet], "a", 0.5)
    assert result.successor.id == "a~q"
    assert result.deltas[0].measured == pytest.approx(0.5, abs=1e-9)
    change = rooted.retrain(rooted.store.record("r"), FORGOTTEN), first
    assert near(rooted.store.weights("a~q"), plus(half, [(0.5, *change)]))


def test_a_class_that_was_taken_out_before_stays_so(tmp_path: Path) -> None:
    with AnyNetworkOwner(tmp_path / "anna") as owner:
        owner.networks = {}
        weights = owner.add("n", lambda: mlp(dtype=torch.float64))
        register(owner, pb.RegisterTask(scope="head"))  # finds the head
        owner.lose_data()
        _check_stays_out(owner, weights)


def _check_stays_out(owner: AnyNetworkOwner, weights: dict[str, Tensor]) -> None:
    clear_rows(weights, [("2.weight", "2.bias")], [0])
    record = owner.store.record("n")
    owner.store.apply(
        Commit(
            request_id="classes",
            model_id="n",
            expected_digest=record.digest,
            successor=replace(
                record,
                id="n~classes",
                digest=weights_digest(weights),
                created_us=9,
                provenance=None,
                fisher_digest="",
            ),
            weights=weights,
            result=pb.ModelResult(outcome=APPLIED).SerializeToString(),
            forgotten=Forgotten(classes=(record.labels[0],)),
        )
    )
    packet = change_of(weights)
    assert apply(owner, [packet], "n~classes", 1.0).outcome == APPLIED
    after = owner.store.weights("n~classes~q")
    others = summed(weights, [packet], 1.0)
    for name, margin in (("2.weight", 0.0), ("2.bias", 5.0)):
        kept = others[name][1:]
        assert torch.equal(after[name][1:], kept)
        torch.testing.assert_close(after[name][0], kept.mean(0) - margin)
