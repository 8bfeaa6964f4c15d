"""Forgotten data stays forgotten: every reader of an owner's data leaves it out afterwards."""

import ast
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

import disinherit.client
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.owner.owner import Batches
from disinherit.client.privacy import remaining
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import DataError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.wire.samples import digest_samples
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.owner import LABELS, SAMPLES, PointsOwner

STRONG = {"alpha": 0.01, "lam": 0.01, "gauge": 3.0}
METHOD = make_method(**STRONG)


class Forgetful(PointsOwner):
    """An owner with the same data for a version and its successor, as in docs/federation.md."""

    def training_data(self, record: ModelRecord) -> Batches | None:
        return super().training_data(self.store.record("m"))

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        return super().tuning_data(self.store.record("m"))

    def sample_ids(self, record: ModelRecord) -> list[str]:
        return super().sample_ids(self.store.record("m"))

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        return super().split_training_data(self.store.record("m"), samples)


class Anonymous(Forgetful):
    """An owner without sample ids."""

    sample_ids = None  # type: ignore[assignment]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Forgetful]:
    owner = Forgetful(tmp_path / "anna", "anna")
    with owner:
        owner.train("m", LABELS, 1)
        register(owner, pb.RegisterTask(scope="head"))
        yield owner


def forget(
    owner: PointsOwner, model: str, classes: Sequence[str], id: str, method: Method = METHOD
) -> ModelRecord:
    task = make_task(owner, [model], collect(owner, "m", classes, method), method, id)
    (result,) = unlearn(owner, task).models
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
    return owner.store.record(result.successor.id)


def forget_samples(owner: PointsOwner, samples: Sequence[str], id: str = "erase") -> ModelRecord:
    named = digest_samples(sample_key(owner.store.root), secrets.token_hex(16), samples)
    method = make_method(scope="all", row_scoped=False, alpha=3.0, gauge=0.0)
    packet = collect(owner, "m", ["cat"], method)
    packet.ClearField("classes")
    task = make_task(owner, ["m"], packet, method, id)
    task.models[0].samples.extend(named.digests)
    task.models[0].sample_salt = named.salt
    task.max_retain_drop = 100
    (result,) = unlearn(owner, task).models
    assert result.successor.id, result.error
    return owner.store.record(result.successor.id)


def classes_in(batches: Batches | None) -> set[str]:
    assert batches is not None
    return {LABELS[int(target)] for _, targets in batches for target in targets}


def size(batches: Batches | None) -> int:
    assert batches is not None
    return sum(len(targets) for _, targets in batches)


def test_a_forgotten_class_is_in_no_data_of_a_successor_or_of_its_successors(
    owner: Forgetful,
) -> None:
    first = forget(owner, "m", ["cat"], "one")
    second = forget(owner, first.id, ["owl"], "two")
    assert remaining.cleared_classes(owner, owner.store.record("m")) == ()
    assert remaining.cleared_classes(owner, first) == (0,)
    assert remaining.cleared_classes(owner, second) == (0, 2)
    readers = remaining.training_data, remaining.tuning_data, remaining.evaluation_data
    for read in readers:
        assert classes_in(read(owner, first)) == {"dog", "owl", "yak"}
        assert classes_in(read(owner, second)) == {"dog", "yak"}
        assert classes_in(read(owner, second, keep=[2])) == {"dog", "owl", "yak"}


def test_a_summary_registered_again_excludes_forgotten_classes(owner: Forgetful) -> None:
    made = forget(owner, "m", ["cat"], "one")
    register(owner, pb.RegisterTask(scope="all"))
    summary = owner.store.fishers(made.id)
    assert summary is not None
    fishers, scope = summary
    assert scope == "all"
    assert fishers.counts.tolist() == [0, *[SAMPLES["train"]] * 3]
    assert fishers.class_totals()[0] == 0


def test_a_later_repair_does_not_train_on_forgotten_classes(owner: Forgetful) -> None:
    made = forget(owner, "m", ["cat"], "one")
    method = make_method(**STRONG, repair_steps=400)
    last = forget(owner, made.id, ["owl"], "two", method)
    network = owner.network(last)
    network.load_state_dict(owner.store.weights(last.id))
    found: dict[str, list[bool]] = {name: [] for name in LABELS}
    with torch.no_grad():
        for inputs, targets in owner.evaluation_data(owner.store.record("m")) or []:
            for named, target in zip(network(inputs).argmax(1), targets, strict=True):
                found[LABELS[int(target)]].append(bool(named == target))
    accuracy = {name: sum(right) / len(right) for name, right in found.items()}
    assert accuracy["cat"] == accuracy["owl"] == 0
    assert min(accuracy["dog"], accuracy["yak"]) > 0.9


def test_forgotten_samples_are_left_out_of_data_and_of_later_splits(owner: Forgetful) -> None:
    made = forget_samples(owner, ["cat-1", "dog-2"])
    everything = SAMPLES["train"] * len(LABELS)
    assert sorted(remaining.cleared_samples(owner, made)) == ["cat-1", "dog-2"]
    assert size(remaining.training_data(owner, made)) == everything - 2
    gone, kept = remaining.split_training_data(owner, made, ["owl-3", "cat-1"])
    assert (size(gone), size(kept)) == (2, everything - 3)
    register(owner, pb.RegisterTask(scope="all"))
    summary = owner.store.fishers(made.id)
    assert summary is not None
    assert summary[0].counts.tolist() == [23, 23, 24, 24]


def test_data_with_forgotten_samples_is_refused_without_ids(owner: Forgetful) -> None:
    made = forget_samples(owner, ["cat-1"])
    owner.store.close()
    with (
        Anonymous(owner.store.root, "anna") as anonymous,
        pytest.raises(DataError, match="forgotten on the way to model 'm~erase'"),
    ):
        remaining.training_data(anonymous, made)


def test_classes_missing_in_an_older_ledger_follow_from_summaries(owner: Forgetful) -> None:
    made = forget(owner, "m", ["cat"], "one")
    owner.store._index._db.execute("UPDATE ledger SET forgotten = ''")
    assert remaining.cleared_classes(owner, made) == (0,)


def test_no_other_client_module_reads_data_for_a_version() -> None:
    """Exceptions: evaluation, the owner's own code, and a check whether data exists."""
    allowed = {
        "owner.py": 0,
        "remaining.py": 3,
        "evaluating.py": 1,
        "stacking.py": 0,  # references, uncalled
    }
    names = {"training_data", "tuning_data", "evaluation_data", "split_training_data"}
    for path in Path(disinherit.client.__path__[0]).glob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in names
        ]
        known = 1 if path.name == "samples.py" else allowed.get(path.name, 0)
        assert len(calls) == known, path.name
