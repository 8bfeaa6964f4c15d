"""Notifications of the owners of affected versions, and the record of missing ones."""

import logging

import pytest

from disinherit.common.audit.export import read_entry
from disinherit.server.states import CampaignEvent
from tests.support.campaign import AFFECTED, World, broken, gone, make_request


def told(world: World, kind: str = "notified") -> list[tuple[str, str]]:
    """Model and owner of the entries of a kind, in order."""
    events = [read_entry(line).event for line in list(world.store.audit_lines("q"))[1:]]
    return [(event.model_id, event.owner) for event in events if event.kind == kind]


def test_owners_are_notified_by_answering_and_absent_ones_are_not(world: World) -> None:
    world.coordinator.submit(make_request())
    world.transport.twists["cleo", "train.unlearn"] = gone
    world.coordinator.run("q")
    assert sorted(model for model, _ in told(world)) == ["r1", "r2", "r4", "r6"]
    assert told(world, "not_notified") == []  # cleo may still come back
    world.store.transition("q", CampaignEvent.ABORT)
    assert told(world, "not_notified") == [("r3", "cleo")]


def test_a_notice_reaches_the_owner_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.coordinator.submit(make_request())
    world.transport.twists["ben", "train.unlearn"] = broken
    with caplog.at_level(logging.WARNING, "disinherit.client.actions.notice"):
        for _ in range(3):
            world.coordinator.run("q")
    asked = [str(ask.task) for ask in world.transport.asked if ask.action == "query.notice"]
    assert len(asked) == 1
    assert "r6" in asked[0]
    assert "r2" not in asked[0]  # whose Fisher information was asked for: its owner knows
    assert "'r6'" in caplog.text
    assert "disk on fire" in caplog.text
    assert sorted(told(world)) == sorted((m, world.store.graph().model(m).owner) for m in AFFECTED)
