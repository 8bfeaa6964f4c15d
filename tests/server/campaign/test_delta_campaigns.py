"""Campaigns by changes of roots: complete, undone, staged, kept for a time, destroyed, resumed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from disinherit.common.audit.attestation import read_statement
from disinherit.common.audit.contradictions import find_fault
from disinherit.common.audit.dsse import TrustedKeys
from disinherit.common.audit.export import read_entry
from disinherit.common.errors import CampaignError, CheckpointError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelStatus
from disinherit.server.now import now_us
from disinherit.server.reports.report import coverage_of, report_of
from disinherit.server.reports.statement import attest
from disinherit.server.states import CampaignEvent, CampaignState, TaskState
from disinherit.server.store import retention
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.server.reports.test_report import SIGNER
from tests.server.store.test_audit import exported
from tests.support.campaign import (
    AFFECTED,
    NAMES,
    World,
    broken,
    gone,
    lying,
    reply_lost,
)
from tests.support.delta_world import (
    C2,
    DELTA_MESSAGES,
    C,
    copy_delta,
    delta_request,
    near,
    owner_of,
    plus,
    retrained,
    same,
)
from tests.support.retraining_owner import ODD, OddOwner

VERIFIED = dict.fromkeys(AFFECTED, TaskState.VERIFIED)
E, S, T = CampaignEvent, CampaignState, TaskState


@pytest.fixture
def world(built_delta: Path, tmp_path: Path) -> Iterator[World]:
    with copy_delta(built_delta, tmp_path / "world") as world:
        world.coordinator.submit(delta_request(world))
        yield world


def active(world: World) -> dict[str, str]:
    """Model -> digest of what is current at its owner; the weights are what it says."""
    found = {}
    for name in NAMES:
        with OddOwner(world.root / name, name) as owner:
            for record in owner.store.records():
                if record.status is ModelStatus.ACTIVE:
                    owner.store.weights(record.id)
                    found[record.id] = record.digest
    return found


def remedies(world: World, request_id: str = "q") -> dict[str, str]:
    covered = coverage_of(world.store, request_id).models
    return {one.model_id: pb.Remedy.Name(one.remedy).removeprefix("REMEDY_") for one in covered}


def check_added(world: World) -> None:
    """The root is its replay, and the others have its change by their coefficients."""
    before, after = world.weights("r1"), retrained(world, "r1", ODD)
    assert same(world.weights("r1~q"), after)
    for model in AFFECTED[1:]:
        expected = plus(world.weights(model), [(C[model], after, before)])
        assert near(world.weights(f"{model}~q"), expected), model


def attested(world: World, request_id: str = "q") -> Any:
    envelope = attest(report_of(world.store, request_id), SIGNER)
    entries = [read_entry(line) for line in list(world.store.audit_lines(request_id))[1:]]
    assert find_fault(envelope, TrustedKeys.from_pem(SIGNER.public_pem), entries) is None
    return read_statement(envelope)["predicate"]


def objects(world: World, name: str) -> set[str]:
    return {path.stem for path in (world.root / name / "objects").iterdir()}


# --- a campaign


def test_the_root_is_replayed_and_descendants_get_its_change_by_their_shares(world: World) -> None:
    others = {model: world.weights(model) for model in ("d", "s")}
    result = world.coordinator.run("q")
    assert result.outcome == "complete"
    assert sorted(result.changed) == sorted(AFFECTED)
    assert world.states() == VERIFIED
    assert world.transport.actions() == list(DELTA_MESSAGES)
    check_added(world)
    for model, weights in others.items():
        assert same(world.weights(model), weights)
    for model, task in world.store.tasks("q").items():
        assert task.result is not None
        (applied,) = task.result.deltas
        assert (applied.root, applied.coefficient) == ("r1", C[model])
        assert applied.root_method == "replay"
        # Only the owner of r1 can tell what is left of its update.
        assert (applied.measured > 0.5) == (model == "r4")


def test_remedies_are_in_coverage_report_log_and_attestation(world: World) -> None:
    world.coordinator.run("q")
    expected = {m: "REPLAYED" if m == "r1" else "APPROXIMATED" for m in AFFECTED}
    assert remedies(world) == expected
    report = {
        one.covered.model_id: one.covered.remedy for one in report_of(world.store, "q").models
    }
    assert {m: pb.Remedy.Name(r).removeprefix("REMEDY_") for m, r in report.items()} == expected
    logged = {
        entry.event.model_id: entry.event.parameters["remedy"]
        for entry in exported(world.store, "q")
        if entry.event.kind == "applied"
    }
    assert {m: str(r).upper() for m, r in logged.items()} == expected
    said = {one["id"]: one["parameters"]["remedy"].upper() for one in attested(world)["models"]}
    assert said == expected


def test_several_roots_add_up_and_a_root_below_a_root_starts_as_it_did(
    built_delta: Path, tmp_path: Path
) -> None:
    owls = [f"owl-{i}" for i in range(6)]
    with copy_delta(built_delta, tmp_path / "world") as world:
        world.coordinator.submit(delta_request(world, "two", {"r1": ODD, "r2": owls}))
        world.coordinator.run("two")
        first = retrained(world, "r1", ODD), world.weights("r1")
        second = retrained(world, "r2", owls), world.weights("r2")
        assert same(world.weights("r1~two"), first[0])
        expected = plus(second[0], [(1.0, *first)])
        assert near(world.weights("r2~two"), expected)
        for model in ("r3", "r4", "r6"):
            expected = plus(world.weights(model), [(C[model], *first), (C2[model], *second)])
            assert near(world.weights(f"{model}~two"), expected), model
        # It has more than its own replay.
        assert remedies(world, "two") == {
            m: "REPLAYED" if m == "r1" else "APPROXIMATED" for m in AFFECTED
        }
        attested(world, "two")


# --- again


def test_the_same_request_again_changes_nothing(world: World) -> None:
    world.coordinator.run("q")
    files, known = world.files(), world.knowledge()
    world.coordinator.submit(delta_request(world))
    assert world.coordinator.run("q").outcome == "unchanged"
    assert world.coordinator.run("q", resend=True).outcome == "unchanged"
    assert (world.files(), world.knowledge()) == (files, known)


def test_resend_finds_what_was_applied(world: World) -> None:
    world.transport.twists["ben", "train.unlearn"] = reply_lost
    world.coordinator.run("q")
    files = world.files()
    world.transport.twists.clear()
    result = world.coordinator.run("q", resend=True)
    assert {"r2", "r6"} <= set(result.already_applied)
    assert world.states() == VERIFIED
    assert world.files() == files


def test_a_second_request_for_other_samples_changes_the_present_version(world: World) -> None:
    world.coordinator.run("q")
    before = {model: world.weights(f"{model}~q") for model in AFFECTED}
    dogs = ["dog-1", "dog-5"]
    world.coordinator.submit(delta_request(world, "p", {"r1": dogs}))
    world.coordinator.run("p")
    after = retrained(world, "r1", [*ODD, *dogs])
    assert same(world.weights("r1~q~p"), after)
    for model in AFFECTED[1:]:
        expected = plus(before[model], [(C[model], after, before["r1"])])
        assert near(world.weights(f"{model}~q~p"), expected), model
    states = world.states("p")
    assert {m for m in AFFECTED if states[m] is T.EXEMPT} == set(AFFECTED)
    assert remedies(world, "p")["r1~q"] == "REPLAYED"
    attested(world, "p")


# --- undone


def test_roll_back_puts_root_and_descendants_back(world: World) -> None:
    before = active(world)
    world.coordinator.run("q")
    assert active(world) != before
    world.store.roll_back("q", reason="too much was lost", actor="approver:eve")
    assert world.coordinator.run("q").outcome == "rolled_back"
    assert active(world) == before
    assert attested(world)["state"] == "rolled_back"
    with owner_of(world, "r1") as owner:
        assert owner.store.prepared("q", "r1") is None
    # Another one begins anew, from the weights of before.
    world.coordinator.submit(delta_request(world, "p"))
    world.coordinator.run("p")
    assert same(world.weights("r1~p"), retrained(world, "r1", ODD))


def test_roll_back_before_the_root_applied_drops_its_kept_weights(world: World) -> None:
    before = active(world)
    world.transport.twists["anna", "train.unlearn"] = broken
    world.coordinator.run("q")
    with owner_of(world, "r1") as owner:
        assert owner.store.prepared("q", "r1") is not None
    world.store.transition("q", E.PAUSE)
    world.store.roll_back("q", reason="no")
    world.transport.twists.clear()
    world.coordinator.run("q")
    assert active(world) == before
    with owner_of(world, "r1") as owner:
        assert owner.store.prepared("q", "r1") is None
        held = {r.digest for r in owner.store.records()} | {
            r.fisher_digest for r in owner.store.records()
        }
    assert objects(world, "anna") <= held


# --- staged, paused


def test_canaries_go_first_and_a_loss_halts_the_rest(built_delta: Path, tmp_path: Path) -> None:
    with copy_delta(built_delta, tmp_path / "world") as world:
        request = delta_request(world)
        request.roll_out.CopyFrom(
            pb.RollOut(canaries=["cleo"], waves=[pb.Wave(count=1)], max_retain_drop=2.0)
        )
        world.coordinator.submit(request)

        def lose(reply: pb.UnlearnReply) -> None:
            for model in reply.models:
                model.retain_after = model.retain_before - 0.09

        before = active(world)
        world.transport.twists["cleo", "train.unlearn"] = lying(lose)
        world.coordinator.run("q")
        assert world.store.campaign("q").state is S.HALTED
        told = [o for o, action in world.transport.actions() if action == "train.unlearn"]
        assert told == ["cleo"]
        now = active(world)
        assert {m for m in before if m not in now} == {"r3"}
        world.store.roll_back("q", reason="the canary lost too much")
        world.coordinator.run("q")
        assert active(world) == before


def test_waves_end_like_all_at_once(built_delta: Path, tmp_path: Path) -> None:
    with copy_delta(built_delta, tmp_path / "world") as world:
        request = delta_request(world)
        request.roll_out.CopyFrom(pb.RollOut(canaries=["cleo"], waves=[pb.Wave(count=1)]))
        world.coordinator.submit(request)
        assert world.coordinator.run("q").outcome == "complete"
        actions = world.transport.actions()
        assert actions.count(("anna", "query.delta")) == 1
        assert next(o for o, a in actions if a == "train.unlearn") == "cleo"
        check_added(world)


@pytest.mark.parametrize("event", [E.PAUSE, E.ABORT])
def test_between_question_and_application_nothing_is_changed(
    world: World, event: CampaignEvent
) -> None:
    before = active(world)

    def stop(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        world.store.transition("q", event)
        return honest()

    world.transport.twists["anna", "query.delta"] = stop
    world.coordinator.run("q")
    assert world.transport.actions() == [("anna", "query.delta")]
    assert active(world) == before
    if event is E.ABORT:
        with pytest.raises(CampaignError):
            world.coordinator.run("q")
        return
    world.store.transition("q", E.RESUME)
    world.coordinator.run("q")
    # The answer was recorded: the root is not unlearned again.
    assert ("anna", "query.delta") not in world.transport.actions()
    check_added(world)


# --- kept for a time


def test_old_versions_are_destroyed_after_their_window(
    built_delta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with copy_delta(built_delta, tmp_path / "world") as world:
        request = delta_request(world)
        request.retention_seconds = 3600
        world.coordinator.submit(request)
        world.coordinator.run("q")
        old = {m: world.store.graph().model(m).digest for m in AFFECTED}
        new = {m: world.weights(f"{m}~q") for m in AFFECTED}
        monkeypatch.setattr(retention, "now_us", lambda: now_us() + 3601 * 1_000_000)
        world.coordinator.drive("q")
        for name in NAMES:
            assert not objects(world, name) & set(old.values())
        for model in AFFECTED:
            assert same(world.weights(f"{model}~q"), new[model])
        attested(world)
        # The next request starts from what is left.
        world.coordinator.submit(delta_request(world, "p", {"r1": ["dog-1"]}))
        world.coordinator.run("p")
        assert same(world.weights("r1~q~p"), retrained(world, "r1", [*ODD, "dog-1"]))


# --- away, and late


def test_an_owner_that_was_away_gets_the_stored_change(world: World) -> None:
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.coordinator.run("q")
    assert world.states() == {**VERIFIED, "r3": T.PENDING}
    world.transport.twists.clear()
    world.transport.actions()
    with world.again() as again:
        assert again.coordinator.run("q").outcome == "complete"
        assert again.transport.actions() == [
            ("cleo", "train.unlearn"),
            ("cleo", "evaluate.panel"),
        ]
        check_added(again)


def test_a_root_whose_owner_is_away_is_waited_for(world: World) -> None:
    world.transport.twists["anna", "query.delta"] = gone
    world.coordinator.run("q")
    assert set(world.states().values()) == {T.PENDING}
    world.transport.twists.clear()
    assert world.coordinator.run("q").outcome == "complete"
    check_added(world)


def test_a_late_descendant_joins_with_the_stored_change(world: World) -> None:
    world.coordinator.run("q")
    world.transport.actions()
    with OddOwner(world.root / "cleo", "cleo") as cleo:
        record = cleo.train("late", ("dog", "yak"), now_us(), start=[world.weights("r4")])
        world.store.add_model(record, [Inheritance("r4", "late", InheritanceKind.TRANSFER)])
    assert world.coordinator.register(["cleo"], "all") == {}
    world.transport.actions()
    result = world.coordinator.run("q")
    assert result.changed == ("late",)
    assert ("anna", "query.delta") not in world.transport.actions()
    with OddOwner(world.root / "cleo", "cleo") as cleo:
        found, before = cleo.store.weights("late~q"), cleo.store.weights("late")
    change = retrained(world, "r1", ODD), world.weights("r1")
    assert near(found, plus(before, [(1.0, *change)]))


def test_a_damaged_stored_packet_is_asked_for_again(world: World) -> None:
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.coordinator.run("q")
    (packet,) = world.packets.glob("*.safetensors")
    packet.write_bytes(packet.read_bytes()[:-1])
    world.transport.twists.clear()
    world.transport.actions()
    world.coordinator.run("q")
    assert world.transport.actions()[0] == ("anna", "query.delta")
    check_added(world)


# --- kept weights


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_kept_weights_that_are_gone_are_made_again(world: World, damage: str) -> None:
    def lose(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        with owner_of(world, "r1") as owner:
            kept = owner.store.prepared("q", "r1")
        assert kept is not None
        after = pb.Delta.FromString(kept[1]).after
        path = world.root / "anna" / "objects" / f"{after}.safetensors"
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-8])
        with owner_of(world, "r1") as owner, pytest.raises(CheckpointError):
            owner.store.prepared("q", "r1")
        return honest()

    world.transport.twists["anna", "train.unlearn"] = lose
    assert world.coordinator.run("q").outcome == "complete"
    check_added(world)


def test_kept_weights_that_cannot_be_made_again_are_one_clear_line(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        for path in (world.root / "anna" / "objects").iterdir():
            with owner_of(world, "r1") as owner:
                kept = owner.store.prepared("q", "r1") if path.exists() else None
            if kept is not None:
                after = pb.Delta.FromString(kept[1]).after
                (world.root / "anna" / "objects" / f"{after}.safetensors").unlink()
                break
        monkeypatch.setattr(OddOwner, "can_retrain", lambda self, record: False)
        return honest()

    world.transport.twists["anna", "train.unlearn"] = lose
    world.coordinator.run("q")
    assert world.states() == {**VERIFIED, "r1": T.FAILED, "r4": world.states()["r4"]}
    reason = world.reason("r1")
    assert "they are gone" in reason
    assert "\n" not in reason


# --- what nobody measured


def test_models_without_figures_are_not_verified_where_their_root_has_not_forgotten(
    world: World,
) -> None:
    def root_failed(reply: pb.UnlearnReply) -> None:
        (result,) = (one for one in reply.models if one.model_id == "r1")
        result.outcome, result.error = pb.OUTCOME_INEFFECTIVE, "it still knows them"

    world.transport.twists["anna", "train.unlearn"] = lying(root_failed)
    world.coordinator.run("q")
    states = world.states()
    assert states["r1"] is T.INEFFECTIVE
    measured = {
        model
        for model, task in world.store.tasks("q").items()
        if task.result is not None and task.result.HasField("forget")
    }
    others = [model for model in AFFECTED if model not in measured]
    assert others
    assert {states[model] for model in others} == {T.INEFFECTIVE}
    for model in others:
        assert "nobody measured it" in world.reason(model)
        assert "r1 is ineffective" in world.reason(model)


def test_nor_are_they_if_that_is_known_only_later(world: World) -> None:
    """The root's owner is away when descendants take the change, and are verified."""
    world.transport.twists["anna", "train.unlearn"] = gone
    world.coordinator.run("q")
    assert world.states() == {**VERIFIED, "r1": T.PENDING, "r4": T.PENDING}

    def root_failed(reply: pb.UnlearnReply) -> None:
        (result,) = (one for one in reply.models if one.model_id == "r1")
        result.outcome, result.error = pb.OUTCOME_INEFFECTIVE, "it still knows them"

    world.transport.twists["anna", "train.unlearn"] = lying(root_failed)
    result = world.coordinator.run("q")
    assert world.states() == {**dict.fromkeys(AFFECTED, T.INEFFECTIVE), "r4": T.VERIFIED}
    assert result.outcome == "partial"
    assert "nobody measured it" in world.reason("r6")
    attested(world)


def test_a_model_below_several_roots_is_verified_for_all_of_them_only(
    built_delta: Path, tmp_path: Path
) -> None:
    """No figure shows that r2 forgot its owls, and who is below has nothing that shows it."""
    owls = [f"owl-{i}" for i in range(6)]
    with copy_delta(built_delta, tmp_path / "world") as world:
        world.coordinator.submit(delta_request(world, "two", {"r1": ODD, "r2": owls}))
        world.coordinator.run("two")
        assert world.states("two") == dict.fromkeys(AFFECTED, T.INEFFECTIVE) | {"r1": T.VERIFIED}
        assert "had no power before" in world.reason("r2", "two")
        assert "nobody measured it" in world.reason("r3", "two")
        assert "r2 is ineffective" in world.reason("r3", "two")
        assert "samples of its own roots only" in world.reason("r4", "two"), "of those of r1"


def test_no_other_root_method_may_claim_exact_weights(world: World) -> None:
    def claim(reply: pb.FisherReply) -> None:
        reply.roots[0].packets[0].delta.root_method = "finetune"

    world.transport.twists["anna", "query.delta"] = lying(claim)
    world.coordinator.run("q")
    assert set(world.states().values()) == {T.FAILED}
    assert "Expected root method 'replay' where the new weights of r1 are exact" in world.reason(
        "r1"
    )
