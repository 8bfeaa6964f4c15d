"""Forgetting of samples and of all of a model's training at an owner, against naive gradients."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from disinherit.client.actions.evaluate import preview
from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.one import dampen_model
from disinherit.client.dampening.summaries import register
from disinherit.client.dampening.task_inputs import TaskInputs
from disinherit.client.dampening.tuning import SAMPLES as SAMPLES_ALONE
from disinherit.client.dampening.tuning import SAMPLES_REPAIRED, DampeningStrength
from disinherit.client.owner.owner import Batches
from disinherit.client.privacy import samples
from disinherit.common.graph.records import ModelRecord
from disinherit.common.wire.packets import PackedFisher, decode_fisher
from disinherit.common.wire.samples import digest_sample
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import HEAD, make_method, make_task
from tests.support.owner import (
    LABELS,
    SALT,
    SAMPLES,
    PointsOwner,
    make_network,
    make_points,
    named,
    samples_root,
)

CLASSES = ("cat", "dog", "owl")
IDS = [f"{name}-{i}" for name in CLASSES for i in range(SAMPLES["train"])]
METHOD = make_method(alpha=1.5, lam=0.5, gauge=0.0)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[PointsOwner]:
    with PointsOwner(tmp_path, "anna") as owner:
        owner.train("m", CLASSES, created_us=1)
        owner.train("n", ("dog",), created_us=2, start=[owner.store.weights("m")])
        yield owner


def naive_fisher(owner: PointsOwner, model: str, chosen: Sequence[str]) -> dict[str, Tensor]:
    """Mean over the named samples of the squared gradient, one backward pass each."""
    network = make_network()
    network.load_state_dict(owner.store.weights(model))
    inputs, targets = make_points(owner.name, "train", LABELS, CLASSES)
    sums = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for i, sample in enumerate(IDS):
        if sample in chosen:
            network.zero_grad()
            nn.functional.cross_entropy(network(inputs[i : i + 1]), targets[i : i + 1]).backward()
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None
                sums[name] += parameter.grad**2
    return {name: value / len(chosen) for name, value in sums.items()}


def ask(owner: PointsOwner, root: pb.Root, scope: str = "head") -> pb.RootFisher:
    task = pb.FisherTask(request_id="q", roots=[root], method=make_method(scope=scope).to_proto())
    (answer,) = forget_fishers(owner, task).roots
    return answer


def name_samples(owner: PointsOwner, task: pb.UnlearnTask, samples: Sequence[str]) -> None:
    """Have the first model of a task forget samples of its own."""
    found = named(owner.store.root, samples)
    task.models[0].samples.extend(found.digests)
    task.models[0].sample_salt = found.salt


def packet_of(owner: PointsOwner, samples: Sequence[str], scope: str = "head") -> pb.FisherPacket:
    answer = ask(owner, samples_root("m", owner.store.root, samples), scope)
    assert not answer.error
    (packet,) = answer.packets
    return packet


@pytest.mark.parametrize("scope", ["head", "all"])
@given(chosen=st.sets(st.sampled_from(IDS), min_size=1, max_size=8))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_fisher_of_samples_is_the_mean_of_their_squared_gradients(
    scope: str, chosen: set[str], owner: PointsOwner
) -> None:
    packet = packet_of(owner, sorted(chosen), scope)
    assert packet.samples == len(chosen)
    assert list(packet.classes) == []
    expected = naive_fisher(owner, "m", sorted(chosen))
    found = decode_fisher(packet)
    assert set(found) == (set(HEAD) if scope == "head" else set(expected))
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])


@given(chosen=st.sets(st.sampled_from(IDS), min_size=1, max_size=30))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_reference_is_the_rest_of_the_models_own_data(
    chosen: set[str], owner: PointsOwner
) -> None:
    """All rows can be selected, for any `row_scoped`: no class is to be forgotten."""
    samples = sorted(chosen)
    packet = packet_of(owner, samples)
    record, before = owner.store.record("m"), owner.store.weights("m")
    found = dampen_model(owner, record, PackedFisher.from_packet(packet), METHOD, samples).weights
    forget = naive_fisher(owner, "m", samples)
    retain = naive_fisher(owner, "m", [sample for sample in IDS if sample not in chosen])
    for name, value in before.items():
        expected = value
        if name in HEAD:
            factor = (0.5 * retain[name] / forget[name]).clamp(max=1)
            expected = torch.where(forget[name] > 1.5 * retain[name], value * factor, value)
        torch.testing.assert_close(found[name], expected)


def test_reference_all_is_all_of_the_models_own_data(owner: PointsOwner) -> None:
    """The reference includes the samples to forget; the successor's summary does not."""
    samples = [f"cat-{i}" for i in range(10)]
    method = make_method(alpha=1.5, lam=0.5, gauge=0.0, reference="all")
    packet, record = packet_of(owner, samples), owner.store.record("m")
    found = dampen_model(owner, record, PackedFisher.from_packet(packet), method, samples)
    forget, everything = (naive_fisher(owner, "m", some) for some in (samples, IDS))
    for name in HEAD:
        before = owner.store.weights("m")[name]
        factor = (0.5 * everything[name] / forget[name]).clamp(max=1)
        selected = forget[name] > 1.5 * everything[name]
        expected = torch.where(selected, before * factor, before)
        torch.testing.assert_close(found.weights[name], expected)
    assert found.summary is not None
    assert int(found.summary.fishers.counts.sum()) == len(IDS) - len(samples)


class Remembering(PointsOwner):
    """An owner that provides a version's training data also for its successors."""

    def _origin(self, record: ModelRecord) -> ModelRecord:
        return self.store.record(record.id.split("~")[0])

    def training_data(self, record: ModelRecord) -> Batches | None:
        return super().training_data(self._origin(record))

    def sample_ids(self, record: ModelRecord) -> list[str]:
        return super().sample_ids(self._origin(record))

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        return super().split_training_data(self._origin(record), samples)


def test_a_second_request_for_samples_forgets_like_the_first(tmp_path: Path) -> None:
    """A root's successor is compared like the root, at its own scale."""
    owner = Remembering(tmp_path / "anna", "anna")
    owner.train("m", LABELS[:3], 1)
    first, second = [f"cat-{i}" for i in range(3)], [f"owl-{i}" for i in range(3)]
    method = make_method(alpha=0.5, lam=0.5, gauge=0.0, rescale=True)

    def ask_for(model: str, samples: list[str], request: str) -> pb.ModelResult:
        task = make_task(owner, [model], packet_of(owner, samples), method, request)
        name_samples(owner, task, samples)
        (result,) = unlearn(owner, task).models
        assert result.HasField("successor"), result.error
        return result

    alone = dampen_model(
        owner,
        owner.store.record("m"),
        PackedFisher.from_packet(packet_of(owner, second)),
        method,
        second,
    ).result
    ask_for("m", first, "first")
    after = ask_for("m~first", second, "second")
    counts = [sum(sum(s.rows) for s in result.selections) for result in (alone, after)]
    assert alone.scale == after.scale == 1
    assert counts[0] > 0
    assert counts[0] / 2 <= counts[1] <= 2 * counts[0]
    owner.store.close()


def test_a_descendant_compares_with_all_of_its_own_data(owner: PointsOwner) -> None:
    packet = packet_of(owner, ["cat-0"])
    with_samples = dampen_model(
        owner, owner.store.record("n"), PackedFisher.from_packet(packet), METHOD
    )
    forget = naive_fisher(owner, "m", ["cat-0"])
    dogs = [sample for sample in IDS if sample.startswith("dog")]
    retain = naive_fisher(owner, "n", dogs)
    before = owner.store.weights("n")
    for name in HEAD:
        factor = (0.5 * retain[name] / forget[name]).clamp(max=1)
        selected = forget[name] > 1.5 * retain[name]
        expected = torch.where(selected, before[name] * factor, before[name])
        torch.testing.assert_close(with_samples.weights[name], expected)


def test_a_clients_contribution_is_all_that_its_model_was_trained_on(owner: PointsOwner) -> None:
    register(owner, pb.RegisterTask(scope="head"))
    owner.keeps_data = False  # its registered summary suffices
    answer = ask(owner, pb.Root(model_id="m"))
    (packet,) = answer.packets
    assert packet.samples == len(IDS)
    expected = naive_fisher(owner, "m", IDS)
    for name, value in decode_fisher(packet).items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize(("repair", "default"), [(0, SAMPLES_ALONE), (3, SAMPLES_REPAIRED)])
def test_the_default_strength_is_that_for_samples(
    owner: PointsOwner, repair: int, default: DampeningStrength
) -> None:
    packet = packet_of(owner, ["cat-0", "dog-1"])
    method = make_method(alpha=None, lam=None, gauge=None, repair_steps=repair)
    samples = ["cat-0"]
    result = dampen_model(
        owner, owner.store.record("m"), PackedFisher.from_packet(packet), method, samples
    ).result
    assert DampeningStrength(result.alpha, result.lam, result.gauge) == default
    assert not result.tuned


def test_a_preview_equals_the_stored_successor(owner: PointsOwner) -> None:
    samples = ["cat-0", "owl-5", "dog-7"]
    task = make_task(owner, ["m"], packet_of(owner, samples), METHOD)
    name_samples(owner, task, samples)
    seen = preview(owner, task).models[0].digest
    (result,) = unlearn(owner, task).models
    assert result.outcome == pb.OUTCOME_INEFFECTIVE  # three samples of retained classes
    assert result.successor.digest == seen
    (again,) = unlearn(owner, task).models
    assert again.successor == result.successor


def test_a_successors_summary_is_without_the_samples(owner: PointsOwner) -> None:
    samples = [f"cat-{i}" for i in range(10)]
    task = make_task(owner, ["m"], packet_of(owner, samples), METHOD)
    name_samples(owner, task, samples)
    (result,) = unlearn(owner, task).models
    stored = owner.store.fishers(result.successor.id)
    assert stored is not None
    counts = dict(zip(LABELS, stored[0].counts.tolist(), strict=True))
    assert counts == {"cat": SAMPLES["train"] - 10, "dog": 24, "owl": 24, "yak": 0}


def test_unknown_samples_are_refused_and_nothing_is_changed(owner: PointsOwner) -> None:
    error = ask(owner, samples_root("m", owner.store.root, ["cat-0", "yak-0"])).error
    assert "1 of 2 are of none" in error
    assert "yak-0" not in error
    task = make_task(owner, ["m"], packet_of(owner, ["cat-0"]), METHOD)
    name_samples(owner, task, ["yak-0"])
    (result,) = unlearn(owner, task).models
    assert result.outcome == pb.OUTCOME_FAILED
    assert "1 of 1 are of none" in result.error
    assert [record.id for record in owner.store.records()] == ["m", "n"]


def test_unknown_samples_are_skipped_and_counted_on_request(
    owner: PointsOwner,
) -> None:
    root = samples_root("m", owner.store.root, ["cat-0", "cat-1", "yak-0"])
    root.ignore_unknown = True
    answer = ask(owner, root)
    assert not answer.error
    alone = ask(owner, samples_root("m", owner.store.root, ["cat-0", "cat-1"]))
    assert answer.packets == alone.packets
    task = make_task(owner, ["m"], answer.packets[0], METHOD)
    name_samples(owner, task, ["cat-0", "cat-1", "yak-0"])
    task.models[0].ignore_unknown = True
    (result,) = unlearn(owner, task).models
    assert result.outcome in (pb.OUTCOME_APPLIED, pb.OUTCOME_INEFFECTIVE), result.error
    assert result.unknown_samples == 1
    nobody = samples_root("m", owner.store.root, ["yak-0"])
    nobody.ignore_unknown = True
    assert "1 of 1 are of none" in ask(owner, nobody).error  # not a request about nothing


def test_a_task_resolves_its_samples_once(
    owner: PointsOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["cat-0", "cat-1", "dog-0", "yak-0"]
    root = samples_root("m", owner.store.root, asked)
    root.ignore_unknown = True
    (packet,) = ask(owner, root).packets
    task = make_task(owner, ["m", "n"], packet, make_method(alpha=1.5, lam=0.5, repair_steps=2))
    task.roots.append(root)
    name_samples(owner, task, asked)
    task.models[0].ignore_unknown = True

    digested: Counter[str] = Counter()

    def counted(key: bytes, salt: str, sample: str) -> str:
        digested[sample] += 1
        return digest_sample(key, salt, sample)

    monkeypatch.setattr(samples, "digest_sample", counted)
    first, second = unlearn(owner, task).models
    assert (first.unknown_samples, first.repair_steps) == (1, 2)
    assert first.HasField("forget")
    assert second.HasField("forget")
    assert digested == dict.fromkeys(IDS, 1)


@pytest.mark.parametrize("once", [list, iter])
def test_samples_that_a_model_below_was_trained_on_are_found(
    owner: PointsOwner, monkeypatch: pytest.MonkeyPatch, once: Callable[[list[str]], Iterable[str]]
) -> None:
    """Owners may give ids that can be read once."""
    asked = ["cat-0", "dog-0", "dog-1"]
    root = samples_root("m", owner.store.root, asked)
    task = make_task(owner, ["n"], ask(owner, root).packets[0], METHOD)
    task.roots.append(root)
    real = owner.sample_ids
    monkeypatch.setattr(owner, "sample_ids", lambda record: once(real(record)))
    with TaskInputs(owner, task) as inputs:
        assert inputs.own_samples(owner.store.record("n")) == {"dog-0", "dog-1"}


def test_digests_made_with_another_key_match_no_sample(owner: PointsOwner, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert "1 of 1 are of none" in ask(owner, samples_root("m", other, ["cat-0"])).error


def test_ids_in_place_of_digests_are_refused(owner: PointsOwner) -> None:
    error = ask(owner, pb.Root(model_id="m", samples=["cat-0"], sample_salt=SALT)).error
    assert "64 hexadecimal digits" in error
    assert "cat-0" not in error


def test_an_owners_messages_about_ids_stay_in_its_log(
    owner: PointsOwner, caplog: pytest.LogCaptureFixture
) -> None:
    owner.keeps_data = False
    error = ask(owner, samples_root("m", owner.store.root, ["cat-0"])).error
    assert "The owner's log has the reason" in error
    assert "cat-0" not in error
    assert "Expected cat-0 to be there" in caplog.text


class NamelessOwner(PointsOwner):
    """An owner without sample ids."""

    split_training_data = None  # type: ignore[assignment]


def test_an_owner_without_sample_ids_reports_it(tmp_path: Path) -> None:
    with NamelessOwner(tmp_path, "ben") as owner:
        owner.train("m", CLASSES, created_us=1)
        error = ask(owner, samples_root("m", owner.store.root, ["cat-0"])).error
        assert "ben to know its samples by id" in error
        assert not ask(owner, pb.Root(model_id="m", classes=["cat"])).error
