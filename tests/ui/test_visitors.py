"""Visitors: signing in and out, what a token may, and what protects it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.common.errors import InputError
from disinherit.ui.application import Dashboard
from disinherit.ui.protection import LARGEST_BODY
from disinherit.ui.screens.screens import SCREENS
from disinherit.ui.serving import Address
from disinherit.ui.sessions import IDLE_SECONDS, LONGEST_SECONDS, Sessions, VisitorSession
from disinherit.ui.visitors import Visitor
from disinherit.v1 import coordinator_pb2 as pb
from tests.support import campaign
from tests.support.dashboard import (
    BASE,
    application,
    browser,
    dashboard,
    form_key,
    sign_in,
    signed_in,
)
from tests.support.service import Running, make_request, secret, serving

ROLES = {"viewer": "viewer", "operator": "operator", "approver": "approver", "anna": "owner"}


@pytest.fixture(scope="module")
def running(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("ui") / "world"
    campaign.copy(built, root, None).store.close()
    with serving(root) as running:
        running.client("operator").SubmitRequest(pb.SubmitRequestRequest(request=make_request()))
        yield running


@pytest.fixture(scope="module")
def found(running: Running) -> Iterator[Dashboard]:
    with dashboard(running.address) as found:
        yield found


def test_a_stranger_is_asked_to_sign_in_and_comes_back_to_the_page(found: Dashboard) -> None:
    client = browser(application(found))
    asked = client.get("/campaign?id=q")
    assert (asked.status_code, asked.headers["location"]) == (
        303,
        "/sign-in?next=/campaign%3Fid%3Dq",
    )
    form = client.get(asked.headers["location"])
    assert 'value="/campaign?id=q"' in form.text
    key = form_key(form.text)
    data = {"form_key": key, "token": secret("viewer"), "next": "/campaign?id=q"}
    assert client.post("/sign-in", data=data).headers["location"] == "/campaign?id=q"
    assert client.get("/overview").status_code == 200


@pytest.mark.parametrize("path", ["/overview.json", "/campaign/live?id=q"])
def test_a_program_without_a_session_gets_an_error(path: str, found: Dashboard) -> None:
    answer = browser(application(found)).get(path)
    assert answer.status_code == 401
    assert "signed in" in answer.json()["error"]


@pytest.mark.parametrize("place", ["//evil.example", "https://evil.example", "/\\evil", "x"])
def test_nobody_is_sent_to_another_site(place: str, found: Dashboard) -> None:
    answer = sign_in(browser(application(found)), secret("viewer"), next=place)
    assert answer.headers["location"] == "/"


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(found: Dashboard) -> None:
    answer = sign_in(browser(application(found)), secret("viewer"))
    cookie = next(
        one for one in answer.headers.get_list("set-cookie") if one.startswith("disinherit-8787=")
    )
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert secret("viewer") not in cookie


@pytest.mark.parametrize("token", ["wrong", "", "é", "a\nb"])
def test_a_wrong_token_opens_nothing(token: str, found: Dashboard) -> None:
    client = browser(application(found))
    answer = sign_in(client, token)
    assert answer.status_code in (400, 401)
    assert "Expected" in answer.text
    assert client.get("/overview").status_code == 303


def test_a_token_is_in_no_page_no_address_and_no_log(
    found: Dashboard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = signed_in(found, "operator")
    token = secret("operator")
    for screen in SCREENS:
        answer = client.get(f"{screen.path}?id=q")
        assert token not in answer.text
        assert token not in str(answer.headers)
    assert token not in caplog.text
    assert token not in repr(Visitor(None, "here", token))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["/sign-in", "/overview", "/nowhere", "/static/style.css", "/x.json"]
)
def test_every_answer_carries_the_headers(path: str, found: Dashboard) -> None:
    headers = signed_in(found, "viewer").get(path).headers
    policy = headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_another_host_name_is_refused(found: Dashboard) -> None:
    client = signed_in(found, "viewer")
    for host in ("evil.example", "127.0.0.1.evil.example:8787", ""):
        assert client.get("/overview", headers={"host": host}).status_code == 421
    assert client.get("/overview", headers={"host": "localhost:1"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": BASE}, 303),
    ],
)
def test_a_form_of_another_site_is_refused(
    headers: dict[str, str], status: int, found: Dashboard
) -> None:
    client = signed_in(found, "viewer")
    data = {"form_key": form_key(client.get("/overview").text)}
    assert client.post("/sign-out", data=data, headers=headers).status_code == status


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/campaign", "/request/new"])
def test_a_form_without_the_key_of_its_session_is_refused(path: str, found: Dashboard) -> None:
    client = signed_in(found, "approver")
    other = form_key(signed_in(found, "approver").get("/overview").text)
    for key in ("", "x", other):
        data = {"form_key": key, "id": "q", "action": "approve", "typed": "approve"}
        assert client.post(path, data=data).status_code == 403
    assert client.get("/overview").status_code == 200


def test_a_form_is_bounded_and_of_its_type(found: Dashboard) -> None:
    client = signed_in(found, "operator")
    assert client.post("/campaign", content=b"x" * (LARGEST_BODY + 1)).status_code == 413
    assert client.post("/campaign", json={}).status_code == 400
    flood = "&".join(f"a{n}=1" for n in range(2000))
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/campaign", content=flood, headers=kind).status_code == 400
    assert client.post("/campaign", content=b"\xff=%ff", headers=kind).status_code == 400


def test_signing_out_forgets_the_token(found: Dashboard) -> None:
    client = signed_in(found, "viewer")
    cookie = client.cookies["disinherit-8787"]
    client.post("/sign-out", data={"form_key": form_key(client.get("/overview").text)})
    assert found.sessions.find(cookie) is None
    client.cookies.set("disinherit-8787", cookie)
    assert client.get("/overview").status_code == 303


def test_a_session_ends_after_an_idle_hour_and_after_half_a_day() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])

    def opened() -> tuple[str, VisitorSession]:
        session = VisitorSession(Visitor(None, "here", "t"), "eve", "viewer")  # type: ignore[arg-type]
        return sessions.open(session), session

    idle, one = opened()
    now[0] += IDLE_SECONDS
    assert sessions.find(idle) is None
    assert not sessions.alive(one)
    busy, _ = opened()
    while now[0] < IDLE_SECONDS + LONGEST_SECONDS - 1:
        assert sessions.find(busy) is not None
        now[0] += IDLE_SECONDS - 1
    assert sessions.find(busy) is None


@pytest.mark.parametrize("who", ROLES)
def test_a_role_sees_exactly_its_screens(who: str, found: Dashboard) -> None:
    client = signed_in(found, who)
    assert client.get("/").headers["location"] in ("/overview", "/models")
    menu = client.get("/models").text
    for screen in SCREENS:
        address = "?id=r1" if screen.path == "/model" else "?id=q"
        may = ROLES[who] in screen.roles
        page = client.get(f"{screen.path}{address}")
        assert page.status_code == (200 if may else 403), screen.path
        assert client.get(f"{screen.path}.json{address}").status_code == page.status_code
        assert (f'href="{screen.path}"' in menu) == (may and screen.menu), screen.path


def test_a_token_that_is_revoked_ends_the_session(running: Running) -> None:
    with dashboard(running.address) as found:
        client = signed_in(found, "ben")
        path = running.world.root / "tokens.toml"
        text = path.read_text()
        try:
            path.write_text(text.partition('[[token]]\nname = "ben"')[0])
            answer = client.get("/models")
            assert answer.status_code == 401
            assert "unknown" in answer.text
            assert client.get("/models").status_code == 303
        finally:
            path.write_text(text)


def test_a_coordinator_that_is_gone_is_said_in_one_line() -> None:
    with dashboard("127.0.0.1:1") as found:
        answer = sign_in(browser(application(found)), "some-token")
    assert answer.status_code == 503
    assert "Expected a coordinator at 127.0.0.1:1" in answer.text


@pytest.mark.parametrize(
    ("host", "names"), [("0.0.0.0", ()), ("192.0.2.1", ()), ("ui.example", ("ui.example",))]
)
def test_tokens_are_not_typed_into_pages_without_tls(host: str, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="Expected TLS files"):
        Address(host, host_names=names)


def test_the_report_and_the_letter_are_files_for_whoever_may_see_the_campaign(
    found: Dashboard,
) -> None:
    client = signed_in(found, "viewer")
    assert "/campaign/report?id=q" in client.get("/campaign?id=q").text
    report = client.get("/campaign/report?id=q")
    assert report.headers["content-disposition"] == 'attachment; filename="q.report.html"'
    assert "What this report does not show" in report.text
    assert "Dear [name]," in client.get("/campaign/letter?id=q").text
    assert signed_in(found, "anna").get("/campaign/report?id=q").status_code == 403
