"""Two coordinators on one store: every campaign is carried out, and nothing of it twice."""

import json
from collections import Counter
from contextlib import ExitStack

from disinherit.common.audit.export import verify_lines
from disinherit.server.campaign.driver import Driver, OpenCampaigns
from disinherit.server.states import CampaignState
from tests.support.agent import wait_for
from tests.support.campaign import World, make_request

CAMPAIGNS = {"first": {"r1": ("dog",)}, "second": {"r4": ("dog",)}, "third": {"r1": ("cat",)}}


def test_no_campaign_is_carried_out_twice(world: World) -> None:
    complete = dict.fromkeys(CAMPAIGNS, CampaignState.COMPLETE)
    with world.again() as other, ExitStack() as stopping:
        for id, forget in CAMPAIGNS.items():
            world.coordinator.submit(make_request(forget, id))
        for one in (world, other):
            driver = Driver(OpenCampaigns(one.coordinator), one.coordinator.drive, interval=0.01)
            driver.start()
            stopping.callback(driver.stop)
        wait_for(lambda: {c.request_id: c.state for c in other.store.campaigns()} == complete)
    lines = list(world.store.audit_lines())
    assert verify_lines(line + b"\n" for line in lines).problem is None
    entries = list(map(json.loads, lines[1:]))
    applied = Counter((e["request"], e["model"]) for e in entries if e["kind"] == "applied")
    assert {request for request, _ in applied} == set(CAMPAIGNS)
    assert set(applied.values()) == {1}
    ended = Counter(e["request"] for e in entries if e["kind"] == "completed")
    assert ended == dict.fromkeys(CAMPAIGNS, 1)
