"""A request that has ended, exported by the command line from a service."""

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.cli.main import run
from disinherit.common.exports.finished import FinishedRequest
from tests.simulations.report.test_html import Page
from tests.support.command_line import Capture, error_line
from tests.support.service import Running, secret, serving, speak_as

REASON = "Jane Doe withdrew her consent"
SUBMIT = ("request", "submit", "--forget", "cat@r1", "--reason", REASON, "--alpha", "1")


@pytest.fixture(scope="module")
def ended(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with a request `q` that has ended, and `p` that waits for an approval."""
    folder = shutil.copytree(built, tmp_path_factory.mktemp("ended") / "copy")
    with serving(folder) as running, pytest.MonkeyPatch.context() as patch:
        speak_as("operator", running, patch)
        assert run([*SUBMIT, "--lambda", "0.5", "--gauge", "3", "--id", "q"]) == 0
        approver = ("--token", secret("approver"))
        assert run(["request", "approve", "q", *approver]) == 0
        assert run(["request", "watch", "q"]) == 0
        assert run(["request", "submit", "--forget", "owl@r2", "--id", "p"]) == 0
        yield running


@pytest.fixture
def running(ended: Running, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Running:
    speak_as("operator", ended, monkeypatch)
    capsys.readouterr()
    return ended


def test_the_evidence_is_verified_by_what_its_readme_says(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out = tmp_path / "evidence.zip"
    assert run(["request", "export", "q", "--as", "bundle", "--out", str(out)]) == 0
    capsys.readouterr()
    with zipfile.ZipFile(out) as bundle:
        bundle.extractall(tmp_path)
    assert REASON not in (tmp_path / "report.json").read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISINHERIT_SERVER", "127.0.0.1:1")  # offline
    readme = (tmp_path / "README.txt").read_text()
    (command,) = (line.split() for line in readme.splitlines() if "disinherit audit" in line)
    assert run(command[1:]) == 0
    assert "the attestation of q is signed and agrees with the log" in capsys.readouterr().out
    log = tmp_path / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"r4"', b'"r5"'))
    assert run(command[1:]) == 1


def test_an_event_of_openlineage(running: Running, tmp_path: Path, capsys: Capture) -> None:
    out, attestation = tmp_path / "event.json", tmp_path / "attestation.json"
    export = ["request", "export", "q", "--format", "openlineage", "--out", str(out)]
    assert run(export) == 0
    first = out.read_bytes()
    event = json.loads(first)
    assert event["run"]["runId"] in capsys.readouterr().out
    assert [one["name"] for one in event["inputs"]] == ["r1", "r2", "r3", "r4", "r6"]
    assert [one["name"] for one in event["outputs"]][-1] == "r6~q"
    assert run(["audit", "attest", "q", "--out", str(attestation)]) == 0
    facet = event["run"]["facets"]["disinherit_unlearning"]
    assert facet["attestationSha256"] == hashlib.sha256(attestation.read_bytes()).hexdigest()
    assert REASON not in first.decode()
    assert '"cat"' not in first.decode()
    assert run(export) == 0
    assert out.read_bytes() == first


def test_a_section_of_a_card(running: Running, tmp_path: Path, capsys: Capture) -> None:
    card = tmp_path / "README.md"
    card.write_text("# Cats\n")
    export = ["request", "export", "q", "--format", "card", "--out", str(card), "--model", "r6"]
    assert run(export) == 0
    text = card.read_text()
    assert "forget 1 class, learned first by `r1`" in text
    assert "| `r6` | `r6~q` | verified | suppressed |" in text
    assert "r4" not in text
    assert REASON not in text
    assert run(export) == 0
    assert card.read_text() == text


def test_a_run_of_mlflow(
    running: Running, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the library writes: tests/common/exports/test_mlflow_runs.py."""
    written: list[tuple[FinishedRequest, str]] = []

    def write_run(done: FinishedRequest, place: str) -> str:
        written.append((done, place))
        return "the-run"

    monkeypatch.setattr("disinherit.cli.request.export.write_run", write_run)
    assert run(["request", "export", "q", "--format", "mlflow", "--out", "sqlite:///m.db"]) == 0
    assert capsys.readouterr().out == "run the-run of q, complete, in sqlite:///m.db\n"
    ((done, place),) = written
    assert place == "sqlite:///m.db"
    assert done.report["request"]["roots"] == [{"model": "r1", "classes": 1, "samples": 0}]
    assert done.predicate["state"] == done.report["request"]["state"] == "complete"
    assert REASON not in json.dumps(done.report)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("p", "--format", "card"), "'p' is awaiting_approval"),
        (("nothing", "--format", "openlineage"), "'nothing'"),
        (("q", "--format", "openlineage", "--model", "r1"), "--as card only"),
        (("q", "--format", "card", "--model", "r5"), "'r5' is none"),
        (("q", "--format", "dvc"), "'dvc'"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    words: tuple[str, ...], said: str, running: Running, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert run(["request", "export", *words, "--out", str(out)]) == (
        5 if words[0] == "nothing" else 2
    )
    assert said in error_line(capsys)
    assert not out.exists()


def test_without_mlflow_it_says_what_to_install(
    running: Running, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert run(["request", "export", "q", "--format", "mlflow", "--out", str(tmp_path)]) == 2
    assert "pip install '.[mlflow]'" in error_line(capsys)
    assert [*tmp_path.iterdir()] == []


def test_a_page_and_a_letter_about_a_real_campaign(
    running: Running, tmp_path: Path, capsys: Capture
) -> None:
    page, letter = tmp_path / "report.html", tmp_path / "letter.txt"
    assert run(["request", "report", "q", "--html", str(page), "--letter", str(letter)]) == 0
    assert f"Written: {page}" in capsys.readouterr().out.replace("\n", "")
    out = tmp_path / "attestation.json"
    assert run(["audit", "attest", "q", "--out", str(out)]) == 0
    assert run(["request", "report", "q", "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    words = Page(page.read_text()).text
    for expected in (
        "forget the class “cat”, learned by r1 (anna)",
        REASON,
        "What this report does not show",
        "No proof of erasure.",
        hashlib.sha256(out.read_bytes()).hexdigest(),
        values["audit"]["head"],
        "disinherit audit verify q.jsonl --public-key coordinator.pub --attestation q.json",
        *(gap["text"] for gap in values["gaps"]),
        *(model["model"] for model in values["models"]),
    ):
        assert expected in words, expected
    assert "<script" not in page.read_text()
    written = letter.read_text()
    assert "5 models" in written
    assert "anna" in written
    assert max(map(len, written.splitlines())) <= 80


def test_a_page_about_a_request_that_waits_shows_that_nothing_was_done(
    running: Running, tmp_path: Path, capsys: Capture
) -> None:
    page = tmp_path / "report.html"
    assert run(["request", "report", "p", "--html", str(page), "--format", "json"]) == 0
    json.loads(capsys.readouterr().out)
    words = Page(page.read_text()).text
    assert "Nothing was done yet: the request waits for an approval" in words
    assert "none: the campaign has not ended" in words
