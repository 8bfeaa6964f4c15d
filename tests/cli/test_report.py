"""`disinherit report` on finished runs."""

import json
from pathlib import Path

import pytest

from disinherit.cli.main import run
from tests.support.report import make_report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "report.json").write_text(json.dumps(make_report()))
    return tmp_path


def test_as_json_it_is_what_was_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(folder), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == make_report()
    assert "Sandal" in (folder / "report.html").read_text()


def test_as_a_table_with_the_page_elsewhere(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = folder / "page.html"
    assert run(["report", str(folder), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "page.html" in out.replace("\n", "")
    for model in ("r1", "r2", "r3", "r4", "r6"):
        assert model in out
    assert page.exists()
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("written", "named"),
    [(None, "report.json"), ("{", "report.json"), ('{"schema_version": 7}', "schema_version")],
)
def test_invalid_report_prints_one_line(
    written: str | None, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if written is not None:
        (tmp_path / "report.json").write_text(written)
    assert run(["report", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert named in printed.err
    assert not (tmp_path / "report.html").exists()


def test_unwritable_page_prints_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(folder), "--html", str(folder / "report.json" / "x.html")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
