"""The dashboard over folders of runs."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from disinherit.common.errors import InputError
from disinherit.simulations.report.html import render_html
from disinherit.ui.local import check_folder, local_application
from disinherit.ui.serving import LOOPBACK
from tests.support.bench import cell, entry
from tests.support.dashboard import BASE, browser
from tests.support.report import make_report


def write_bench(folder: Path) -> None:
    """A benchmark of two methods and two cases, of which one has a single method."""
    folder.mkdir()
    found = [
        cell("good", 0, {"forget_accuracy": entry(1.0)}),
        cell("bad <b>", 0, {"forget_accuracy": entry(90.0), "test_accuracy": entry(40.0, 50.0)}),
        cell("good", 0, {"lira_tpr": entry(4.0, 1.0)}, label="30 samples", granularity="samples"),
    ]
    lines = [json.dumps(one) + "\n" for one in found]
    (folder / "results.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one deeper than the other, a benchmark, and a damaged one."""
    folder = tmp_path_factory.mktemp("runs")
    for place, seed in (("one", 0), ("deep/two", 7)):
        report = make_report()
        report["scenario"]["seed"] = seed
        report["request"]["reason"] = "<img src=x onerror=alert(1)>"
        (folder / place).mkdir(parents=True)
        (folder / place / "report.json").write_text(json.dumps(report))
        (folder / place / "report.html").write_text(render_html(report))
    write_bench(folder / "bench")
    (folder / "empty").mkdir()
    (folder / "empty/results.jsonl").write_text("")
    (folder / "damaged").mkdir()
    (folder / "damaged/report.json").write_text("{}")
    return folder


@pytest.fixture
def client(runs: Path) -> TestClient:
    return browser(local_application(runs, LOOPBACK))


def test_runs_benchmarks_and_damage_are_listed(client: TestClient) -> None:
    assert client.get("/").headers["location"] == "/runs"
    page = client.get("/runs").text
    for name in ("one", "deep/two", "bench", "damaged"):
        assert name in page
    values = client.get("/runs.json").json()
    assert {one["id"] for one in values["runs"]} == {"one", "deep/two"}
    assert [one["id"] for one in values["damaged"]] == ["damaged"]


def test_a_run_has_its_figures_and_its_report(client: TestClient) -> None:
    page = client.get("/run?id=deep/two").text
    assert 'src="/run/report?id=deep/two"' in page
    report = client.get("/run/report?id=deep/two")
    assert report.text.startswith("<!doctype html>")
    policy = report.headers["content-security-policy"]
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert report.headers["x-frame-options"] == "SAMEORIGIN"
    models = client.get("/run.json?id=one").json()["models"]
    assert len(models) == len(make_report()["models"])


def test_a_benchmark_has_a_heat_map_of_method_and_case(client: TestClient, runs: Path) -> None:
    benches = {one["id"]: one["heat"] for one in client.get("/runs.json").json()["benches"]}
    assert "none yet" in benches["empty"]["problem"]
    heat = benches["bench"]
    assert [one["cases"] for one in heat["kinds"]] == [["one class"], ["30 samples"]]
    shown = {one["method"]: [gap["text"] for gap in one["gaps"]] for one in heat["methods"]}
    assert shown == {"good": ["+1.0", "+3.0"], "bad <b>": ["+90.0", "—"]}
    assert [gap["step"] for gap in heat["methods"][1]["gaps"]] == [10, 0]
    assert heat["methods"][0]["gaps"][1]["figure"] == "a"
    for path in ("/runs", "/run?id=bench"):
        page = client.get(path).text
        assert '<td class="num step-10">+90.0 <i>f</i></td>' in page
        assert "bad &lt;b&gt;" in page
    assert "disinherit bench report" in client.get("/run?id=bench").text


def test_a_benchmark_that_is_damaged_says_so(tmp_path: Path) -> None:
    for text in ("nonsense", "[1]", '{"label": 3}', "\udcff"):
        path = tmp_path / "results.jsonl"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        page = browser(local_application(tmp_path, LOOPBACK)).get("/runs").text
        assert "it is damaged" in page


def test_two_runs_are_compared(client: TestClient) -> None:
    page = client.get("/runs/compare?id=one&id=deep/two").text
    assert "In what they differ" in page
    values = client.get("/runs/compare.json?id=one&id=deep/two").json()
    assert {"name": "seed", "first": 0, "second": 7} in values["settings"]
    for query in ("", "?id=one", "?id=one&id=deep/two&id=one"):
        answer = client.get(f"/runs/compare{query}")
        assert answer.status_code == 400
        assert "Expected two runs" in answer.text


@pytest.mark.parametrize("place", ["", "../..", "/etc", "nowhere", "damaged", "one/../one"])
def test_nothing_but_runs_is_read(place: str, client: TestClient, runs: Path) -> None:
    (runs.parent / "report.html").write_text("secret")
    for path in ("/run", "/run/report", "/run.json"):
        answer = client.get(path, params={"id": place})
        assert answer.status_code == 404, (path, place)
        assert "secret" not in answer.text


def test_pages_are_protected_and_escape(client: TestClient) -> None:
    answer = client.get("/runs")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "<img" not in client.get("/run?id=one").text
    assert client.get("/runs", headers={"host": "evil.example"}).status_code == 421
    assert client.post("/runs", headers={"content-length": "0"}).status_code == 405
    assert client.get(f"{BASE}/nowhere").status_code == 404


def test_a_folder_without_runs_says_how_to_make_one(tmp_path: Path) -> None:
    page = browser(local_application(tmp_path, LOOPBACK)).get("/runs").text
    assert f"disinherit demo --out {tmp_path}/demo" in page
    with pytest.raises(InputError, match="Expected a folder of runs"):
        check_folder(tmp_path / "none")
