"""A run that stays: on a grid of the owners' real ClientApps, beside another coordinator."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from flwr.app import Message

from disinherit.common.errors import InputError
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.flower.owner_keys import canonical_key
from disinherit.server.flower.owners import RegisteredOwners
from disinherit.server.flower.resident import reside, until_signal
from disinherit.server.flower.server_app import app
from disinherit.server.states import TaskState
from disinherit.server.store.store import CoordinatorStore
from tests.server.flower.test_server_app import make_context, make_node
from tests.support.campaign import AFFECTED, NAMES, World, make_request
from tests.support.fake_grid import FakeGrid
from tests.support.owner import direct_transport

VERIFIED = dict.fromkeys(AFFECTED, TaskState.VERIFIED)


def make_key() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


KEYS = {name: make_key() for name in NAMES}


def make_grid(world: World, names: tuple[str, ...] = NAMES) -> FakeGrid:
    grid = FakeGrid({100 + i: make_node(world.root, name) for i, name in enumerate(names)})
    grid.keys = {100 + i: KEYS[name] for i, name in enumerate(names)}
    return grid


@contextmanager
def residing(world: World, grid: FakeGrid) -> Iterator[threading.Event]:
    """A run that stays, in a thread with a store of its own, until the block ends."""
    stopped = threading.Event()
    owners = RegisteredOwners(grid, {n: canonical_key(key) for n, key in KEYS.items()}, 0.0)
    store = CoordinatorStore(world.place, world.packets)
    thread = threading.Thread(target=reside, args=(grid, store, owners, 30.0, 600.0, stopped))
    thread.start()
    try:
        yield stopped
    finally:
        stopped.set()
        thread.join(30.0)
        store.close()
        assert not thread.is_alive()


def wait_for(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.05)


def types(grid: FakeGrid) -> list[tuple[int, str]]:
    return [(m.metadata.dst_node_id, m.metadata.message_type) for m in grid.pushed]


def test_later_submissions_are_carried_out_without_repeated_asks(world: World) -> None:
    grid = make_grid(world)
    with residing(world, grid):
        world.coordinator.submit(make_request({"r1": ("cat",)}, "first"))
        wait_for(lambda: world.states("first") == VERIFIED)
        assert sorted(types(grid)) == sorted(
            [
                (100, "query.fisher"),
                *((node, action) for node in (100, 101, 102) for action in ("train.unlearn",)),
                *((node, action) for node in (100, 101, 102) for action in ("evaluate.panel",)),
            ]
        )
        world.coordinator.submit(make_request({"r2": ("owl",)}, "second"))
        wait_for(lambda: all(state.settled for state in world.states("second").values()))


def test_another_coordinator_reaches_other_owners_of_the_campaign(world: World) -> None:
    # anna, who holds the root, is no Flower owner here: as if her agent dialled in at a service.
    grid = make_grid(world, ("ben", "cleo"))
    service = Coordinator(world.store, direct_transport(world.root, ("anna",)), patience=10.0)
    with residing(world, grid):
        world.coordinator.submit(make_request({"r1": ("cat",)}))
        service.run("q")
        wait_for(lambda: world.states() == VERIFIED)
    assert not [pair for pair in types(grid) if pair[1] == "query.fisher"]


def test_a_slow_answer_does_not_hold_the_campaign(world: World) -> None:
    grid = make_grid(world, ("ben", "cleo"))
    gate = threading.Event()
    honest = grid.nodes[100]

    def slow(message: Message) -> Message | None:
        assert gate.wait(30.0)
        return honest(message)

    grid.nodes[100] = slow
    service = Coordinator(world.store, direct_transport(world.root, ("anna",)), patience=10.0)
    world.coordinator.submit(make_request({"r1": ("cat",)}))
    try:
        service.run("q")
        with residing(world, grid):
            asked = "owner ben has been asked and has not answered yet"
            wait_for(lambda: world.reason("r2") == asked)
            assert world.states()["r2"] is TaskState.SENT
            service.run("q")  # gets its lease, and leaves what the other one sent as it is
            assert world.states()["r2"] is TaskState.SENT
            gate.set()
            wait_for(lambda: world.states() == VERIFIED)
    finally:
        gate.set()


def test_an_owner_that_comes_back_is_served(world: World) -> None:
    grid = make_grid(world)
    grid.leave(102)
    with residing(world, grid):
        world.coordinator.submit(make_request())
        wait_for(lambda: world.states() == {**VERIFIED, "r3": TaskState.PENDING})
        grid.come_back(102)
        wait_for(lambda: world.states() == VERIFIED)


def test_a_later_run_continues_after_one_that_ended(world: World) -> None:
    grid = make_grid(world)
    silent = grid.nodes[102]
    grid.nodes[102] = lambda _: None
    world.coordinator.submit(make_request())
    with residing(world, grid):
        wait_for(lambda: world.states() == {**VERIFIED, "r3": TaskState.SENT})
    digests = {m: world.store.tasks("q")[m].result for m in AFFECTED if m != "r3"}
    before = len(grid.pushed)
    grid.nodes[102] = silent
    with residing(world, grid):
        wait_for(lambda: world.states() == VERIFIED)
    assert types(grid)[before:] == [(102, "train.unlearn"), (102, "evaluate.panel")]
    assert {m: world.store.tasks("q")[m].result for m in digests} == digests


def test_the_app_stays_for_the_configured_time(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = []
    for name, key in KEYS.items():
        (tmp_path / f"{name}.pub").write_bytes(openssh(key))
        lines.append(f'{name} = "{name}.pub"')
    path = tmp_path / "owners.toml"
    path.write_text("\n".join(["[owners]", *lines]))
    world.coordinator.submit(make_request())
    places = {"database": str(world.place), "packets": str(world.packets)}
    config = {**places, "owners": str(path)}
    logger = logging.getLogger("flwr")
    logger.addHandler(caplog.handler)
    try:
        app(make_grid(world), make_context({**config, "stay-seconds": 6.0}))
    finally:
        logger.removeHandler(caplog.handler)
    assert world.states() == VERIFIED
    assert "request q: 5 of 5 models settled" in caplog.messages
    # Without staying, owners are known by their keys, too.
    world.coordinator.submit(make_request({"r2": ("owl",)}, "second"))
    app(make_grid(world), make_context({**config, "expected-owners": 3, "timeout": 20.0}))
    assert all(state.settled for state in world.states("second").values())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"stay-seconds": 5}, "a file of the owners' public keys"),
        ({"stay-seconds": -1}, "stay-seconds >= 0"),
        ({"owners": 5}, "owners = 5"),
        ({"owners": "none.toml"}, r"none\.toml"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    world: World, config: dict[str, bool | float | int | str], reason: str
) -> None:
    database = str(world.place)
    with pytest.raises(InputError, match=reason):
        app(make_grid(world), make_context({"database": database, **config}))


def test_a_signal_ends_the_run_and_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with until_signal() as stopped:
        assert not stopped.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.wait(10.0)
    assert signal.getsignal(signal.SIGTERM) is before


def openssh(pem: bytes) -> bytes:
    return load_pem_public_key(pem).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
