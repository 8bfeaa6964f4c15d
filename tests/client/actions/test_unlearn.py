"""The handler of `train.unlearn`: every model of a message, independently and once."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening import task_inputs
from disinherit.client.dampening.one import dampen_model
from disinherit.client.dampening.summaries import register
from disinherit.client.owner.owner import Batches
from disinherit.common.graph.identifiers import check_id, successor_id
from disinherit.common.graph.proto import record_from_proto
from disinherit.common.graph.records import ModelRecord, ModelStatus
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire import packets
from disinherit.common.wire.packets import PackedFisher, decode_fisher, encode_fisher
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, files_of, make_method, make_task
from tests.support.owner import LABELS, PointsOwner

METHOD = make_method()


class MoodyOwner(PointsOwner):
    """An owner with code that can fail, or call back, during a message."""

    on_network: Callable[[ModelRecord], object] = staticmethod(lambda record: None)
    on_tuning: Callable[[ModelRecord], object] = staticmethod(lambda record: None)

    def __enter__(self) -> Self:
        return self

    def network(self, record: ModelRecord) -> nn.Module:
        self.on_network(record)
        return super().network(record)

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        self.on_tuning(record)
        return super().tuning_data(record)

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        return None


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[MoodyOwner]:
    """Three models with registered summaries: "m" and its children "n" and "o"."""
    with MoodyOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", LABELS, 1)
        start = [owner.store.weights("m")]
        owner.train("n", LABELS[:3], 2, start=start)
        owner.train("o", ("cat", "yak"), 3, start=start)
        register(owner, pb.RegisterTask(scope="head"))
        yield owner


@pytest.fixture
def packet(owner: MoodyOwner) -> pb.FisherPacket:
    return collect(owner, "m", ["cat"], METHOD)


def outcomes(reply: pb.UnlearnReply) -> dict[str, pb.Outcome.ValueType]:
    return {result.model_id: result.outcome for result in reply.models}


def test_every_listed_model_gets_a_successor_and_no_other_changes(
    owner: MoodyOwner, packet: pb.FisherPacket
) -> None:
    before = files_of(owner.store.root / "objects")
    expected = {
        m: dampen_model(
            owner, owner.store.record(m), PackedFisher.from_packet(packet), METHOD
        ).weights
        for m in ("m", "n")
    }
    records = {record.id: record for record in owner.store.records()}
    reply = unlearn(owner, make_task(owner, ["m", "n"], packet, METHOD))
    assert outcomes(reply) == {"m": pb.OUTCOME_APPLIED, "n": pb.OUTCOME_APPLIED}
    for result in reply.models:
        model, successor = result.model_id, record_from_proto(result.successor)
        assert successor == owner.store.record(f"{model}~forget")
        assert successor.digest == weights_digest(expected[model])
        assert weights_digest(owner.store.weights(successor.id)) == successor.digest
        assert successor.digest != records[model].digest
        assert (successor.created_us, successor.provenance) == (1000, None)
        assert owner.store.record(model).status is ModelStatus.SUPERSEDED
    assert owner.store.record("o") == records["o"]
    after = files_of(owner.store.root / "objects")
    assert before.items() <= after.items()
    assert len(owner.store.records()) == 5


@pytest.mark.parametrize(("kept", "times"), [(task_inputs.DECODED_BYTES, 1), (0, 2)])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_packet_is_decoded_once_for_all_models_of_a_task(
    owner: MoodyOwner,
    packet: pb.FisherPacket,
    monkeypatch: pytest.MonkeyPatch,
    one_by_one: bool,
    kept: int,
    times: int,
) -> None:
    """Except for large packets with models that are not sorted by group."""
    decoded: list[str] = []
    found: list[Mapping[str, Tensor]] = []

    unpacked = packets._unpacked

    def counted(packet: pb.FisherPacket) -> object:
        decoded.append(packet.digest)
        values, factors = unpacked(packet)
        found.append(values)
        return values, factors

    monkeypatch.setattr(packets, "_unpacked", counted)
    monkeypatch.setattr(task_inputs, "DECODED_BYTES", kept)
    owner.tuning = one_by_one
    task = make_task(owner, ["m", "n", "o"], packet, METHOD)
    task.fishers.append(collect(owner, "m", ["dog"], METHOD))
    task.models[1].fisher = 1
    decoded.clear()
    found.clear()
    assert set(outcomes(unlearn(owner, task)).values()) == {pb.OUTCOME_APPLIED}
    assert [decoded.count(fisher.digest) for fisher in task.fishers] == [times, 1]
    fresh = {fisher.digest: decode_fisher(fisher) for fisher in task.fishers}
    for digest, values in zip(decoded, found, strict=True):  # no model changed a shared packet
        assert all(torch.equal(value, values[name]) for name, value in fresh[digest].items())


def test_a_repeated_message_changes_not_one_byte(
    owner: MoodyOwner, packet: pb.FisherPacket
) -> None:
    task = make_task(owner, ["m", "n"], packet, METHOD)
    first = unlearn(owner, task)
    before = files_of(owner.store.root)
    second = unlearn(owner, task)
    assert set(outcomes(second).values()) == {pb.OUTCOME_ALREADY_APPLIED}
    assert files_of(owner.store.root) == before
    for old, new in zip(first.models, second.models, strict=True):
        new.outcome = old.outcome
        new.apply_seconds = old.apply_seconds
        assert new == old


def test_a_model_listed_twice_is_dampened_once(owner: MoodyOwner, packet: pb.FisherPacket) -> None:
    reply = unlearn(owner, make_task(owner, ["n", "n"], packet, METHOD))
    assert [r.outcome for r in reply.models] == [pb.OUTCOME_APPLIED, pb.OUTCOME_ALREADY_APPLIED]
    assert reply.models[0].successor == reply.models[1].successor


def test_another_request_needs_the_successor(owner: MoodyOwner, packet: pb.FisherPacket) -> None:
    unlearn(owner, make_task(owner, ["n"], packet, METHOD))
    before = files_of(owner.store.root)
    (late,) = unlearn(owner, make_task(owner, ["n"], packet, METHOD, "other")).models
    assert late.outcome == pb.OUTCOME_FAILED
    assert "got 'n~forget'" in late.error
    assert "Plan request 'other' on that." in late.error
    assert files_of(owner.store.root) == before


def test_the_successor_can_forget_more_without_any_data(
    owner: MoodyOwner, packet: pb.FisherPacket
) -> None:
    owls = collect(owner, "m", ["owl"], METHOD)
    unlearn(owner, make_task(owner, ["m"], packet, METHOD))
    kept = owner.store.fishers("m~forget")
    original = owner.store.fishers("m")
    assert kept is not None
    assert original is not None
    assert kept[0].counts.tolist() == [0, 24, 24, 24]
    for name, value in kept[0].sums.items():
        assert not value[0].any()
        assert torch.equal(value[1:], original[0].sums[name][1:])
    assert kept[1] == original[1] == "head"
    (result,) = unlearn(owner, make_task(owner, ["m~forget"], owls, METHOD, "more")).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    assert result.successor.id == "m~forget~more"
    weights = owner.store.weights("m~forget~more")["2.weight"]
    cat, owl = weights[0], weights[2]
    # Cleared rows stay lowest: a fully dampened row is the lowest, or close to it.
    assert cat.abs().sum() < weights[[1, 3]].abs().sum(dim=1).min()
    assert owl.abs().sum() < weights[[1, 3]].abs().sum(dim=1).min()


def test_computed_summary_is_inherited_by_the_successor(tmp_path: Path) -> None:
    with PointsOwner(tmp_path, "anna") as owner:
        owner.train("m", LABELS, 1)
        packet = collect(owner, "m", ["cat"], METHOD)
        (result,) = unlearn(owner, make_task(owner, ["m"], packet, METHOD)).models
        handed_on = owner.store.fishers("m~forget")
        assert handed_on is not None
        assert handed_on[0].counts.tolist() == [0, 24, 24, 24]
        assert result.successor.fisher_digest == owner.store.record("m~forget").fisher_digest != ""


# --- refusals, each of one model


def forge_digest(task: pb.UnlearnTask) -> None:
    task.models[0].digest = "00" * 32


def forge_model(task: pb.UnlearnTask) -> None:
    task.models[0].model_id = "nobody"


def forge_index(task: pb.UnlearnTask) -> None:
    task.models[0].fisher = 7


def forge_packet(task: pb.UnlearnTask) -> None:
    task.fishers.append(task.fishers[0])
    task.fishers[1].tensors += b"x"
    task.models[0].fisher = 1


def forge_values(task: pb.UnlearnTask) -> None:
    packet = encode_fisher(
        {"2.weight": torch.full((4, 12), -1.0)},
        labels=LABELS,
        head_weight="2.weight",
        head_bias="",
        sources=["r"],
        classes=["cat"],
        samples=1,
    )
    task.fishers.append(packet)
    task.models[0].fisher = 1


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (forge_digest, f"model 'n' with digest {'00' * 32!r}, but the owner holds"),
        (forge_model, "a model in the store of 'anna', but got 'nobody'"),
        (forge_index, "the index of one of 1 Fisher packets for model 'n', but got 7"),
        (forge_packet, "for the Fisher packet of m, but its bytes have"),
        (forge_values, "the Fisher packet of r"),
    ],
)
def test_invalid_input_fails_only_its_model(
    owner: MoodyOwner,
    packet: pb.FisherPacket,
    forge: Callable[[pb.UnlearnTask], None],
    message: str,
) -> None:
    task = make_task(owner, ["n", "o"], packet, METHOD)
    forge(task)
    bad, good = unlearn(owner, task).models
    assert bad.outcome == pb.OUTCOME_FAILED
    assert message in bad.error
    assert "\n" not in bad.error
    assert not bad.HasField("successor")
    assert good.outcome == pb.OUTCOME_APPLIED
    assert owner.store.record("n").status is ModelStatus.ACTIVE


@pytest.mark.parametrize("request_id", ["", "../up", "x" * 129])
def test_malformed_request_ids_are_refused(
    owner: MoodyOwner, packet: pb.FisherPacket, request_id: str
) -> None:
    before = files_of(owner.store.root)
    (result,) = unlearn(owner, make_task(owner, ["n"], packet, METHOD, request_id)).models
    assert result.outcome == pb.OUTCOME_FAILED
    assert "request id" in result.error
    assert files_of(owner.store.root) == before


@pytest.mark.parametrize("what", ["weights", "Fisher summary"])
def test_a_damaged_file_fails_with_one_clear_line(
    owner: MoodyOwner, packet: pb.FisherPacket, what: str
) -> None:
    record = owner.store.record("n")
    digest = record.digest if what == "weights" else record.fisher_digest
    path = owner.store.root / "objects" / f"{digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    bad, good = unlearn(owner, make_task(owner, ["n", "o"], packet, METHOD)).models
    assert bad.outcome == pb.OUTCOME_FAILED
    expected = {
        "weights": "Expected the tensor '2.weight' that was stored, but it was damaged or replaced",
        "Fisher summary": f"Cannot load the {what} of model 'n'. Expected tensors with digest",
    }
    assert expected[what] in bad.error
    assert "\n" not in bad.error
    assert good.outcome == pb.OUTCOME_APPLIED


@pytest.mark.parametrize("hook", ["on_network", "on_tuning"])
@pytest.mark.parametrize(
    "error", [RuntimeError("strange\nthings"), torch.OutOfMemoryError("full"), KeyError("path")]
)
def test_unexpected_error_does_not_affect_other_models(
    owner: MoodyOwner,
    packet: pb.FisherPacket,
    hook: str,
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(record: ModelRecord) -> None:
        if record.id == "n":
            raise error

    setattr(owner, hook, fail)
    task = make_task(owner, ["m", "n", "o"], packet, make_method(alpha=None, row_scoped=False))
    task.max_retain_drop = 100
    first, bad, last = unlearn(owner, task).models
    assert bad.outcome == pb.OUTCOME_FAILED
    assert bad.error.startswith(
        f"Expected to unlearn in model 'n', but got {type(error).__name__}. The "
    )
    assert "\n" not in bad.error
    assert first.outcome == last.outcome == pb.OUTCOME_APPLIED
    assert owner.store.record("n").status is ModelStatus.ACTIVE
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]
    setattr(owner, hook, lambda record: None)
    again = outcomes(unlearn(owner, task))
    assert again == {
        "m": pb.OUTCOME_ALREADY_APPLIED,
        "n": pb.OUTCOME_APPLIED,
        "o": pb.OUTCOME_ALREADY_APPLIED,
    }


def test_only_one_of_two_concurrent_processes_applies(
    owner: MoodyOwner, packet: pb.FisherPacket
) -> None:
    task = make_task(owner, ["n"], packet, make_method(alpha=None, row_scoped=False))
    task.max_retain_drop = 100
    faster: list[pb.UnlearnReply] = []

    def meanwhile(record: ModelRecord) -> None:
        with PointsOwner(owner.store.root, "anna", tuning=False) as other:
            faster.append(unlearn(other, task))

    owner.on_tuning = meanwhile
    (slower,) = unlearn(owner, task).models
    (winner,) = faster[0].models
    assert winner.outcome == pb.OUTCOME_APPLIED
    assert slower.outcome == pb.OUTCOME_ALREADY_APPLIED
    assert slower.successor == winner.successor
    assert not slower.tuned
    assert len(owner.store.records()) == 4


# --- ids


def test_long_ids_end_in_a_digest_and_stay_distinct(
    owner: MoodyOwner, packet: pb.FisherPacket
) -> None:
    model, request = "m" * 100, "r" * 100
    made = {successor_id(model, request + last) for last in "abc"} | {successor_id(model, request)}
    assert len(made) == 4
    assert all(check_id(name) and name.startswith("m" * 95) for name in made)
    assert successor_id(model, request) in made
    record = owner.train("n" * 120, LABELS, 4)
    (result,) = unlearn(owner, make_task(owner, [record.id], packet, METHOD, request)).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    assert owner.store.record(result.successor.id).digest == result.successor.digest


def test_id_of_maximum_length_is_unchanged() -> None:
    assert successor_id("m" * 120, "r" * 7) == "m" * 120 + "~" + "r" * 7
    assert len(successor_id("m" * 121, "r" * 7)) == 128
