"""A coordinator restored from a backup, with real owners: they detect it, and it stops."""

import shutil
from pathlib import Path

import pytest

from disinherit.common.errors import CampaignError
from disinherit.server.campaign.driver import OpenCampaigns
from disinherit.server.states import CampaignEvent, CampaignState
from disinherit.server.store.log_mark import mark_file
from disinherit.server.store.signed_log import SignedLog, accept_log
from disinherit.server.store.signing import open_signer
from tests.support.campaign import World, make_request


def signing(world: World) -> World:
    key = world.root / "keys" / "signing.pem"
    key.parent.mkdir(exist_ok=True)
    log = SignedLog(world.store._database, open_signer(key), mark_file(key))
    world.store.signed_log = log
    return world


def put_back(world: World, database: Path, keys: bool) -> World:
    """Start from the copy of a database, and of what is beside the key."""
    world.store.close()
    for file in world.root.glob("coordinator.db*"):
        if file.is_file():
            file.unlink()
    shutil.copy(database, world.root / "coordinator.db")
    if keys:
        mark_file(world.root / "keys" / "signing.pem").unlink()
    return signing(world.again())


def objects(world: World) -> dict[str, bytes]:
    """The weights and summaries that owners have."""
    return {name: data for name, data in world.files().items() if "/objects/" in name}


@pytest.fixture
def database() -> None:
    """SQLite, whose file can be copied."""


@pytest.mark.parametrize("grown", [False, True])
def test_owners_that_saw_a_later_log_refuse_and_report_it(world: World, grown: bool) -> None:
    """Also the file beside the key is of the copy, so that only owners know."""
    signing(world)
    world.coordinator.submit(make_request({"r2": ("owl",)}, "first"))
    world.coordinator.run("first")
    copy = world.root / "copy.db"
    world.store.close()
    shutil.copy(world.root / "coordinator.db", copy)
    world = signing(world.again())
    world.coordinator.submit(make_request({"r1": ("cat",)}, "second"))
    assert world.coordinator.run("second").outcome == "complete"
    held = objects(world)

    world = put_back(world, copy, keys=True)
    for number in range(40 if grown else 0):  # the log is longer than what owners were shown
        other = make_request({"r1": ("dog",)}, f"other-{number}")
        world.store.submit(other, [], approval=True)
    world.coordinator.submit(make_request({"r1": ("dog",)}, "third"))
    world.coordinator.run("third")
    assert world.store.history_lost().startswith("owner ")
    assert not any(state.answered for state in world.states("third").values())
    assert objects(world) == held
    with pytest.raises(CampaignError, match="disinherit confirm history"):
        world.coordinator.run("third")
    assert OpenCampaigns(world.coordinator)() == {}

    mark = mark_file(world.root / "keys" / "signing.pem")
    accept_log(world.store._database, mark, "administrator")
    for request in world.store.requests()[1:]:
        world.store.transition(request, CampaignEvent.ABORT)
    # What was asked for since the copy is asked for again, to the letter: it was done.
    world.coordinator.submit(make_request({"r1": ("cat",)}, "second"))
    assert world.coordinator.run("second").outcome == "unchanged"
    assert world.store.campaign("second").state is CampaignState.COMPLETE
    assert objects(world) == held
    world.store.close()
