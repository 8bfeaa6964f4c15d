"""Random sequences of requests over random graphs: every change is in every model at most once."""

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from disinherit.common.errors import DisinheritError
from disinherit.server.states import CampaignState, TaskState
from tests.support.campaign import Twist, broken, gone, reply_lost
from tests.support.linear_world import (
    DRIVEN,
    PARTLY,
    SAMPLES,
    LinearWorld,
    Made,
    copy_owner,
    first,
    partly,
    restore_owner,
    trained,
)

OWNERS = ("anna", "ben", "cleo")
FAULTS: tuple[Twist, ...] = (broken, gone, reply_lost)
UNDONE = (CampaignState.ROLLED_BACK, CampaignState.ROLLING_BACK, CampaignState.ABORTED)


@st.composite
def federations(draw: st.DrawFn) -> dict[str, Made]:
    """Two roots with three samples each, the second of which may inherit, and what inherits."""
    made = {"m0": Made(draw(st.sampled_from(OWNERS)), samples=SAMPLES[:3])}
    for number in range(1, draw(st.integers(3, 5))):
        chosen = draw(st.lists(st.sampled_from([*made]), min_size=1, max_size=2, unique=True))
        own = SAMPLES[3:] if number == 1 else ()
        made[f"m{number}"] = Made(
            draw(st.sampled_from(OWNERS)), dict.fromkeys(chosen, 1 / len(chosen)), own
        )
    return made


class Story:
    """What people and owners do in a federation, one thing after the other.

    Args:
        world: the federation.
        data: draws what.
    """

    def __init__(self, world: LinearWorld, data: st.DataObject) -> None:
        self.world = world
        self.asked: dict[str, tuple[str, list[str], str]] = {}
        self._draw = data.draw
        self._images: dict[str, set[str]] = {}

    def go_on(self, number: int) -> None:
        """Do the next thing, and check what is in every model."""
        todo = [self._ask, self._ask, self._ask, self._derive, self._restore]
        if self.asked:
            todo += [self._roll_back, self._resend, self._run_all]
        self._draw(st.sampled_from(todo), "what")(number)
        self.check()

    def _ask(self, number: int) -> None:
        world, id = self.world, f"q{number}"
        root = self._draw(st.sampled_from(["m0", "m1"]), "root")
        some = world.made[root].samples
        ids = self._draw(st.lists(st.sampled_from(some), min_size=1, max_size=2, unique=True))
        method = self._draw(st.sampled_from(["auto", "replay", "finetune"]), "method")
        fails = self._draw(st.sampled_from([None, *world.names]), "failing")
        if fails is not None:
            fault = self._draw(st.sampled_from(FAULTS), "fault")
            world.transport.twists[fails, "train.unlearn"] = fault
        self.asked[id] = root, ids, method
        world.ask(id, {root: ids}, method)
        world.transport.twists.clear()

    def _roll_back(self, _: int) -> None:
        id = self._draw(st.sampled_from([*self.asked]), "request")
        with suppress(DisinheritError):  # it may have been rolled back before
            self.world.roll_back(id)

    def _resend(self, _: int) -> None:
        id = self._draw(st.sampled_from([*self.asked]), "request")
        if self.world.store.campaign(id).state in DRIVEN:
            self.world.coordinator.run(id, resend=True)

    def _run_all(self, _: int) -> None:
        self.world.run_all()

    def _derive(self, number: int) -> None:
        world = self.world
        parent = self._draw(st.sampled_from([*world.made]), "parent")
        owner = self._draw(st.sampled_from(world.names), "owner")
        with world.owner(world.made[parent].owner) as holder:
            present = holder.store.present(parent).id
        if present in world.store.graph():  # else the answer that it was made was lost
            world.derive(f"late{number}", owner, {present: 1.0})

    def _restore(self, _: int) -> None:
        """Put an owner back to what it was, if all its models were there; else keep an image."""
        world = self.world
        name = self._draw(st.sampled_from(world.names), "owner")
        models = {model for model, made in world.made.items() if made.owner == name}
        image = world.root / f"{name}.image"
        if self._images.get(name) == models:
            restore_owner(world, name, image)
            world.coordinator.check_held([name])
        else:
            copy_owner(world, name, image)
            self._images[name] = models

    def check(self) -> None:
        """No model has less of a sample than nothing, or a part that no root method leaves."""
        for model in self.world.made:
            weight = self.world.present(model).diagonal()
            assert weight.min() >= 0, model
            if not model.startswith("late"):
                whole = trained(self.world.made, model).diagonal()
                left = {float(now / then) for now, then in zip(weight, whole, strict=True) if then}
                assert left <= {0.0, PARTLY, 1.0}, (model, left)

    def check_forgotten(self) -> None:
        """Verified models have forgotten, by the root method that was asked for."""
        for id, (_, samples, method) in self.asked.items():
            if self.world.store.campaign(id).state in UNDONE:
                continue
            for model, task in self.world.store.tasks(id).items():
                if task.state is TaskState.VERIFIED and not model.startswith("late"):
                    left = {self.world.known(first(model), sample) for sample in samples}
                    most = PARTLY if method != "replay" else 0.0
                    assert max(left) <= most, (id, model, left)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(made=federations(), data=st.data())
def test_every_change_is_in_every_model_at_most_once(
    made: dict[str, Made], data: st.DataObject
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        partly(),
        LinearWorld(Path(folder), made) as world,
    ):
        story = Story(world, data)
        for number in range(data.draw(st.integers(2, 6), "steps")):
            story.go_on(number)
        for _ in range(2):
            world.run_all()
            story.check()
        story.check_forgotten()
