"""Metrics of a service, scraped over HTTP while calls are made over gRPC."""

import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from disinherit.common.errors import InputError, StoreError
from disinherit.server.service.exposition import Counter, Histogram, exposed
from disinherit.server.service.hosting import Service
from disinherit.server.service.metrics_page import MetricsPage
from disinherit.server.service.settings import read_settings
from disinherit.server.store.presence import Details
from disinherit.server.transport.routing import Route
from disinherit.v1 import coordinator_pb2 as pb
from tests.support import campaign
from tests.support.service import Client, make_request, secret, write_tokens

CONFIG = """
database = "coordinator.db"
tokens = "tokens.toml"
listen = "127.0.0.1:0"

[metrics]
listen = "127.0.0.1:0"
"""


class Scraped:
    """A service with metrics.

    Attributes:
        world: the federation behind it.
        service: the service.
    """

    def __init__(self, world: campaign.World, service: Service, channel: grpc.Channel) -> None:
        self.world, self.service, self._channel = world, service, channel

    def client(self, who: str) -> Client:
        return Client(self._channel, secret(who))

    def scrape(self) -> dict[str, float]:
        assert self.service.metrics_page is not None
        url = f"http://127.0.0.1:{self.service.metrics_page.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = answer.read().decode()
        found: dict[str, float] = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                assert re.fullmatch(r'[a-z_]+(\{([a-z]+="[^"]*",?)+\})?', name), line
                found[name] = float(value)
        return found


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    root = tmp_path_factory.mktemp("metrics")
    campaign.build(root)
    write_tokens(root / "tokens.toml")
    (root / "serve.toml").write_text(CONFIG)
    with campaign.World(root) as world:
        settings = replace(read_settings(root / "serve.toml", {}, {}), database=world.place)
        service = Service(settings, [Route(world.transport, lambda _: True)])
        service.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
                yield Scraped(world, service, channel)
        finally:
            service.stop(grace=0.5)


def test_metrics_count_what_happens(scraped: Scraped) -> None:
    before = scraped.scrape()
    assert before["disinherit_store_up"] == 1
    assert before["disinherit_models"] == 7
    assert before["disinherit_owners"] == 3
    assert before['disinherit_campaigns{state="running"}'] == 0
    scraped.world.store.attendance("agent").keep({"anna": Details()})
    operator = scraped.client("operator")
    operator.SubmitRequest(pb.SubmitRequestRequest(request=make_request()))
    scraped.client("approver").ApproveRequest(pb.ControlRequest(id="q"))
    list(operator.WatchRequest(pb.GetRequestRequest(id="q")))
    with pytest.raises(grpc.RpcError):
        operator.GetRequest(pb.GetRequestRequest(id="other"))
    with pytest.raises(grpc.RpcError):
        Client(scraped._channel, "wrong").ListModels(pb.ListModelsRequest())
    found = scraped.scrape()
    service = "disinherit.v1.Coordinator"
    for call, code in (
        ("SubmitRequest", "OK"),
        ("WatchRequest", "OK"),
        ("GetRequest", "NOT_FOUND"),
        ("ListModels", "UNAUTHENTICATED"),
    ):
        assert found[f'disinherit_rpc_total{{method="{service}/{call}",code="{code}"}}'] == 1
    assert found[f'disinherit_rpc_seconds_count{{method="{service}/SubmitRequest"}}'] == 1
    assert f'disinherit_rpc_seconds_count{{method="{service}/WatchRequest"}}' not in found
    assert found['disinherit_campaigns{state="complete"}'] == 1
    assert found['disinherit_tasks{state="verified"}'] == 5
    assert found['disinherit_owners_online{way="agent"}'] == 1
    lines = len(list(scraped.world.store.audit_lines())) - 1
    assert found["disinherit_audit_sequence"] == lines
    for kind in ("read", "write", "wait"):
        name = f'disinherit_store_seconds_count{{kind="{kind}"}}'
        assert found[name] > before.get(name, 0)
    text = " ".join(found)
    assert not any(name in text for name in (*campaign.NAMES, *campaign.AFFECTED, "operator"))


def test_a_watch_is_counted_while_it_is_open(scraped: Scraped) -> None:
    watch = scraped.client("viewer").WatchFleet(pb.WatchFleetRequest())
    next(watch)
    assert scraped.scrape()['disinherit_queue{queue="watches"}'] == 1
    watch.cancel()


def test_a_keeper_learns_where_metrics_are_served(scraped: Scraped) -> None:
    assert scraped.service.metrics_page is not None
    found = scraped.client("operator").GetSystem(pb.GetSystemRequest()).metrics_url
    assert found == f"http://127.0.0.1:{scraped.service.metrics_page.port}/metrics"


def test_nothing_else_is_served(scraped: Scraped) -> None:
    assert scraped.service.metrics_page is not None
    url = f"http://127.0.0.1:{scraped.service.metrics_page.port}"
    for path in ("/", "/metrics/x", "/favicon.ico"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}{path}", timeout=10)
    request = urllib.request.Request(f"{url}/metrics", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(request, timeout=10)


def test_silent_connections_do_not_take_all_places(scraped: Scraped) -> None:
    assert scraped.service.metrics_page is not None
    port = scraped.service.metrics_page.port
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for one in silent:
        one.close()
    assert scraped.scrape()["disinherit_store_up"] == 1


def test_a_store_that_fails_is_down_and_the_rest_is_there(
    scraped: Scraped, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise StoreError("the disk is gone")

    assert scraped.service._metrics is not None
    monkeypatch.setattr(scraped.service._metrics._database, "reading", fail)
    found = scraped.scrape()
    assert found["disinherit_store_up"] == 0
    assert "disinherit_models" not in found
    assert 'disinherit_queue{queue="writers"}' in found


def test_a_taken_address_is_refused_in_one_line(scraped: Scraped) -> None:
    assert scraped.service.metrics_page is not None
    address = f"127.0.0.1:{scraped.service.metrics_page.port}"
    with pytest.raises(InputError, match=f"metrics to listen at, but '{address}': Address already"):
        MetricsPage(address, lambda: b"")


def test_metrics_are_off_by_default_and_on_loopback_where_not_told_otherwise(
    tmp_path: Path,
) -> None:
    path = tmp_path / "serve.toml"
    head = 'database = "a.db"\ntokens = "tokens.toml"\n'
    path.write_text(head)
    assert read_settings(path, {}, {}).metrics is None
    path.write_text(f"{head}[metrics]\n")
    assert read_settings(path, {}, {}).metrics == "127.0.0.1:9464"
    path.write_text(f'{head}[metrics]\nlisten = "here"\n')
    with pytest.raises(InputError, match=r"metrics\.listen in .*serve\.toml"):
        read_settings(path, {}, {})


def test_the_format_is_that_of_prometheus() -> None:
    calls = Counter("calls_total", "Calls.", ("method",))
    calls.add('a"b\\c\nd')
    times = Histogram("seconds", "Seconds.", "kind", (0.1, 1))
    for seconds in (0.05, 0.1, 0.5, 3.0):
        times.add("read", seconds)
    assert exposed([calls.family(), times.family()]).decode() == (
        "# HELP calls_total Calls.\n# TYPE calls_total counter\n"
        'calls_total{method="a\\"b\\\\c\\nd"} 1\n'
        "# HELP seconds Seconds.\n# TYPE seconds histogram\n"
        'seconds_bucket{kind="read",le="0.1"} 2\n'
        'seconds_bucket{kind="read",le="1"} 3\n'
        'seconds_bucket{kind="read",le="+Inf"} 4\n'
        'seconds_sum{kind="read"} 3.65\n'
        'seconds_count{kind="read"} 4\n'
    )
