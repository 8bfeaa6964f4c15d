"""Changes of roots that are not added to what models have of these roots already."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.client.dampening.summaries import register
from disinherit.client.deltas import inheriting
from disinherit.client.outcome import outcomes
from disinherit.client.privacy.policy import ReleasePolicy
from disinherit.client.privacy.remaining import as_trained, training_data
from disinherit.client.store.ledger import Forgotten
from disinherit.server.states import CampaignEvent
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import broken, gone
from tests.support.linear_world import LinearOwner, LinearWorld, Made, partly

MADE = {
    "r": Made("anna", samples=("s0", "s1", "s2")),
    "u": Made("ben", samples=("s3",)),
    "own": Made("anna", {"r": 1.0}),
    "c": Made("ben", {"r": 1.0}, ("s4", "s5")),
    "m": Made("cleo", {"r": 0.5, "u": 0.5}),
    "g": Made("cleo", {"c": 1.0}),
}
BELOW = ("own", "c", "m", "g")
STRICT = ReleasePolicy(delta_min_samples=1000)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LinearWorld]:
    with partly(), LinearWorld(tmp_path, MADE) as world:
        yield world


def fail_once(world: LinearWorld, owner: str, id: str, sample: str, method: str) -> None:
    """A request that an owner's models did not take."""
    world.transport.twists[owner, "train.unlearn"] = broken
    world.ask(id, {"r": [sample]}, method)
    world.transport.twists.clear()


def known(world: LinearWorld, sample: str = "s0") -> dict[str, float]:
    return {model: world.known(model, sample) for model in ("r", *BELOW)}


def is_replayed(world: LinearWorld, id: str, model: str) -> bool:
    result = world.store.tasks(id)[model].result
    return result is not None and result.remedy == pb.REMEDY_REPLAYED


# --- alternatives


@pytest.mark.parametrize("sample", ["s0", "s1"])
def test_a_change_in_the_place_of_another_is_added_when_that_is_undone(
    world: LinearWorld, sample: str
) -> None:
    fail_once(world, "anna", "q", "s0", "finetune")
    world.ask("p", {"r": [sample]}, "replay")
    refused = {model for model, state in world.states("p").items() if state == "ineffective"}
    assert refused == {"c~q", "g~q", "m~q"}
    reason = world.store.tasks("p")["c~q"].reason
    assert reason.startswith("model 'c~q' was left unchanged: it has the change of root 'r' for q,")
    assert "disinherit request rollback q" in reason
    assert "\n" not in reason
    assert known(world) == {
        **dict.fromkeys(("c", "m", "g"), 0.25),
        **dict.fromkeys(("r", "own"), 0.0 if sample == "s0" else 1.0),
    }
    world.roll_back("q")
    world.run_all()
    assert known(world, sample) == dict.fromkeys(("r", *BELOW), 0.0)


def test_models_made_of_a_version_with_one_change_do_not_get_the_other(
    world: LinearWorld,
) -> None:
    """Their owners do not know what their parents got."""
    fail_once(world, "anna", "q", "s0", "finetune")
    world.derive("late", "ben", {"c~q": 1.0})
    world.derive("later", "cleo", {"late": 0.5, "u": 0.5})
    before = {model: world.present(model) for model in ("late", "later")}
    world.ask("p", {"r": ["s0"]}, "replay")
    for model, weights in before.items():
        assert world.present(model).equal(weights), model
        assert world.states("p")[model] == "failed"
        reason = world.store.tasks("p")[model].reason
        assert reason.startswith("it was made of c~q, which has the change of root r for q: ")
        assert "\n" not in reason


def test_models_made_of_a_version_with_the_same_change_do_not_get_it_twice(
    world: LinearWorld,
) -> None:
    """Its root takes it by the second request only."""
    fail_once(world, "anna", "q", "s0", "replay")
    world.derive("late", "ben", {"c~q": 1.0})
    before = world.present("late")
    world.store.transition("q", CampaignEvent.ABORT)
    world.ask("p", {"r": ["s0"]}, "replay")
    assert world.present("late").equal(before)
    assert world.states("p")["late"] == "verified"
    assert known(world) == dict.fromkeys(("r", *BELOW), 0.0)


def test_what_a_root_did_not_take_is_not_in_its_line_later(world: LinearWorld) -> None:
    """It went on by another request, so that the next change starts from other weights."""
    fail_once(world, "anna", "q", "s0", "finetune")
    world.store.transition("q", CampaignEvent.ABORT)
    world.ask("s", {"r": ["s1"]}, "replay")
    world.ask("p", {"r": ["s0"]}, "replay")
    assert world.known("r", "s0") == world.known("r", "s1") == 0
    assert world.states("p")["c~q"] == "ineffective"
    assert world.known("c", "s0") == 0.25


def test_a_replay_takes_the_place_of_an_approximation(world: LinearWorld) -> None:
    world.transport.twists["cleo", "train.unlearn"] = broken
    world.ask("q", {"r": ["s0", "s1"]}, "finetune")
    world.transport.twists.clear()
    world.store.transition("q", CampaignEvent.ABORT)
    world.derive("late", "ben", {"c~q": 1.0})
    world.ask("p", {"r": ["s0"]}, "replay")
    for sample in ("s0", "s1"):
        found = known(world, sample) | {"late": world.known("late", sample)}
        assert found == {**dict.fromkeys(("r", "own", "c", "late"), 0.0), "m": 1.0, "g": 1.0}
    assert is_replayed(world, "p", "r~q")
    assert "takes the place of that for q, which it has not got" in (
        world.store.tasks("p")["m"].reason
    )
    world.ask("again", {"r": ["s0"]})
    assert known(world) == dict.fromkeys(("r", *BELOW), 0.0)


def test_changes_that_follow_each_other_add_up_in_any_order(world: LinearWorld) -> None:
    fail_once(world, "cleo", "q", "s0", "replay")
    world.ask("p", {"r": ["s1"]}, "replay")
    assert world.known("m", "s0") == 1
    world.run_all()
    for sample in ("s0", "s1"):
        assert known(world, sample) == dict.fromkeys(("r", *BELOW), 0.0)


def test_descendants_wait_for_their_root(world: LinearWorld) -> None:
    """Its change would start from what it is before the older request."""
    world.transport.twists["anna", "train.unlearn"] = gone
    world.ask("q", {"r": ["s0"]})
    world.transport.twists.clear()
    world.ask("p", {"r": ["s1"]})
    assert world.store.tasks("p")["c~q"].reason == (
        "its root r waits for q, which is older and reaches it first"
    )
    world.run_all()
    for sample in ("s0", "s1"):
        assert known(world, sample) == dict.fromkeys(("r", *BELOW), 0.0)
    assert is_replayed(world, "p", "r~q")


def test_a_root_that_has_moved_on_is_asked_for_its_change_again(world: LinearWorld) -> None:
    world.transport.twists["anna", "train.unlearn"] = broken
    world.transport.twists["ben", "train.unlearn"] = broken
    world.transport.twists["cleo", "train.unlearn"] = broken
    world.ask("q", {"r": ["s0"]})
    world.transport.twists.clear()
    world.ask("p", {"r": ["s1"]})
    world.run_all()
    for sample in ("s0", "s1"):
        assert known(world, sample) == dict.fromkeys(("r", *BELOW), 0.0)
    assert is_replayed(world, "q", "r~p")


def test_entries_of_older_releases_are_told_by_their_requests(
    world: LinearWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(result: pb.ModelResult, share: pb.Share, packet: pb.FisherPacket) -> pb.AppliedDelta:
        new = real(result, share, packet)
        new.before = new.after = ""
        new.ClearField("line")
        return new

    real = inheriting.add_delta
    with monkeypatch.context() as patch:
        patch.setattr(inheriting, "add_delta", older)
        patch.setattr("disinherit.client.deltas.changing.add_delta", older)
        world.ask("q", {"r": ["s0"]})
    world.ask("again", {"r": ["s0"]})
    world.ask("p", {"r": ["s1"]})
    for sample in ("s0", "s1"):
        assert known(world, sample) == dict.fromkeys(("r", *BELOW), 0.0)


# --- sent again


@pytest.mark.parametrize("named", ["r", "r~q"])
def test_models_that_were_made_of_what_had_a_change_do_not_get_it_again(
    world: LinearWorld, named: str
) -> None:
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.ask("q", {"r": ["s0"]})
    world.transport.twists.clear()
    world.derive("late", "ben", {"c~q": 1.0})
    world.derive("half", "ben", {"r~q": 0.5, "m": 0.5})
    world.store.transition("q", CampaignEvent.ABORT)
    before = world.present("late")
    world.ask("p", {named: ["s0"]})
    assert world.present("late").equal(before)
    assert world.states("p")["late"] == "verified"
    assert known(world) == dict.fromkeys(("r", *BELOW), 0.0)
    assert float(world.present("half")[0, 0]) == 0


def test_changes_of_several_roots_are_sent_again(world: LinearWorld) -> None:
    """One of them is below the other, whose change it got by the same request."""
    world.transport.twists["cleo", "train.unlearn"] = broken
    world.ask("q", {"r": ["s0"], "c": ["s4"]})
    world.transport.twists.clear()
    assert world.known("g", "s4") == 1
    world.ask("p", {"r": ["s0"], "c": ["s4"]})
    assert known(world) == dict.fromkeys(("r", *BELOW), 0.0)
    assert world.known("c", "s4") == world.known("g", "s4") == 0


# --- withheld


def test_a_second_withheld_change_reaches_the_descendants_of_its_owner(
    world: LinearWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinearOwner, "release_policy", STRICT, raising=False)
    world.ask("q", {"r": ["s0"]})
    world.ask("p", {"r": ["s1"]})
    for sample in ("s0", "s1"):
        assert (world.known("r", sample), world.known("own", sample)) == (0, 0)


def test_a_late_descendant_of_the_owner_gets_a_withheld_change(
    world: LinearWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinearOwner, "release_policy", STRICT, raising=False)
    world.ask("q", {"r": ["s0"]})
    world.derive("late", "anna", {"r": 1.0})
    world.run_all()
    assert world.known("late", "s0") == 0
    world.derive("later", "anna", {"own": 1.0})
    world.store.transition("q", CampaignEvent.ABORT)
    world.ask("p", {"r": ["s0"]})
    assert world.known("later", "s0") == 0


# --- what was computed of it


def test_nothing_is_left_of_the_data_of_a_client_that_has_left(
    world: LinearWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in earlier releases, which put versions that requests had made back to their start."""
    with world.owner("anna") as owner:
        register(owner, pb.RegisterTask(scope="all"))
        assert owner.store.fishers("r") is not None
    world.ask("q", {"r": ["s0"]})
    with world.owner("anna") as owner:
        assert owner.store.fishers("r~q") is not None
    with monkeypatch.context() as patch:
        patch.setattr(outcomes, "Forgotten", lambda classes, *_: Forgotten(classes))
        world.ask("p", {"r": MADE["r"].samples})
    with world.owner("anna") as owner:
        left = owner.store.present("r")
        assert left.id == "r~q~p"
        register(owner, pb.RegisterTask(scope="all"))
        assert owner.store.fishers(left.id) is None
        assert training_data(owner, as_trained(owner, left)) is None
    world.leave("anna", "again")
    assert world.states("again")["r~q~p"] == "exempt"
    assert known(world) == dict.fromkeys(("r", *BELOW), 0.0)
