"""Screens: what they show of any answer, in words, and the commands beside them."""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer.main
from starlette.datastructures import QueryParams

from disinherit.cli.main import app, run
from disinherit.documents.campaign.values import campaign_state
from disinherit.documents.pages import WORST
from disinherit.ui.application import Dashboard
from disinherit.ui.rendering import accuracy_plot, render
from disinherit.ui.screens import overview
from disinherit.ui.screens.actions import ACTIONS
from disinherit.ui.screens.campaigns import campaign_values
from disinherit.ui.screens.new_request import equal_command, to_message
from disinherit.ui.screens.screen import Page, Screen
from disinherit.ui.screens.screens import SCREENS
from disinherit.ui.sessions import VisitorSession
from disinherit.ui.visitors import Visitor
from disinherit.ui.words import CAMPAIGNS, TASKS
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import graph_pb2
from tests.support import campaign
from tests.support.dashboard import act, dashboard, form_key, signed_in
from tests.support.service import Running, make_request, secret, serving

TIME = re.compile(r"\d{4}-\d\d-\d\dT")
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def running(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("screens") / "world"
    campaign.copy(built, root).store.close()
    with serving(root) as running:
        operator = running.client("operator")
        operator.SubmitRequest(pb.SubmitRequestRequest(request=make_request()))
        running.client("approver").ApproveRequest(pb.ControlRequest(id="q"))
        for status in operator.WatchRequest(pb.GetRequestRequest(id="q")):
            last = status
        assert last.state == pb.CAMPAIGN_STATE_COMPLETE
        yield running


@pytest.fixture(scope="module")
def found(running: Running) -> Iterator[Dashboard]:
    with dashboard(running.address) as found:
        yield found


def loaded(found: Dashboard, screen: Screen) -> tuple[Page, Mapping[str, Any]]:
    role = "operator" if "operator" in screen.roles else "viewer"
    client = signed_in(found, role)
    session = found.sessions.find(client.cookies["disinherit-8787"])
    assert session is not None
    query = {"/campaign": "id=q", "/model": "id=r1"}.get(screen.path, "")
    page = Page(session, QueryParams(query))
    return page, screen.load(page)


class Tags(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]


def poisoned(value: Any, keep: frozenset[str]) -> Any:
    """The same values, with markup in every text but states and times, which are looked up."""
    if isinstance(value, dict):
        return {name: poisoned(one, keep) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [poisoned(one, keep) for one in value]
    if isinstance(value, str) and value not in keep and not TIME.match(value):
        return f"{value}{EVIL}'\""
    return value


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.path)
def test_markup_in_any_answer_is_text(screen: Screen, found: Dashboard) -> None:
    page, values = loaded(found, screen)
    keep = frozenset({*TASKS, *CAMPAIGNS, "active", "superseded", "retired", "passed", "waiting"})
    text = render(screen.part, {**poisoned(dict(values), keep), "session": page.session})
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in text
    tags = Tags(text)
    assert not {"img", "script", "style"} & set(tags.found)
    assert tags.handlers == []


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.path)
def test_a_command_that_a_page_names_is_there(screen: Screen, found: Dashboard) -> None:
    page, _ = loaded(found, screen)
    assert_is_command(screen.command(page))


def assert_is_command(words: Any) -> None:
    command: Any = typer.main.get_command(app)
    for word in words:
        if hasattr(command, "load"):
            command = command.load()
        if not hasattr(command, "commands"):
            return
        assert word in command.commands, words
        command = command.commands[word]


def test_commands_of_actions_are_there() -> None:
    for action in ACTIONS:
        assert_is_command(("request", action.name, "q"))


def test_an_empty_fleet_says_what_to_do(tmp_path: Path) -> None:
    with serving(tmp_path) as running, dashboard(running.address) as found:
        client = signed_in(found, "operator")
        for screen in SCREENS:
            if screen.path not in ("/campaign", "/model", "/request/new", "/system", "/audit"):
                text = client.get(screen.path).text
                assert 'class="empty"' in text or "Nothing waits" in text, screen.path


def test_a_campaign_is_taken_back_only_with_its_id_and_a_reason(found: Dashboard) -> None:
    approver = signed_in(found, "approver")
    for typed, fields, missing in (
        ("rollback", {"reason": "x"}, "to be typed"),
        ("q", {}, "Expected a reason"),
        ("q", {"reason": " "}, "Expected a reason"),
    ):
        answer = act(approver, "q", "rollback", typed, **fields)
        assert answer.status_code == 400
        assert missing in answer.text
    assert approver.get("/campaign.json?id=q").json()["campaign"]["state"] == "complete"
    refused = act(approver, "q", "pause", "pause")
    assert refused.status_code == 403
    assert act(approver, "q", "nonsense", "nonsense").status_code == 400
    assert act(approver, "nowhere", "abort", "nowhere").status_code == 404
    operator = signed_in(found, "operator")
    assert act(operator, "q", "rollback", "q", reason="x").status_code == 403
    assert act(operator, "q", "pause", "pause").status_code == 409


def test_what_the_campaign_page_shows_is_what_the_coordinator_says(
    found: Dashboard, running: Running
) -> None:
    values = signed_in(found, "viewer").get("/campaign.json?id=q").json()
    assert values["campaign"]["counts"] == {"verified": 5}
    assert values["campaign"]["sentence"] == "Forget class “cat” everywhere inherited from r1"
    assert [one["model"] for one in values["models"]] == list(campaign.AFFECTED)
    assert values["missing"] == []
    assert values["timeline"][0]["kind"] == "completed"
    assert all(one["actor"] is None for one in values["timeline"])  # a viewer
    known = signed_in(found, "operator").get("/campaign.json?id=q").json()["timeline"]
    assert "approver:approver" in {one["actor"] for one in known}


def test_campaigns_are_those_of_an_owner_where_one_is_named(found: Dashboard) -> None:
    viewer = signed_in(found, "viewer")

    def shown(owner: str) -> list[str]:
        values = viewer.get(f"/campaigns.json?owner={owner}").json()["campaigns"]
        return [one["id"] for one in values]

    assert shown("cleo") == ["q"]
    assert shown("nobody") == []
    assert "No campaign fits" in viewer.get("/campaigns?owner=nobody").text
    assert "request list --owner cleo" in viewer.get("/campaigns?owner=cleo").text


def test_what_models_still_recognise_is_said_in_words(found: Dashboard) -> None:
    viewer = signed_in(found, "viewer")
    words = "recognises 0 of 16 held-out samples"
    for path in ("/campaign?id=q", "/model?id=r1"):
        assert words in viewer.get(path).text, path
    model = viewer.get("/model.json?id=r1").json()
    assert [one["model"] for one in model["children"]] == ["r2", "r4"]  # without its own version
    assert (model["descendants"], model["ancestors"]) == (4, 2)


def test_a_printed_audit_log_has_what_entries_record_and_when(found: Dashboard) -> None:
    page = signed_in(found, "operator").get("/audit").text
    (row,) = (one for one in page.split("<tr") if "plan sha256" in one)
    assert 'class="print-only"' in row
    assert "{" not in row
    assert re.search(r'data-exact="\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"', page)
    assert "/campaign/attestation?id=q" in page


def test_the_graph_is_coloured_by_the_scores_that_owners_found(
    found: Dashboard, running: Running
) -> None:
    viewer = signed_in(found, "viewer")
    report = running.client("viewer").GetReport(pb.GetReportRequest(id="q"))
    scores = {
        one.coverage.model_id: one.result.inheritance
        for one in report.models
        if one.result.HasField("inheritance")
    }
    assert scores
    path = "/graph.json?campaign=q&colour=score&fold=versions"
    shown = {one["id"]: one["score"] for one in viewer.get(path).json()["boxes"]}
    assert {name: score for name, score in shown.items() if score is not None} == scores
    page = viewer.get(path.replace(".json", "")).text
    assert 'class="legend" aria-label="Inheritance scores"' in page
    assert f"{min(scores.values()):.2f}" in page
    assert "inheritance score" not in viewer.get("/graph?colour=score").text  # of no campaign
    assert viewer.get("/graph?colour=shine").status_code == 400


def test_evidence_can_be_verified_offline(found: Dashboard, tmp_path: Path) -> None:
    answer = signed_in(found, "operator").get("/campaign/evidence?id=q")
    assert answer.headers["content-disposition"] == 'attachment; filename="q.evidence.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        packed.extractall(tmp_path)
    files = ("audit.jsonl", "--public-key", "keys.pem", "--attestation", "attestation.json")
    words = [str(tmp_path / one) if "." in one else one for one in files]
    assert run(["audit", "verify", *words]) == 0
    assert '"cat"' not in (tmp_path / "report.json").read_text()
    viewer = signed_in(found, "viewer")
    assert viewer.get("/campaign/evidence?id=q").status_code == 403
    assert "/campaign/evidence" not in viewer.get("/campaign?id=q").text


def test_accuracies_are_drawn_with_the_least_that_is_allowed() -> None:
    rows = [{"model": f"m{i}", "before": 0.9, "after": 0.7, "samples": 50} for i in range(30)]
    drawn = accuracy_plot(rows, 2.0)
    assert drawn.count("least allowed 88.0 %") == WORST
    assert drawn.count('class="dot limit"') == drawn.count('class="range"') == WORST
    free = accuracy_plot([{**rows[0], "samples": None}], None)
    assert "limit" not in free
    assert "range" not in free
    assert "m0: before 90.0 %, after 70.0 %" in free


FORM = {"kind": "classes", "forget": "cat@r1\n dog@r1 \n", "reason": "it's asked", "waves": "10% 5"}


def test_a_form_is_the_request_of_its_command() -> None:
    message = to_message({**FORM, "deadline": "2d", "max_drop": "2", "alpha": "0.5"})
    assert list(message.request.roots[0].classes) == ["cat", "dog"]
    assert message.deadline_seconds == 2 * 86400
    assert message.request.roll_out.max_retain_drop == 2
    assert [wave.count for wave in message.request.roll_out.waves] == [0, 5]
    words = equal_command({**FORM, "deadline": "2d", "scope": "all", "merge": "max"})
    assert words == [
        *("request", "submit", "--forget", "cat@r1", "--forget", "dog@r1"),
        *("--reason", "it's asked", "--deadline", "2d", "--scope", "all"),
        *("--wave", "10%", "--wave", "5"),
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "x"}, "classes, samples, client"),
        ({"forget": ""}, "at least one class"),
        ({"forget": "cat"}, "CLASS@MODEL"),
        ({"kind": "samples", "samples": "{}"}, "samples digest"),
        ({"deadline": "soon"}, "duration"),
        ({"max_drop": "much"}, "number"),
        ({"waves": "half"}, "wave"),
        ({"kind": "client", "client": ""}, "forget"),
    ],
)
def test_a_form_that_is_no_request_says_what_was_expected(
    changes: dict[str, str], named: str, found: Dashboard
) -> None:
    operator = signed_in(found, "operator")
    key = operator.get("/request/new").text.partition('name="form_key" value="')[2][:43]
    form = {**FORM, **changes, "form_key": key, "do": "plan"}
    page = operator.post("/request/new", data=form).text
    assert 'id="problem"' in page
    assert named in page.partition('id="problem"')[2].partition("</p>")[0]


@pytest.mark.parametrize(
    ("state", "tasks", "role", "said"),
    [
        ("AWAITING_APPROVAL", {"pending": 3}, "approver", "yours"),
        ("AWAITING_APPROVAL", {"pending": 3}, "operator", "An approver"),
        ("HALTED", {"halted": 3}, "viewer", "too much was lost"),
        ("PARTIAL", {"verified": 2, "failed": 1}, "operator", "1 model that did not forget"),
        ("RUNNING", {"unapproved": 1}, "approver", "joined later"),
        ("RUNNING", {"pending": 1}, "approver", ""),
        ("COMPLETE", {"verified": 1}, "approver", ""),
    ],
)
def test_what_needs_somebody(state: str, tasks: dict[str, int], role: str, said: str) -> None:
    number = pb.CampaignState.Value(f"CAMPAIGN_STATE_{state}")
    status = pb.RequestStatus(state=number, tasks=tasks, reason="too much was lost")
    needs = campaign_values(status, role)["needs"]
    assert said in needs
    assert bool(needs) == bool(said)


class Told:
    """A visitor whose coordinator answers as a test says, by the kind of request."""

    def __init__(self, *answers: Any) -> None:
        self.answers = {type(one).__name__.removesuffix("Response"): one for one in answers}

    def call(self, method: Any, request: Any) -> Any:
        return self.answers[type(request).__name__.removesuffix("Request")]

    def pages(self, method: Any, request: Any) -> Iterator[Any]:
        yield self.call(method, request)


def needs_of(*answers: Any) -> list[tuple[str, str]]:
    """Kinds and titles of what needs somebody on the overview."""
    report = pb.GetReportResponse(summary=pb.ReportSummary())
    session = VisitorSession(Told(report, *answers), "eve", "viewer")  # type: ignore[arg-type]
    page = Page(session, QueryParams(""))
    return [(one["kind"], one["title"]) for one in overview.load(page)["needs"]]


def test_roots_without_a_fisher_summary_need_somebody_until_they_have_answered() -> None:
    models = pb.ListModelsResponse(
        models=[
            graph_pb2.ModelRecord(id="r1", owner="anna"),
            graph_pb2.ModelRecord(id="r2", owner="ben", fisher_digest="ab" * 32),
        ]
    )

    def shown(state: str, request: Any, campaign_state: Any = pb.CAMPAIGN_STATE_RUNNING) -> Any:
        tasks = {"pending": 1, state: 2}
        status = pb.RequestStatus(request=request, state=campaign_state, tasks=tasks)
        covered = [
            pb.ModelCoverage(model_id=one, owner=one, state=state) for one in ("r1", "r2", "r3")
        ]
        return needs_of(
            pb.ListRequestsResponse(requests=[status]),
            pb.ListOwnersResponse(),
            models,
            pb.GetCoverageResponse(models=covered),
        )

    asked = campaign.make_request({"r1": ("cat",), "r2": ("owl",)})
    assert shown("sent", asked) == [("summary", "No Fisher summary: r1")]
    assert shown("verified", asked) == []
    assert shown("sent", asked, pb.CAMPAIGN_STATE_ABORTED) == []
    change = campaign.make_request({"r1": ("cat",)})
    change.method.mechanism = "delta"
    assert shown("sent", change) == []


def test_owners_that_are_away_for_a_day_need_somebody() -> None:
    now = int(datetime.now(UTC).timestamp() * 1e6)
    days = {"new": 0.5, "idle": 2, "late": 3, "bare": 3, "here": 3}
    owners = [
        pb.Owner(
            name=name,
            online=name == "here",
            last_seen_us=now - int(gone * 86400e6),
            active_models=int(name != "bare"),
            pending_tasks=int(name == "late"),
        )
        for name, gone in days.items()
    ]
    owners.append(pb.Owner(name="never", active_models=1))
    found = needs_of(pb.ListRequestsResponse(), pb.ListOwnersResponse(owners=owners))
    assert found == [
        ("owners", "Not connected for a day or more: late"),
        ("idle owners", "Not connected for a day or more: idle"),
    ]


def test_owners_that_never_connected_are_not_said_to_be_away_for_a_day() -> None:
    new = pb.Owner(name="new", pending_tasks=1)
    found = needs_of(pb.ListRequestsResponse(), pb.ListOwnersResponse(owners=[new]))
    assert found == [("owners", "Not connected yet: new")]
    late = pb.Owner(name="late", pending_tasks=1, last_seen_us=1)
    found = needs_of(pb.ListRequestsResponse(), pb.ListOwnersResponse(owners=[new, late]))
    assert found == [("owners", "Not connected yet, or for a day or more: late and new")]


def test_a_plan_offers_the_models_that_were_trained_on_it_as_roots(
    built: Path, tmp_path: Path
) -> None:
    campaign.copy(built, tmp_path / "world").store.close()
    with serving(tmp_path / "world") as running, dashboard(running.address) as found:
        operator = signed_in(found, "operator")
        key = form_key(operator.get("/request/new").text)
        form = {"kind": "classes", "forget": "cat@r1", "form_key": key, "do": "plan"}
        page = operator.post("/request/new", data=form).text
    notes = page.partition('<ul class="notes">')[2].partition("</ul>")[0]
    offered = re.findall(r'data-add="(.*?)"', notes)
    assert sorted(offered) == ["cat@r2", "cat@r3", "cat@r4", "cat@r6"]
    assert re.search(r"About [\d.]+ kB come from the roots", page)


def test_a_deadline_that_is_near_needs_somebody() -> None:
    soon = int((datetime.now(UTC).timestamp() + 3600) * 1e6)
    status = pb.RequestStatus(state=pb.CAMPAIGN_STATE_RUNNING, deadline_us=soon)
    assert "deadline is near" in campaign_values(status, "viewer")["needs"]


def test_every_state_has_a_sign_a_word_and_a_tone() -> None:
    for number in pb.CampaignState.values():
        if number:
            assert campaign_state(number) in CAMPAIGNS
    signs = [(state.sign, state.word) for state in TASKS.values()]
    assert len(signs) == len(set(signs))
    script = (Path(__file__).parents[2] / "ui/static/drawings.js").read_text()
    for name, state in TASKS.items():
        assert f'{name}: ["{state.sign}", "{state.tone}"]' in script


def test_a_session_is_not_written_with_its_token() -> None:
    session = VisitorSession(Visitor(None, "here", "the-token"), "eve", "viewer")  # type: ignore[arg-type]
    assert "the-token" not in repr(session)


def test_the_graph_is_exported_as_the_command_draws_it(
    found: Dashboard, running: Running, tmp_path: Path
) -> None:
    viewer = signed_in(found, "viewer")
    for query, words in (("", ()), ("&around=r4&depth=1", ("--around", "r4", "--depth", "1"))):
        answer = viewer.get(f"/graph/export?as=svg{query}")
        assert answer.headers["content-type"] == "image/svg+xml"
        assert answer.headers["content-disposition"] == 'attachment; filename="graph.svg"'
        out = tmp_path / "graph.svg"
        command = ["graph", "export", "--as", "svg", "--out", str(out), *words]
        assert run([*command, "--server", running.address, "--token", secret("viewer")]) == 0
        assert answer.text == out.read_text()
    refused = viewer.get("/graph/export?as=svg&around=nowhere")
    assert refused.status_code == 400
    assert "Expected a model of the graph" in refused.text
