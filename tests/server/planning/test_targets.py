"""Requests to forget samples or a client: planned, sent, refused, and applied by real owners."""

from collections.abc import Callable
from pathlib import Path

import pytest

from disinherit.common.errors import InputError, RequestError
from disinherit.server.states import TaskState
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import NAMES, OWNERS, World, copy, lying, make_method
from tests.support.owner import SALT, samples_root

IDS = ("cat-0", "dog-3", "owl-5")
DIGESTS = ("ab" * 32, "cd" * 32)
METHOD = make_method(scope="all", alpha=10.0, lam=1.0, gauge=0.0, rescale=True)
"""Settings with which the models forget samples and keep the rest."""


def by_digests(
    *roots: str, digests: tuple[str, ...] = DIGESTS, salt: str = SALT
) -> pb.UnlearningRequest:
    listed = [pb.Root(model_id=root, samples=digests, sample_salt=salt) for root in roots]
    return pb.UnlearningRequest(id="q", roots=listed, method=METHOD.to_proto())


def by_samples(world: World, model: str, *samples: str) -> pb.UnlearningRequest:
    """A request with the digests made by the model's owner."""
    folder = world.root / OWNERS[model]
    request = by_digests()
    request.roots.append(samples_root(model, folder, samples or IDS))
    return request


def by_client(client: str, request_id: str = "q") -> pb.UnlearningRequest:
    return pb.UnlearningRequest(id=request_id, client=client, method=METHOD.to_proto())


def unlearn_tasks(world: World) -> dict[str, pb.ModelTask]:
    return {
        model.model_id: model
        for ask in world.transport.asked
        if isinstance(ask.task, pb.UnlearnTask)
        for model in ask.task.models
    }


def test_samples_are_forgotten_in_the_root_and_all_descendants(world: World) -> None:
    before = {model: world.weights(model) for model in ("d", "s")}
    request = by_samples(world, "r2")
    world.coordinator.submit(request)
    result = world.coordinator.run("q")
    # Three samples of classes that are kept: their owner sees that their losses did not rise, and
    # nobody measured what became of r3 and r4 by the same.
    assert result.outcome == "failed"
    assert world.states() == dict.fromkeys(("r2", "r3", "r4", "r6"), TaskState.INEFFECTIVE)
    assert "the losses of the samples to forget are unchanged" in world.reason("r2")
    sent = unlearn_tasks(world)
    assert sent["r2"].samples == request.roots[0].samples
    assert len(sent["r2"].samples) == len(IDS)
    for ask in world.transport.asked:
        assert not any(id.encode() in ask.task.SerializeToString() for id in IDS)
    assert not any(sent[model].samples for model in ("r3", "r4", "r6"))
    for model, weights in before.items():
        assert all(weights[name].equal(value) for name, value in world.weights(model).items())
    again = world.coordinator.run("q", resend=True)
    assert not again.changed


def test_a_leaving_client_is_forgotten_by_all_other_owners(world: World) -> None:
    planned = world.coordinator.submit(by_client("ben"))
    mine = {model for model, owner in OWNERS.items() if owner == "ben"}
    assert set(planned.exempt) == mine
    assert all("ben trained it on" in reason for reason in planned.exempt.values())
    result = world.coordinator.run("q")
    assert result.outcome == "complete"
    others = set(planned.affected) - mine
    assert {m for m, state in world.states().items() if state is TaskState.VERIFIED} == others
    assert {m for m, state in world.states().items() if state is TaskState.EXEMPT} == mine
    stored = world.store.request("q")
    assert {root.model_id for root in stored.roots} == mine
    assert set(unlearn_tasks(world)) == others


def test_the_same_client_request_again_changes_nothing(world: World) -> None:
    world.coordinator.submit(by_client("ben"))
    world.coordinator.run("q")
    known = world.knowledge()
    world.coordinator.submit(by_client("ben"))
    assert world.knowledge() == known
    with pytest.raises(RequestError, match="'q'"):
        world.coordinator.submit(by_client("anna"))


def mixed() -> pb.UnlearningRequest:
    request = by_digests("r2")
    request.roots.add(model_id="r1", classes=["cat"])
    return request


def both() -> pb.UnlearningRequest:
    request = by_digests("r2")
    request.roots[0].classes.append("cat")
    return request


def others_root() -> pb.UnlearningRequest:
    request = by_client("anna")
    request.roots.add(model_id="r2")
    return request


def client_and_samples() -> pb.UnlearningRequest:
    request = by_client("ben")
    request.roots.add(model_id="r2", samples=DIGESTS)
    return request


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (mixed, "either classes or samples to forget in one request"),
        (both, "either classes or samples to forget at root 'r2'"),
        (lambda: by_digests("r2", digests=2 * DIGESTS), "of every sample once"),
        (lambda: by_digests("r2", digests=("",)), "'r2'.* something of 0 characters"),
        (lambda: by_digests("r2", digests=("AB" * 32,)), "64 hexadecimal digits"),
        (lambda: by_digests("r2", digests=IDS), "something of 5 characters"),
        (lambda: by_digests("r2", salt=""), "a salt of 32 hexadecimal digits"),
        (lambda: by_digests("r9"), "'r9'"),
        (lambda: by_digests("r2", "r2"), "every root once"),
        (lambda: by_client("zoe"), "'zoe' trained none"),
        (others_root, "a root that 'anna' trained, but 'r2' of 'ben'"),
        (client_and_samples, "no classes or samples beside client 'ben'"),
        (lambda: by_digests(), "at least one root"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_stored(
    make: Callable[[], pb.UnlearningRequest], message: str, world: World
) -> None:
    with pytest.raises(InputError, match=message):
        world.coordinator.submit(make())
    assert world.store.requests() == []


def test_samples_that_the_owner_does_not_know_fail_with_its_reason(world: World) -> None:
    world.coordinator.submit(by_samples(world, "r1", "cat-0", "cat-999"))
    result = world.coordinator.run("q")
    assert result.outcome == "failed"
    assert "1 of 2 are of none" in world.reason("r1")
    assert set(world.states().values()) == {TaskState.FAILED}


@pytest.mark.parametrize("count", [0, 2])
def test_an_owner_must_send_exactly_one_packet_of_samples(count: int, world: World) -> None:
    def other(reply: pb.FisherReply) -> None:
        packet = reply.roots[0].packets[0]
        del reply.roots[0].packets[:]
        reply.roots[0].packets.extend([packet] * count)

    world.coordinator.submit(by_samples(world, "r1", "cat-0"))
    world.transport.twists["anna", "query.fisher"] = lying(other)
    assert world.coordinator.run("q").outcome == "failed"
    assert f"one Fisher information of all samples to forget, but its owner sent {count}" in (
        world.reason("r1")
    )


def test_every_owner_is_a_client_that_can_leave(built: Path, tmp_path: Path) -> None:
    for name in NAMES:
        with copy(built, tmp_path / name) as world:
            world.coordinator.submit(by_client(name))
            assert world.coordinator.run("q").outcome in ("complete", "partial")
            assert all(state.settled for state in world.states().values())
