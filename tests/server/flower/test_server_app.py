"""The ServerApp on a grid of the owners' real ClientApp, including all messages."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message, RecordDict

from disinherit.client.client_app import build_client_app
from disinherit.common.errors import CampaignError, InputError, StoreError
from disinherit.server.flower.server_app import app, build_server_app
from disinherit.server.states import CampaignEvent, TaskState
from disinherit.server.store.store import CoordinatorStore
from tests.support.campaign import AFFECTED, NAMES, World, make_request
from tests.support.fake_grid import FakeGrid, Node
from tests.support.owner import PointsOwner

VERIFIED = dict.fromkeys(AFFECTED, TaskState.VERIFIED)
Config = dict[str, bool | float | int | str]


def make_context(run_config: Config) -> Context:
    return Context(
        run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=dict(run_config)
    )


def make_node(root: Path, name: str) -> Node:
    """An owner behind the deployment's ClientApp; its exceptions become errors, as in Flower."""
    client_app = build_client_app(lambda _: PointsOwner(root / name, name))

    def node(message: Message) -> Message:
        try:
            return client_app(message, make_context({}))
        except Exception as error:
            return Message(Error(2, str(error)), reply_to=message)

    return node


def make_grid(world: World, names: tuple[str, ...] = NAMES) -> FakeGrid:
    nodes = {name: make_node(world.root, name) for name in names}
    return FakeGrid({100 + index: node for index, node in enumerate(nodes.values())})


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Records of Flower's logger, which does not propagate."""
    logger = logging.getLogger("flwr")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def config_of(world: World, **changes: bool | float | str) -> Config:
    places = {"database": str(world.place), "packets": str(world.packets)}
    return {**places, "timeout": 20.0, "expected-owners": 3, **changes}


def test_every_open_request_is_carried_out(world: World, logged: pytest.LogCaptureFixture) -> None:
    tuned = dict.fromkeys(("alpha", "lam", "gauge"))
    world.coordinator.submit(make_request({"r1": ("cat",)}, "first", **tuned))
    world.coordinator.submit(make_request({"r2": ("owl",)}, "second", **tuned))

    app(make_grid(world), make_context(config_of(world)))

    assert world.states("first") == VERIFIED
    assert set(world.states("second").values()) == {TaskState.VERIFIED, TaskState.EXEMPT}
    assert world.states("second")["r2~first"] is TaskState.VERIFIED
    assert "request first: complete, 5 of 5 models settled, 5 changed" in logged.messages
    assert "request second: complete, 8 of 8 models settled, 4 changed" in logged.messages


def test_a_request_that_is_paused_is_left_alone(
    world: World, logged: pytest.LogCaptureFixture
) -> None:
    world.coordinator.submit(make_request({"r1": ("cat",)}, "first"))
    world.coordinator.submit(make_request({"r2": ("owl",)}, "second"))
    world.store.transition("first", CampaignEvent.PAUSE)

    app(make_grid(world), make_context(config_of(world)))
    assert set(world.states("first").values()) == {TaskState.PENDING}
    assert TaskState.VERIFIED in world.states("second").values()

    app(make_grid(world), make_context(config_of(world, request="first")))
    assert "Expected campaign 'first' to be running, but it is paused" in logged.text
    assert set(world.states("first").values()) == {TaskState.PENDING}


def test_one_request_can_be_chosen(world: World) -> None:
    world.coordinator.submit(make_request({"r1": ("cat",)}, "first"))
    world.coordinator.submit(make_request({"r2": ("owl",)}, "second"))
    app(make_grid(world), make_context(config_of(world, request="first")))
    assert set(world.states("second").values()) == {TaskState.PENDING}
    assert set(world.states("first").values()) == {TaskState.VERIFIED}


def test_summaries_are_registered_in_the_scope_of_the_request(world: World) -> None:
    world.coordinator.submit(make_request(scope="0.*,2.*"))
    before = world.store.graph().model("r3").fisher_digest
    app(make_grid(world), make_context(config_of(world)))
    assert world.store.graph().model("r3").fisher_digest not in ("", before)
    assert world.states() == VERIFIED


def test_the_next_run_continues_open_tasks(world: World, logged: pytest.LogCaptureFixture) -> None:
    world.coordinator.submit(make_request())
    grid = make_grid(world, ("anna", "ben"))
    app(grid, make_context(config_of(world, **{"expected-owners": 2})))

    assert world.states() == {**VERIFIED, "r3": TaskState.PENDING}
    assert "request q: partial, 4 of 5 models settled, 4 changed" in logged.messages
    assert "r3 of cleo is pending: owner cleo is not connected" in logged.messages

    app(make_grid(world), make_context(config_of(world)))
    assert world.states() == VERIFIED
    assert "request q: complete, 5 of 5 models settled, 1 changed" in logged.messages


def test_a_finished_request_is_reported_as_unchanged(
    world: World, logged: pytest.LogCaptureFixture
) -> None:
    world.coordinator.submit(make_request())
    app(make_grid(world), make_context(config_of(world)))
    files = world.files()
    app(make_grid(world), make_context(config_of(world)))
    assert world.files() == files
    assert "request q: unchanged, 5 of 5 models settled, 0 changed" in logged.messages


def test_a_failed_registration_is_named_and_does_not_stop_others(
    world: World, logged: pytest.LogCaptureFixture
) -> None:
    world.coordinator.submit(make_request())
    grid = make_grid(world)
    honest = grid.nodes[102]

    def unregistered(message: Message) -> Message | None:
        if message.metadata.message_type == "query.register":
            return Message(Error(2, "no room"), reply_to=message)
        return honest(message)

    grid.nodes[102] = unregistered
    app(grid, make_context(config_of(world)))
    assert world.states() == VERIFIED
    assert any(m.startswith("cleo did not register") and "no room" in m for m in logged.messages)


def test_an_unknown_request_is_logged(world: World, logged: pytest.LogCaptureFixture) -> None:
    app(make_grid(world), make_context(config_of(world, request="nothing")))
    assert any(m.startswith("request nothing: Expected the id") for m in logged.messages)


def test_without_owners_the_run_fails(world: World) -> None:
    world.coordinator.submit(make_request())
    with pytest.raises(CampaignError, match="none reported its owner"):
        app(FakeGrid({}), make_context(config_of(world, timeout=0.1)))
    assert set(world.states().values()) == {TaskState.PENDING}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"database": ""}, "database as a path or URL"),
        ({"database": 5}, "database as a path or URL"),
        ({"packets": 5}, "packets as a path or URL"),
        ({"timeout": 0}, "timeout > 0"),
        ({"timeout": "soon"}, "timeout > 0"),
        ({"timeout": True}, "timeout > 0"),
        ({"expected-owners": -1}, "expected-owners > 0"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    world: World, changes: Config, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        app(make_grid(world), make_context({**config_of(world), **changes}))


def test_a_database_may_be_a_url(world: World) -> None:
    world.coordinator.submit(make_request())
    url = world.database or f"sqlite:///{world.place}"
    app(make_grid(world), make_context(config_of(world, database=url)))
    assert world.states() == VERIFIED


def test_packets_may_be_in_another_folder(world: World) -> None:
    world.coordinator.submit(make_request())
    app(make_grid(world), make_context(config_of(world, packets=str(world.root / "elsewhere"))))
    assert world.states() == VERIFIED
    assert list((world.root / "elsewhere").glob("*.safetensors"))


def test_a_deployment_may_open_its_store_itself_and_it_is_closed_again(world: World) -> None:
    world.coordinator.submit(make_request())
    closed: list[str] = []

    class Watched(CoordinatorStore):
        def close(self) -> None:
            closed.append("closed")
            super().close()

    own = build_server_app(lambda _: Watched(world.place, world.packets))
    own(make_grid(world), make_context({"expected-owners": 3}))
    assert closed == ["closed"]
    assert world.states() == VERIFIED
    with pytest.raises(CampaignError):
        own(FakeGrid({}), make_context({"timeout": 0.1}))
    assert closed == ["closed", "closed"]


def test_a_database_that_cannot_be_used_ends_the_run(world: World) -> None:
    (world.root / "garbage.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError, match=r"garbage\.db"):
        app(
            make_grid(world),
            make_context(config_of(world, database=str(world.root / "garbage.db"))),
        )
