"""The dashboard in a browser: a whole campaign over real agents, as several people see it.

Pictures in docs/ are compared with what is shown; `make pictures` makes them anew, and the figures
of the large graph.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from starlette.applications import Starlette

from disinherit.client.agent import AgentConfig, enrol
from disinherit.client.agent.agent import Agent
from disinherit.server.service.hosting import Service
from disinherit.server.service.settings import read_settings
from disinherit.ui.application import Dashboard
from disinherit.ui.cookies import Cookies
from disinherit.ui.screens.screens import SCREENS
from disinherit.ui.serving import LOOPBACK
from disinherit.ui.visitors import CHANNEL_OPTIONS, Visitor
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import graph_pb2
from tests import ROOT
from tests.support import campaign
from tests.support.browsing import Watched, chromium, kept, looked_at, served
from tests.support.owner import PointsOwner
from tests.support.ports import free_ports
from tests.support.service import Client, secret, write_tokens

PICTURES = bool(os.environ.get("DISINHERIT_PICTURES"))
EVIL = "<img src=x onerror=\"document.title='owned'\">"
WAIT = 30_000
"""Milliseconds; nothing waits as long unless it fails."""


class Fleet:
    """A coordinator with agents that can be restarted, and a dashboard over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write_tokens(root / "tokens.toml")
        ports = free_ports(3)
        (root / "serve.toml").write_text(
            'database = "coordinator.db"\ntokens = "tokens.toml"\n'
            f'listen = "127.0.0.1:{ports[0]}"\n[agents]\nauthority = "authority"\n'
            f'hosts = ["127.0.0.1"]\nlisten = "127.0.0.1:{ports[1]}"\n'
            f'enrol_listen = "127.0.0.1:{ports[2]}"\n'
        )
        self.address = f"127.0.0.1:{ports[0]}"
        self.agents: dict[str, ExitStack] = {}
        self.start()

    def start(self) -> None:
        self.service = Service(read_settings(self.root / "serve.toml", {}, {}))
        self.service.start()

    def stop(self) -> None:
        self.service.stop(grace=0.2)

    def connect(self, name: str) -> None:
        """Start the agent of an owner."""
        fleet = self.service.fleet
        assert fleet is not None
        config = AgentConfig(
            owner=name,
            server=f"127.0.0.1:{fleet.server.port}",
            ca=self.root / "authority" / "ca.pem",
            state=self.root / f"state-{name}",
            factory="",
            enrol_server=f"127.0.0.1:{fleet.server.enrol_port}",
        )
        identity = enrol(config, fleet.enrolment.invite(name))
        opening = partial(PointsOwner, self.root / name, name)
        stack = ExitStack()
        stack.enter_context(Agent(config, identity, opening))
        self.agents[name] = stack

    def close(self) -> None:
        for stack in self.agents.values():
            stack.close()
        self.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def fleet(browser: Any, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    root = tmp_path_factory.mktemp("browser") / "world"
    campaign.copy(built, root).store.close()
    fleet = Fleet(root)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(scope="module")
def base(fleet: Fleet) -> Iterator[str]:
    with grpc.insecure_channel(fleet.address, CHANNEL_OPTIONS) as channel:

        def application(port: int) -> Starlette:
            found = Dashboard(
                lambda token: Visitor(channel, fleet.address, token),
                fleet.address,
                Cookies(port, secure=False),
            )
            return found.application(LOOPBACK)

        with served(application) as base:
            yield base


@pytest.fixture(scope="module")
def visitors(browser: Any, base: str) -> Iterator[dict[str, Watched]]:
    found = {}
    for who in ("operator", "approver", "viewer"):
        found[who] = Watched(browser, base, viewport={"width": 1280, "height": 1100})
        found[who].sign_in(secret(who))
    yield found
    for one in found.values():
        one.context.close()


def picture(page: Any, name: str, **options: Any) -> None:
    kept(page, ROOT / "docs" / name, renew=PICTURES, **options)


def press(visitor: Watched, action: str, typed: str, **fields: str) -> None:
    page = visitor.page
    page.click(f"#action-{action} > summary")
    for name, value in fields.items():
        page.fill(f"#{action}-{name}", value)
    page.fill(f"#{action}-typed", typed)
    page.click(f"#action-{action} form button")
    page.wait_for_load_state()


def wait_for_state(visitor: Watched, word: str) -> None:
    visitor.page.wait_for_selector(f"#content > .heading .chip:has-text('{word}')", timeout=WAIT)


def test_the_story_from_a_plan_to_an_attestation(
    visitors: dict[str, Watched], fleet: Fleet
) -> None:
    operator, approver, viewer = visitors.values()
    page = operator.page
    page.wait_for_selector("text=Nothing waits for anybody")

    operator.open("/request/new?root=r1")
    assert page.input_value("#forget").startswith("cat@r1")
    page.fill("#forget", "cat@r1")
    page.fill("#reason", "erasure request 117")
    page.fill("#deadline", "30d")
    page.fill("#canaries", "anna")
    page.fill("#waves", "1")
    page.fill("#max_drop", "50")
    page.click("summary:has-text('Method')")
    for name, value in (("alpha", "1"), ("lam", "0.5"), ("gauge", "3")):
        page.fill(f"#{name}", value)
    page.click("button[value=plan]")
    page.wait_for_selector("#plan:has-text('5 models are affected')")
    assert "--forget cat@r1" in operator.text("#submit-command")
    assert page.inner_text("#plan ~ .scroll tbody th >> nth=0") == "r1"
    picture(page, "dashboard-plan.png", full_page=True)
    page.click("button[value=submit]")
    page.wait_for_selector(".notice:has-text('Submitted')")
    request_id = operator.text("#content .lead code")

    # Each role sees what it may do, at once and without loading the page.
    approver.page.wait_for_selector("#needs ~ .needs >> text=It is yours to decide", timeout=WAIT)
    for one in (approver, viewer):
        one.open(f"/campaign?id={request_id}")
    assert [x.inner_text() for x in approver.page.query_selector_all(".action summary")] == [
        "Approve…",
        "Abort…",
    ]
    assert [x.inner_text() for x in page.query_selector_all(".action summary")] == ["Abort…"]
    assert viewer.page.query_selector_all(".action") == []
    assert "erasure request 117" in viewer.text("#content .lead")

    # What was typed decides.
    press(approver, "approve", "yes")
    assert "Nothing was changed" in approver.text("main")
    approver.open(f"/campaign?id={request_id}")
    press(approver, "approve", "approve")
    approver.page.wait_for_selector(".notice:has-text('Approved')")
    wait_for_state(viewer, "running")
    assert "offline" in viewer.text("#missing ~ .scroll")

    fleet.connect("anna")
    viewer.page.wait_for_selector("#state:has-text('2 of 5 models')", timeout=WAIT)
    press(operator, "pause", "pause")
    wait_for_state(viewer, "paused")
    press(operator, "resume", "resume")
    wait_for_state(viewer, "running")
    viewer.page.wait_for_selector("#missing ~ .scroll >> text=cleo", timeout=WAIT)
    viewer.page.wait_for_selector(".chart canvas")
    picture(viewer.page, "dashboard-campaign.png", clip=_top(1280, 1100))

    # The coordinator is away: the page says so, keeps what it knew, and goes on.
    fleet.stop()
    viewer.page.wait_for_selector("#connection:has-text('cannot be reached')", timeout=WAIT)
    assert "2 of 5" in viewer.text("#state")
    fleet.start()
    viewer.page.wait_for_selector("#connection", state="hidden", timeout=WAIT)
    for name in ("ben", "cleo"):
        fleet.connect(name)
    wait_for_state(viewer, "complete")
    assert "5 of 5 models have forgotten" in viewer.text("#state")
    assert viewer.page.get_attribute(".graph", "data-drawn") == "5"
    states = json.loads(viewer.page.get_attribute(".graph", "data-states"))
    assert set(states.values()) == {"verified"}
    assert "the campaign is complete" in viewer.text(".timeline")

    with viewer.page.expect_download() as download:
        viewer.page.click("text=Attestation")
    envelope = json.loads(Path(download.value.path()).read_text())
    assert envelope["payloadType"] == "application/vnd.in-toto+json"

    # Taken back, with a reason.
    press(approver, "rollback", request_id, reason=EVIL)
    wait_for_state(viewer, "rolled back")


def test_a_visitor_with_fewer_rights_is_refused_by_the_coordinator(
    visitors: dict[str, Watched],
) -> None:
    viewer = visitors["viewer"]
    for path in ("/audit", "/system", "/request/new"):
        viewer.open(path)
        assert "Not for your role" in viewer.text("h1")
    viewer.problems.clear()  # Chromium writes each 403 into its console
    viewer.open("/overview")
    answer = viewer.page.evaluate(
        """async () => {
            const key = document.querySelector("input[name=form_key]").value;
            const body = new URLSearchParams(
                {form_key: key, kind: "classes", forget: "cat@r1", do: "submit"});
            return (await fetch("/request/new", {method: "POST", body})).text();
        }"""
    )
    assert "Expected the token of an operator to submit a request" in answer


def test_what_others_wrote_is_text_everywhere(visitors: dict[str, Watched], fleet: Fleet) -> None:
    """Class names, data sets and reasons may be anything."""
    operator, approver, viewer = visitors.values()
    for visitor in visitors.values():
        visitor.problems.clear()  # Chromium writes each refusal into its console
    with grpc.insecure_channel(fleet.address) as channel:
        record = graph_pb2.ModelRecord(
            id="x1",
            owner="zoe",
            architecture="ab" * 32,
            labels=[EVIL, "dog"],
            digest="cd" * 32,
            provenance=graph_pb2.Provenance(dataset=EVIL, samples_per_class={EVIL: 3, "dog": 4}),
        )
        Client(channel, secret("operator")).RegisterModel(pb.RegisterModelRequest(record=record))
    operator.open("/request/new?root=x1")
    operator.page.fill("#forget", f"{EVIL}@x1")
    operator.page.fill("#reason", EVIL)
    operator.page.click("button[value=plan]")
    operator.page.wait_for_selector("#plan")
    operator.page.click("button[value=submit]")
    operator.page.wait_for_selector(".notice")
    request_id = operator.text("#content .lead code")
    shown = 0
    for visitor in (operator, viewer, approver):
        for screen in SCREENS:
            query = {"/campaign": f"?id={request_id}", "/model": "?id=x1"}.get(screen.path, "")
            if visitor is viewer and "viewer" not in screen.roles:
                continue
            if screen.path == "/request/new" and visitor is not operator:
                continue
            visitor.open(screen.path + query)
            assert visitor.page.query_selector_all("main img, main script") == [], screen.path
            assert "owned" not in visitor.page.title()
            shown += EVIL in visitor.text("main")
        assert visitor.problems == []
    assert shown > 6
    press(approver_on(approver, request_id), "abort", request_id)


def approver_on(approver: Watched, request_id: str) -> Watched:
    approver.open(f"/campaign?id={request_id}")
    return approver


def test_every_screen_is_accessible_at_each_size_in_dark_and_in_print(
    visitors: dict[str, Watched],
) -> None:
    operator = visitors["operator"]
    operator.problems.clear()
    operator.open("/campaigns")
    request_id = operator.text(".cards li:last-child code")
    found = {}
    for screen in SCREENS:
        query = {"/campaign": f"?id={request_id}", "/model": "?id=r1"}.get(screen.path, "")
        operator.open(screen.path + query)
        if screen.part in ("campaign", "graph"):
            operator.page.wait_for_selector("[data-drawn]")
        if problems := looked_at(operator.page):
            found[screen.path] = problems
    assert found == {}
    assert operator.problems == []


def test_a_page_is_live_however_slowly_its_scripts_arrive(
    visitors: dict[str, Watched],
) -> None:
    viewer = visitors["viewer"]

    def late(route: Any) -> None:
        time.sleep(0.3)
        route.continue_()

    viewer.page.route("**/hx-sse.js", late)
    try:
        with viewer.page.expect_response("**/overview/live"):
            viewer.open("/overview")
    finally:
        viewer.page.unroute("**/hx-sse.js")


def test_the_sign_in_page_is_accessible(browser: Any, base: str) -> None:
    stranger = Watched(browser, base)
    stranger.open("/sign-in")
    assert looked_at(stranger.page) == {}
    stranger.context.close()


def test_a_campaign_can_be_followed_and_approved_by_keyboard(visitors: dict[str, Watched]) -> None:
    page = visitors["operator"].page
    page.set_viewport_size({"width": 1280, "height": 1100})
    visitors["operator"].open("/overview")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.closest('main') !== null")


_ACTIVE = graph_pb2.MODEL_STATUS_ACTIVE
_TRANSFER = graph_pb2.INHERITANCE_KIND_TRANSFER


class LargeFleet(Visitor):
    """A visitor of a coordinator that has thousands of models."""

    models = 5000
    calls: ClassVar[list[str]] = []

    def call(self, method: Any, request: Any) -> Any:
        self.calls.append(type(request).__name__)
        if isinstance(request, pb.ListRequestsRequest):
            return pb.ListRequestsResponse()
        return pb.WhoAmIResponse(name="viewer", role="viewer")

    def stream(self, method: Any, request: Any) -> Iterator[Any]:
        self.calls.append(type(request).__name__)
        names = [f"m{number:04}" for number in range(self.models)]
        records = [
            graph_pb2.ModelRecord(id=name, owner=f"owner-{number % 97}", status=_ACTIVE)
            for number, name in enumerate(names)
        ]
        edges = [
            graph_pb2.Inheritance(parent=names[parent], child=name, kind=_TRANSFER, weight=0.5)
            for number, name in enumerate(names[1:], 1)
            for parent in sorted({number // 7, number * 2 // 3})
        ]
        yield graph_pb2.Graph(models=records, edges=edges)


def test_a_graph_of_five_thousand_models_is_usable(browser: Any) -> None:
    def application(port: int) -> Starlette:
        make = partial(LargeFleet, grpc.insecure_channel("127.0.0.1:1"), "large")
        return Dashboard(make, "large", Cookies(port, secure=False)).application(LOOPBACK)

    with served(application) as base:
        viewer = Watched(browser, base, viewport={"width": 1280, "height": 900})
        page = viewer.page
        viewer.page.goto(f"{base}/sign-in?next=/models")
        page.fill("#token", "any")
        page.evaluate("() => { document.querySelector('input[name=next]').value = '/graph'; }")
        clocks = viewer.context.new_cdp_session(page)
        clocks.send("Performance.enable", {"timeDomain": "threadTicks"})
        LargeFleet.calls.clear()
        used = time.process_time(), metrics(clocks)
        page.click("button:has-text('Sign in')")
        page.wait_for_selector("[data-drawn='5000']", timeout=WAIT)
        page.wait_for_function("() => performance.getEntriesByName('graph drawn').length")
        figures = {
            "boxes": int(page.get_attribute(".graph", "data-drawn")),
            "calls_of_the_coordinator": len(LargeFleet.calls),
            **page.evaluate(
                """() => {
                    const loaded = [...performance.getEntriesByType("navigation"),
                                    ...performance.getEntriesByType("resource")];
                    return {
                        elements: document.querySelectorAll("*").length,
                        requests: loaded.length,
                        kilobytes: Math.round(
                            loaded.reduce((sum, one) => sum + one.decodedBodySize, 0) / 1000),
                    };
                }"""
            ),
            "cpu_seconds": {
                "server": round(time.process_time() - used[0], 2),
                **{name: round(v - used[1][name], 2) for name, v in metrics(clocks).items()},
            },
        }
        # In its corner is the whole of it; where that is pressed is what is seen.
        page.click("button[data-graph-do=in]", click_count=4)
        page.locator(".minimap").click(position={"x": 4, "y": 4})
        seen = "() => document.querySelector('.graph')._cyreg.cy.extent()"
        corner = page.evaluate(seen)
        page.locator(".minimap").click()
        assert corner["x2"] < page.evaluate(seen)["x1"]
        page.fill("input[name=q]", "m4321")
        page.click("button:has-text('Show')")
        page.wait_for_selector("#list ~ .scroll tbody tr:only-child >> text=m4321")
        page.click("a:has-text('look around')")
        page.wait_for_selector("[data-drawn]")
        found = int(page.get_attribute(".graph", "data-drawn"))
        assert 3 <= found < 200
        assert viewer.problems == []
        viewer.context.close()
    print(json.dumps(figures))
    stored = ROOT / "docs/figures/dashboard.json"
    if PICTURES:
        stored.write_text(json.dumps(figures, indent=2) + "\n")
    known = json.loads(stored.read_text())
    for name in ("boxes", "calls_of_the_coordinator", "elements", "requests"):
        assert figures[name] == known[name], f"{name} has changed: make pictures"
    assert figures["kilobytes"] == pytest.approx(known["kilobytes"], rel=0.02), "make pictures"


def metrics(clocks: Any) -> dict[str, float]:
    """CPU seconds of the page so far: all of its thread, and its scripts."""
    found = {one["name"]: one["value"] for one in clocks.send("Performance.getMetrics")["metrics"]}
    return {"page": found["TaskDuration"], "scripts": found["ScriptDuration"]}


def _top(width: int, height: int) -> dict[str, int]:
    return {"x": 0, "y": 0, "width": width, "height": height}
