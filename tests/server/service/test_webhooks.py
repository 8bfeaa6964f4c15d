"""Webhooks of a service, sent to a real HTTP server, also after the service was killed."""

import hashlib
import hmac
import json
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from disinherit.common.errors import InputError
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.now import now_us
from disinherit.server.service import webhooks
from disinherit.server.service.hosting import Service
from disinherit.server.service.settings import read_settings
from disinherit.server.service.webhook_messages import EVENTS
from disinherit.server.service.webhooks import WebhookSettings, sign
from disinherit.server.states import CampaignEvent
from disinherit.server.transport.routing import Route
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import unlearning_pb2
from tests import ROOT
from tests.support import campaign
from tests.support.agent import wait_for
from tests.support.campaign import gone
from tests.support.service import Client, make_request, secret, write_tokens

SECRET = b"a secret that nobody guesses"
CONFIG = """
database = "coordinator.db"
tokens = "tokens.toml"
listen = "127.0.0.1:0"

[[webhooks]]
url = "{url}"
secret = "webhook.secret"
"""


@dataclass
class Receiver:
    """A server that gets messages.

    Attributes:
        url: where.
        answers: what it answers next; 204 when there are none.
        got: headers and body of each message.
        hold: while it is not set, nothing is answered.
    """

    url: str
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def events(self) -> list[tuple[str, str]]:
        return [(one["event"], one["state"]) for one in self.bodies()]

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.got.append((dict(self.headers), body))
            told.hold.wait(30)
            self.send_response(told.answers.pop(0) if told.answers else 204)
            self.send_header("Location", told.url)  # of a redirection
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    told = Receiver(f"{scheme}://127.0.0.1:{server.server_address[1]}/hook?token=abc")
    told.hold.set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield told
    finally:
        told.hold.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as told:
        yield told


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A folder with a federation, tokens and the secret."""
    root = tmp_path / "copy"
    campaign.copy(built, root).store.close()
    write_tokens(root / "tokens.toml")
    (root / "webhook.secret").write_bytes(SECRET + b"\n")
    return root


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(webhooks, "_FIRST_DELAY", 0.1)


def configure(root: Path, url: str, more: str = "") -> Path:
    path = root / "serve.toml"
    path.write_text(CONFIG.format(url=url) + more)
    return path


@contextmanager
def serving(root: Path) -> Iterator[tuple[campaign.World, Any]]:
    """A service with the webhooks of `serve.toml`: the federation, and clients by role."""
    with campaign.World(root) as world:
        settings = read_settings(root / "serve.toml", {"database": world.place}, {})
        service = Service(settings, [Route(world.transport, lambda _: True)])
        service.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
                yield world, lambda who: Client(channel, secret(who))
        finally:
            service.stop(grace=0.5)


def submit(clients: Any, request: unlearning_pb2.UnlearningRequest, deadline: int = 0) -> None:
    message = pb.SubmitRequestRequest(request=request, deadline_seconds=deadline)
    clients("operator").SubmitRequest(message)


def approve(clients: Any, request_id: str = "q") -> None:
    clients("approver").ApproveRequest(pb.ControlRequest(id=request_id))


def test_each_state_that_needs_somebody_is_told_once_and_signed(
    root: Path, receiver: Receiver
) -> None:
    configure(root, receiver.url)
    with serving(root) as (_, clients):
        submit(clients, make_request())
        wait_for(lambda: receiver.events() == [("awaiting_approval", "awaiting_approval")])
        approve(clients)
        wait_for(lambda: len(receiver.got) == 2)
        time.sleep(0.3)  # some more looks
    assert receiver.events()[1:] == [("done", "complete")]
    for headers, body in receiver.got:
        stamp, code = headers["Disinherit-Signature"].split(",")
        signed = f"{stamp.removeprefix('t=')}.".encode() + body
        assert code == "v1=" + hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
        assert abs(int(stamp.removeprefix("t=")) - time.time()) < 60
        found = json.loads(body)
        assert headers["Disinherit-Delivery"] == found["id"]
        assert headers["Disinherit-Event"] == found["event"]
        assert set(found) == {"id", "event", "request", "state", "time", "deadline"}
        assert not any(name.encode() in body for name in (*campaign.NAMES, "asked to", "r1"))
    with serving(root):  # again
        time.sleep(0.3)
    assert len(receiver.got) == 2


def test_details_and_events_are_as_configured(root: Path, receiver: Receiver) -> None:
    configure(root, receiver.url, 'events = ["done"]\ndetails = true\n')
    with serving(root) as (_, clients):
        submit(clients, make_request())
        approve(clients)
        wait_for(lambda: len(receiver.got) == 1)
    (found,) = receiver.bodies()
    assert (found["event"], found["reason"], found["roots"]) == ("done", "asked to", ["r1"])


def test_a_halt_and_a_deadline_that_is_near_are_told(root: Path, receiver: Receiver) -> None:
    configure(root, receiver.url, 'events = ["halted", "deadline_near"]\ndeadline_near = "1h"\n')
    with serving(root) as (world, clients):
        world.transport.twists["cleo", "train.unlearn"] = gone
        submit(clients, make_request(request_id="far"), deadline=7200)
        submit(clients, make_request(request_id="near"), deadline=1800)
        wait_for(lambda: len(receiver.got) == 1)
        (found,) = receiver.bodies()
        assert (found["event"], found["request"]) == ("deadline_near", "near")
        assert found["deadline"]
        approve(clients, "far")
        world.store.transition("far", CampaignEvent.HALT)
        wait_for(lambda: len(receiver.got) == 2)
        assert receiver.events()[1] == ("halted", "halted")
        # Somebody decided to go on, and it is halted once more: that, too, needs somebody.
        clients("approver").ResumeRequest(pb.ResumeRequestRequest(id="far"))
        world.store.transition("far", CampaignEvent.HALT)
        wait_for(lambda: len(receiver.got) == 3)
    with serving(root):  # again: nothing is news
        time.sleep(0.3)
    assert receiver.events()[2:] == [("halted", "halted")]
    assert len({one["id"] for one in receiver.bodies()}) == 3


def test_what_was_not_delivered_is_tried_again_and_blocks_nothing(
    root: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    configure(root, receiver.url)
    receiver.answers[:] = [500, 302, 404]
    with serving(root) as (_, clients):
        submit(clients, make_request())
        wait_for(lambda: len(receiver.got) == 4)
        receiver.hold.clear()
        approve(clients)
        watch = clients("viewer").WatchRequest(pb.GetRequestRequest(id="q"))
        assert list(watch)[-1].state == pb.CAMPAIGN_STATE_COMPLETE  # while nobody answers
        receiver.hold.set()
        wait_for(lambda: len(receiver.got) == 5)
    first = receiver.got[:4]
    assert len({body for _, body in first}) == 1
    assert len({headers["Disinherit-Delivery"] for headers, _ in first}) == 1
    assert "answered with HTTP status 500" in caplog.text
    assert "tried again in" in caplog.text
    assert "token=abc" not in caplog.text


def test_a_message_is_given_up_at_last(
    root: Path,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhooks, "_MOST_ATTEMPTS", 2)
    configure(root, receiver.url)
    receiver.answers[:] = [500] * 9
    with serving(root) as (_, clients):
        submit(clients, make_request())
        wait_for(lambda: "given up" in caplog.text)
        time.sleep(0.3)
    assert len(receiver.got) == 2


def test_a_service_that_was_killed_while_it_sent_goes_on_and_tells_nothing_twice(
    root: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(root, receiver.url)
    receiver.hold.clear()
    program = str(Path(sys.executable).with_name("disinherit"))
    command = [program, "serve", "--plaintext", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = process.stderr.readline().partition("serving on port ")[2].strip()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            submit(lambda who: Client(channel, secret(who)), make_request())
        wait_for(lambda: len(receiver.got) == 1)
        process.send_signal(signal.SIGKILL)
    receiver.hold.set()
    later = 2 * round(webhooks._CLAIM_SECONDS * 1e6)
    monkeypatch.setattr(webhooks, "now_us", lambda: now_us() + later)
    for _ in range(2):
        with serving(root):
            wait_for(lambda: len(receiver.got) == 2)
            time.sleep(0.3)
    assert len(receiver.got) == 2
    assert receiver.got[0][1] == receiver.got[1][1]
    assert receiver.events() == [("awaiting_approval", "awaiting_approval")] * 2


def test_what_was_before_a_webhook_is_not_told(root: Path, receiver: Receiver) -> None:
    with campaign.World(root) as world:
        world.coordinator.submit(make_request(request_id="old"), approval=True)
    configure(root, receiver.url)
    with serving(root) as (_, clients):
        time.sleep(0.3)
        assert receiver.got == []
        submit(clients, make_request())
        wait_for(lambda: len(receiver.got) == 1)
    assert receiver.bodies()[0]["request"] == "q"


def test_certificates_are_checked_with_the_authorities_of_the_system(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority = CertificateAuthority.open(root / "authority")
    pair = authority.issue_server(["127.0.0.1"])
    (root / "pair.pem").write_bytes(pair.key + pair.certificate)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(root / "pair.pem")
    with receiving(tls) as told:
        configure(root, told.url)
        with serving(root) as (_, clients):
            submit(clients, make_request())
            wait_for(lambda: "certificate verify failed" in caplog.text)
            assert told.got == []
            monkeypatch.setenv("SSL_CERT_FILE", str(root / "authority" / "ca.pem"))
            wait_for(lambda: len(told.got) == 1)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('url = "http://example.org"', "begin with https://"),
        ('url = "ftp://example.org"', "'ftp' for 'example.org'"),
        ('url = "https://"', "'no host'"),
        ('url = "https://example.org"\nevents = ["else"]', "events"),
        ('url = "https://example.org"\ndeadline_near = "soon"', "duration"),
        ('url = "https://example.org"\nx = 1', r"\.x"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(line: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    head = 'database = "a.db"\ntokens = "t.toml"\n'
    path.write_text(f'{head}[[webhooks]]\nsecret = "s"\n{line}\n')
    with pytest.raises(InputError, match=named) as caught:
        read_settings(path, {}, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "named"), [(None, "No such file"), (b"short", "at least 16")])
def test_a_secret_that_cannot_be_used_is_refused_at_the_start(
    content: bytes | None, named: str, root: Path
) -> None:
    configure(root, "https://example.org")
    (root / "webhook.secret").unlink()
    if content is not None:
        (root / "webhook.secret").write_bytes(content)
    with pytest.raises(InputError, match=named), serving(root):
        pass


def test_two_webhooks_with_one_url_are_refused(root: Path) -> None:
    path = configure(root, "https://example.org/token")
    path.write_text(path.read_text() + path.read_text().partition("\n\n")[2])
    with (
        pytest.raises(InputError, match="different url for every webhook") as caught,
        serving(root),
    ):
        pass
    assert "/token" not in str(caught.value)


def test_another_secret_counts_from_the_next_message_on(root: Path, receiver: Receiver) -> None:
    configure(root, receiver.url)
    with serving(root) as (_, clients):
        (root / "webhook.secret").write_bytes(b"another secret of that length")
        submit(clients, make_request())
        wait_for(lambda: len(receiver.got) == 1)
    headers, body = receiver.got[0]
    stamp = int(headers["Disinherit-Signature"].partition(",")[0].removeprefix("t="))
    assert headers["Disinherit-Signature"] == sign(b"another secret of that length", stamp, body)


def test_the_page_has_the_settings_and_how_to_check_a_signature(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "service.md").read_text()
    (settings,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "serve.toml").write_text(settings)
    (hook,) = read_settings(tmp_path / "serve.toml", {}, {}).webhooks
    assert hook == WebhookSettings(
        "https://chat.example.org/hook", tmp_path / "webhook.secret", EVENTS, 24 * 3600
    )
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    now = int(time.time())
    signature = sign(SECRET, now, b"{}")
    assert names["is_genuine"](SECRET, signature, b"{}")
    assert not names["is_genuine"](SECRET, signature, b"{} ")
    assert not names["is_genuine"](b"another", signature, b"{}")
    assert not names["is_genuine"](SECRET, sign(SECRET, now - 600, b"{}"), b"{}")


def test_the_url_is_never_shown() -> None:
    one = WebhookSettings("https://user:pass@example.org:8443/T0/secret", Path("s"))
    assert one.host == "example.org:8443"
    with pytest.raises(InputError) as caught:
        WebhookSettings("http://user:pass@example.org/secret", Path("s"))
    assert "pass" not in str(caught.value)
    assert "secret" not in str(caught.value)
