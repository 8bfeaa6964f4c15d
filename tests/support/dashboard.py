"""The dashboard over a service of `tests.support.service`, and visitors who are signed in."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from starlette.applications import Starlette
from starlette.testclient import TestClient

from disinherit.ui.application import Dashboard
from disinherit.ui.cookies import Cookies
from disinherit.ui.serving import LOOPBACK
from disinherit.ui.visitors import CHANNEL_OPTIONS, Visitor
from tests.support.service import secret

PORT = 8787
BASE = f"http://127.0.0.1:{PORT}"


@contextmanager
def dashboard(address: str) -> Iterator[Dashboard]:
    """A dashboard over a coordinator."""
    with grpc.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        yield Dashboard(
            lambda token: Visitor(channel, address, token), address, Cookies(PORT, secure=False)
        )


def browser(application: Starlette) -> TestClient:
    return TestClient(application, BASE, follow_redirects=False)


def application(found: Dashboard) -> Starlette:
    return found.application(LOOPBACK)


def form_key(page: str) -> str:
    match = re.search(r'name="form_key" value="([^"]+)"', page)
    assert match is not None, page
    return match[1]


def signed_in(found: Dashboard, who: str) -> TestClient:
    """The browser of somebody who has signed in."""
    client = browser(application(found))
    sign_in(client, secret(who))
    return client


def sign_in(client: TestClient, token: str, **fields: str) -> Any:
    key = form_key(client.get("/sign-in").text)
    return client.post("/sign-in", data={"form_key": key, "token": token, **fields})


def act(client: TestClient, request_id: str, action: str, typed: str, **fields: str) -> Any:
    """Press a button of a campaign's page."""
    key = form_key(client.get("/models").text)
    data = {"form_key": key, "id": request_id, "action": action, "typed": typed, **fields}
    return client.post("/campaign", data=data)
