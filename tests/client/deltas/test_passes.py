"""What one message about many descendants of a root reads, decodes and hashes: each thing once."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from disinherit.client.actions import unlearn as actions
from disinherit.client.actions.delta import root_deltas
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening import task_inputs
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.deltas import settling
from disinherit.client.owner.owner import Batches
from disinherit.client.store.objects import Objects
from disinherit.client.store.store import ModelStore
from disinherit.common.deltas.changes import Lengths, add, lengths_of
from disinherit.common.deltas.packets import PackedDelta
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.tensors import checkpoints
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.tensors.stored import spilled
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.owner import PointsOwner, named
from tests.support.retraining_owner import RetrainingOwner

METHOD = Method(mechanism="delta", root_method="replay", scope="all", repair_steps=0)
DESCENDANTS = [f"child-{number}" for number in range(3)]
FORGOTTEN = ["cat-0", "dog-3"]
REQUEST = "f" * 64


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[RetrainingOwner]:
    with RetrainingOwner(tmp_path / "anna") as made:
        made.evaluates = made.tuning = False
        made.train("root", classes=("cat", "dog", "owl", "yak"), created_us=1)
        start = [made.store.weights("root")]
        for number, name in enumerate(DESCENDANTS):
            made.train(name, classes=("cat", "dog")[: 1 + number % 2], created_us=2, start=start)
        yield made


def packet_of(owner: RetrainingOwner) -> tuple[pb.Root, pb.FisherPacket]:
    """Unlearn the root and return what its owner answers."""
    asked = named(owner.store.root, FORGOTTEN)
    root = pb.Root(model_id="root", samples=asked.digests, sample_salt=asked.salt)
    task = pb.FisherTask(
        request_id="q", request_digest=REQUEST, method=METHOD.to_proto(), roots=[root]
    )
    (answer,) = root_deltas(owner, task).roots
    assert not answer.error, answer.error
    (packet,) = answer.packets
    return root, packet


def task_for(owner: PointsOwner, packet: pb.FisherPacket, roots: list[pb.Root]) -> pb.UnlearnTask:
    """Return the message about all descendants."""
    return pb.UnlearnTask(
        request_id="q",
        request_digest=REQUEST,
        method=METHOD.to_proto(),
        fishers=[packet],
        roots=roots,
        models=[
            pb.ModelTask(
                model_id=name,
                digest=owner.store.record(name).digest,
                shares=[pb.Share(packet=0, coefficient=1.0)],
                created_us=9,
            )
            for name in DESCENDANTS
        ],
        max_retain_drop=100.0,
    )


def test_a_packet_and_the_update_of_a_root_are_read_once_for_all_descendants(
    owner: RetrainingOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, packet = packet_of(owner)
    task = task_for(owner, packet, [root])
    calls: Counter[str] = Counter()
    opened, records = ModelStore.opened, ModelStore.records
    decode = PackedDelta.from_packet

    def counted_weights(
        self: ModelStore, model_id: str
    ) -> AbstractContextManager[Mapping[str, Tensor]]:
        calls[model_id] += 1
        return opened(self, model_id)

    def counted_records(self: ModelStore) -> tuple[ModelRecord, ...]:
        calls["records"] += 1
        return records(self)

    def counted_packet(given: pb.FisherPacket, **options: Any) -> PackedDelta:
        calls["packet"] += 1
        return decode(given, **options)

    monkeypatch.setattr(ModelStore, "opened", counted_weights)
    monkeypatch.setattr(ModelStore, "records", counted_records)
    monkeypatch.setattr(PackedDelta, "from_packet", counted_packet)
    owner.asked.clear()
    owner.lose_data()  # nothing to measure on
    done = unlearn(owner, task).models
    assert [one.error for one in done if one.outcome == pb.OUTCOME_FAILED] == []
    assert all(one.deltas[0].measured > 0 for one in done)
    assert owner.asked == [None]
    assert calls == {"packet": 1, "root": 1, "records": 1, **dict.fromkeys(DESCENDANTS, 1)}


def test_values_of_a_descendant_are_hashed_when_read_and_when_written(
    owner: RetrainingOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, packet = packet_of(owner)
    task = task_for(owner, packet, [])
    owner.kept = False
    owner.lose_data()
    weights = owner.store.weights("root")
    size = sum(value.nbytes for value in weights.values())
    # Beside the first tensor the change is short enough.
    first = weights[min(weights)].nbytes
    hashed = 0
    sha256 = hashlib.sha256

    def counted(data: Any) -> Any:
        nonlocal hashed
        hashed += memoryview(data).nbytes if isinstance(data, memoryview) else 0
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", counted)
    done = unlearn(owner, task).models
    assert all(one.HasField("successor") for one in done)
    assert hashed == (2 * size + first) * len(DESCENDANTS)


@pytest.mark.parametrize(("held", "files"), [(task_inputs.HELD_BYTES, 0), (0, 1)])
def test_a_change_is_unpacked_and_measured_once_in_memory_if_it_is_small(
    owner: RetrainingOwner, monkeypatch: pytest.MonkeyPatch, held: int, files: int
) -> None:
    _, packet = packet_of(owner)
    task = task_for(owner, packet, [])
    calls: Counter[str] = Counter()

    def counted_file(*given: Any) -> AbstractContextManager[Mapping[str, Tensor]]:
        calls["file"] += 1
        return spilled(*given)

    def counted_lengths(change: Mapping[str, Tensor]) -> Lengths:
        calls["lengths"] += 1
        return lengths_of(change)

    monkeypatch.setattr(task_inputs, "HELD_BYTES", held)
    monkeypatch.setattr(task_inputs, "spilled", counted_file)
    monkeypatch.setattr(task_inputs, "lengths_of", counted_lengths)
    before = [owner.store.weights(name) for name in DESCENDANTS]
    done = unlearn(owner, task).models
    assert (calls["file"], calls["lengths"]) == (files, 1)
    change = PackedDelta.from_packet(packet).values
    for one, weights in zip(done, before, strict=True):
        add(weights, [(change, 1.0)])
        assert one.successor.digest == weights_digest(weights)


def test_one_result_is_held_beside_the_reply(
    owner: RetrainingOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, packet = packet_of(owner)
    task = task_for(owner, packet, [])
    made: list[pb.ModelResult] = []
    held: list[list[int]] = []
    unlearned = actions._unlearned

    def watched(inputs: TaskInputs, model: pb.ModelTask) -> pb.ModelResult:
        held.append([sys.getrefcount(one) for one in made])
        made.append(unlearned(inputs, model))
        return made[-1]

    monkeypatch.setattr(actions, "_unlearned", watched)
    done = unlearn(owner, task).models
    assert [one.model_id for one in done] == DESCENDANTS
    (by_the_test,) = [sys.getrefcount(one) for one in [object()]]
    assert held == [[by_the_test] * number for number in range(len(DESCENDANTS))]


def test_a_manifest_is_made_once_for_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = checkpoints.make_manifest

    def counted(state: Mapping[str, Tensor]) -> Mapping[str, str]:
        made.append(sorted(state))
        return make(state)

    for module in ("client.store.objects", "client.store.store", "common.tensors.stored"):
        monkeypatch.setattr(f"disinherit.{module}.make_manifest", counted)
    weights = {"w": torch.ones(2, 3)}
    record = ModelRecord("m", "ann", "arch", ("a", "b"), weights_digest(weights), 1)
    with ModelStore(tmp_path, "ann") as store:
        store.add(record, weights)
        assert made == [["w"]]
        store.prepare("q", "m", {"w": torch.zeros(2, 3)}, b"")
        assert made == [["w"]] * 2
        assert torch.equal(store.prepared("q", "m")[0]["w"], torch.zeros(2, 3))  # type: ignore[index]


def test_stacked_tensors_are_found_by_the_digest_of_their_manifest(tmp_path: Path) -> None:
    weights = {"w": torch.ones(2, 3)}
    objects = Objects(tmp_path)
    digest = objects.put_pack(weights)
    assert digest == weights_digest(weights)
    assert torch.equal(objects.scope(digest, ["w"]).tensors["w"], weights["w"])


def test_a_repair_leaves_out_samples_that_roots_are_to_forget(
    owner: RetrainingOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, packet = packet_of(owner)
    task = task_for(owner, packet, [root])
    task.method.repair_steps = 1
    seen: dict[int, Any] = {}

    def spy(model: object, values: object, batches: Batches, *_: object, **__: object) -> Any:
        seen[len(seen)] = [inputs for inputs, _ in batches]
        return values

    monkeypatch.setattr(settling, "repair", spy)
    done = unlearn(owner, task).models
    assert [one.outcome for one in done] == [pb.OUTCOME_INEFFECTIVE] * len(DESCENDANTS)
    for one, name in zip(done, DESCENDANTS, strict=True):
        assert f"model '{name}' was itself trained on" in one.error
    for kept, name in zip(seen.values(), DESCENDANTS, strict=True):
        record = owner.store.record(name)
        own = [id for id in FORGOTTEN if id in owner.sample_ids(record)]
        ((named_inputs, _),), ((others, _),) = owner.split_training_data(record, own)
        assert len(named_inputs) == len(own) > 0
        assert len(kept) == 1
        assert torch.equal(kept[0], cast("Tensor", others))
