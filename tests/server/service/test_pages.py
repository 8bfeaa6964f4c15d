"""Pages limited in bytes, forged page tokens, and the largest requests."""

import base64
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from disinherit.cli.main import run
from disinherit.common.graph.records import ModelRecord
from disinherit.common.limits import PAGE, SAMPLES
from disinherit.v1 import coordinator_pb2 as cpb
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.campaign import build, make_request
from tests.support.client_tasks import make_method
from tests.support.service import Running, serving, speak_as

SALT = "0" * 32
DAILY = 25_000
MESSAGE_BYTES = 4 * 2**20
"""Default size limit of a gRPC client."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("pages")
    build(root)
    with serving(root) as running:
        yield running


def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return error.code().name, error.details()


def samples_request(id: str, count: int) -> pb.UnlearningRequest:
    samples = [f"{number:064x}" for number in range(count)]
    root = pb.Root(model_id="r1", samples=samples, sample_salt=SALT)
    return pb.UnlearningRequest(id=id, roots=[root], method=make_method().to_proto())


def test_models_of_many_classes_are_listed_in_pages_of_bounded_size(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tuple(f"article-{number:06}" for number in range(20_000))
    for number in range(20):
        record = ModelRecord(f"wide-{number}", "shop", "ab", labels, "", 10**15 + number)
        running.world.store.add_model(record)
    viewer = running.client("viewer")
    ask = cpb.ListModelsRequest(owner="shop", page_size=1000)
    found: list[str] = []
    pages = 0
    while True:
        page = viewer.ListModels(ask)
        pages += 1
        assert page.ByteSize() < 2 * PAGE.most
        found += [model.id for model in page.models]
        ask.page_token = page.next_page_token
        if not ask.page_token:
            break
    assert found == [f"wide-{number}" for number in range(20)]
    assert pages > 4
    speak_as("viewer", running, monkeypatch)
    assert run(["model", "list", "--owner", "shop"]) == 0
    assert "wide-19" in capsys.readouterr().out


def test_requests_of_many_samples_are_listed_with_sample_counts(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = running.client("operator")
    days = ("mon", "tue", "wed")
    for day in days:
        request = samples_request(day, DAILY)
        status = operator.SubmitRequest(cpb.SubmitRequestRequest(request=request))
        assert len(status.request.roots[0].samples) == DAILY
    listed = operator.ListRequests(cpb.ListRequestsRequest(page_size=1000))
    assert [status.request.id for status in listed.requests] == list(days)
    assert [list(status.sample_counts) for status in listed.requests] == [[DAILY]] * 3
    assert listed.ByteSize() < 10_000
    shown = operator.GetRequest(cpb.GetRequestRequest(id="tue"))
    assert len(shown.request.roots[0].samples) == DAILY
    assert next(operator.WatchRequest(cpb.GetRequestRequest(id="tue"))).sample_counts == [DAILY]
    assert operator.GetReport(cpb.GetReportRequest(id="tue")).ByteSize() < PAGE.most
    speak_as("operator", running, monkeypatch)
    assert run(["request", "list", "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [value["roots"][0]["sample_count"] for value in values] == [DAILY] * 3
    assert run(["request", "show", "wed"]) == 0
    assert f"{DAILY} samples at r1" in capsys.readouterr().out


def test_too_many_samples_are_refused_with_advice(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    expected = (
        f"Expected at most {SAMPLES.most} samples in one request, but got {{}}. Split the list."
    )
    most = samples_request("most", SAMPLES.most)
    assert most.ByteSize() < MESSAGE_BYTES
    running.client("operator").SubmitRequest(cpb.SubmitRequestRequest(request=most))
    more = cpb.SubmitRequestRequest(request=samples_request("more", SAMPLES.most + 1))
    got = refusal(lambda: running.client("operator").SubmitRequest(more))
    assert got == ("INVALID_ARGUMENT", expected.format(SAMPLES.most + 1))
    # More than a message may have: the command does not send it.
    digests = [f"{number:064x}" for number in range(70_000)]
    listed = tmp_path / "thu.json"
    listed.write_text(json.dumps({"models": ["r1"], "salt": SALT, "digests": digests}))
    speak_as("operator", running, monkeypatch)
    assert run(["request", "submit", "--samples", str(listed), "--id", "thu"]) == 2
    assert capsys.readouterr().err == f"error: {expected.format(70_000)}\n"


def encoded(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode()


def about(*values: object) -> Callable[[str], str]:
    """Forge a page token from the rest of a query."""
    return lambda question: encoded(json.dumps([question, *values]).encode())


TOKENS: dict[str, Callable[[str], str]] = {
    "no base64": lambda _: "?",
    "no JSON": lambda _: encoded(b"\xff{"),
    "deep JSON": lambda _: encoded(b"[" * 600),
    "deeper JSON": lambda _: encoded(b"[" * 200_000),
    "a number": lambda _: encoded(b"7"),
    "an object": lambda _: encoded(b'{"a": 1}'),
    "an empty list": lambda _: encoded(b"[]"),
    "nothing but the question": about(),
    "a time beyond any database": about(2**63, "r1"),
    "a time far beyond": about(10**300, "r1"),
    "a negative time": about(-(2**63) - 1, "r1"),
    "not a number": about(float("nan"), "r1"),
    "true": about(True, "r1"),
    "a lone surrogate": about(1, "\ud800"),
    "a NUL": about(1, "a\x00b"),
    "another question": lambda question: about(1, "r1")(f"{question} "),
    "too many parts": about(1, "r1", "r1"),
    "megabytes": lambda _: "A" * 3_000_000,
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
def test_a_forged_page_token_is_refused_in_one_line(
    running: Running, token: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    anna, viewer = running.client("anna"), running.client("viewer")
    calls = (
        lambda: anna.ListModels(cpb.ListModelsRequest(page_token=token("models of 'anna'"))),
        lambda: viewer.ListRequests(cpb.ListRequestsRequest(page_token=token("requests"))),
    )
    for call in calls:
        status, text = refusal(call)
        assert status == "INVALID_ARGUMENT"
        assert text.startswith("Expected the page token")
        assert len(text) < 400
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("token", ["nobody", "\x00", "A" * 3_000_000])
def test_a_forged_page_token_of_coverage_or_report_is_refused(running: Running, token: str) -> None:
    request = cpb.SubmitRequestRequest(request=make_request({"r1": ("cat",)}, "covered"))
    running.client("operator").SubmitRequest(request)
    viewer = running.client("viewer")
    for call in (
        lambda: viewer.GetCoverage(cpb.GetCoverageRequest(id="covered", page_token=token)),
        lambda: viewer.GetReport(cpb.GetReportRequest(id="covered", page_token=token)),
        lambda: running.client("operator").PlanRequest(
            cpb.PlanRequestRequest(request=request.request, page_token=token)
        ),
    ):
        status, text = refusal(call)
        assert status == "INVALID_ARGUMENT"
        assert len(text) < 400


def test_misplaced_sample_ids_are_neither_echoed_nor_logged(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    operator = running.client("operator")
    id = "patient-7@clinic"
    salted = samples_request("salted", 1)
    salted.roots[0].sample_salt = id
    for request in (make_request({"r1": ("cat", id)}, "classed"), salted):
        status, text = refusal(
            lambda sent=request: operator.SubmitRequest(cpb.SubmitRequestRequest(request=sent))
        )
        assert status == "INVALID_ARGUMENT"
        assert f"{len(id)} characters" in text
        assert "patient" not in text
    assert "refused call=" in caplog.text
    assert "patient" not in caplog.text


def test_a_reason_becomes_one_printable_line_at_submission(running: Running) -> None:
    operator = running.client("operator")
    request = make_request({"r1": ("cat",)}, "worded")
    request.reason = "one\x1b[2J\n two\x9b31m \u202ethree [ticket-117]"
    sent = cpb.SubmitRequestRequest(request=request)
    assert operator.SubmitRequest(sent).request.reason == "one [2J two 31m three [ticket-117]"
    assert operator.SubmitRequest(sent).request.id == "worded"  # the same again
    request.reason = "x" * 1001
    sent = cpb.SubmitRequestRequest(request=request)
    assert "at most 1,000 characters" in refusal(lambda: operator.SubmitRequest(sent))[1]
