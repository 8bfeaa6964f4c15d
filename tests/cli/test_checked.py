"""Mistakes that this machine can see are said before a coordinator is asked or an option missed."""

import os
import re
from pathlib import Path

import pytest

from disinherit.cli.checked import writable
from disinherit.cli.main import run
from disinherit.common.errors import InputError

NOBODY = ("--server", "127.0.0.1:1")
FILE = "no-folder/file"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "edges.csv").write_text("parent,child\na\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("graph", "import", "no-folder"), "a folder or a file to import, but got 'no-folder'"),
        (("graph", "import", "edges.csv"), "2 cells in line 2 of edges.csv"),
        (("graph", "export", "--as", "jsn"), "Did you mean 'json'?"),
        (("graph", "export", "--as", "json", "--out", FILE), f"a folder for {FILE}"),
        (("graph", "export", "--as", "png", "--around", "r1"), "--around with --as svg only"),
        (("graph", "show", "no-folder"), "but got 'no-folder'"),
        (("audit", "export", "--out", FILE), f"a folder for {FILE}"),
        (("audit", "keys", "--out", "folder"), "but got 'folder', which is a folder"),
        (("audit", "attest", "forget-1", "--out", FILE), f"a folder for {FILE}"),
        (("request", "export", "forget-1", "--as", "card", "--out", FILE), f"folder for {FILE}"),
        (("request", "report", "forget-1", "--html", FILE), f"a folder for {FILE}"),
        (("request", "report", "forget-1", "--letter", FILE), f"a folder for {FILE}"),
        (("request", "submit", "--samples", "no-file"), "no-file"),
        (("request", "plan", "--client", "anna", "--store", "no-file"), "no-file is no file"),
        (("request", "show", "forget 1"), "id of a request, .* but got 'forget 1'"),
        (("coverage", "../forget"), "id of a request, .* but got '../forget'"),
        (("model", "show", "r 1"), "id of a version, .* but got 'r 1'"),
        (("model", "withdraw", "r/1"), "id of a version, .* but got 'r/1'"),
        (("model", "register", "no-file", "--id", "a", "--owner", "anna"), "no-file"),
        (("status", "--ca", "no-file"), "a PEM file 'no-file'"),
    ],
)
def test_local_mistakes_come_before_the_coordinator(
    words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run([*words, *NOBODY])
    line = capsys.readouterr().err
    assert code == 2, line
    assert line.count("\n") == 1
    assert re.search(reason, line), line
    assert "coordinator at" not in line


def test_what_is_right_goes_on_to_the_coordinator(capsys: pytest.CaptureFixture[str]) -> None:
    Path("edges.csv").write_text("parent,child\na,b\n")
    for words in (
        ("graph", "import", "edges.csv"),
        ("graph", "export", "--as", "json", "--out", "folder/graph.json"),
        ("request", "report", "forget-1", "--html", "page.html"),
        ("model", "show", "r1~forget-1"),
    ):
        assert run([*words, *NOBODY]) == 3
        assert "Expected a coordinator at 127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("simulate", "federatd"), "federated"),
        (("run", "start", "federatd", "--forget", "3"), "federated"),
        (("simulate", "federated", "--dataset", "minst5k"), "mnist5k"),
        (("simulate", "federated", "--network", "resnet81"), "resnet18"),
        (("simulate", "federated", "--partition", "pathologic"), "pathological"),
        (("bench", "run", "quik"), "quick"),
    ],
)
def test_a_misspelt_name_comes_before_a_missing_option(
    words: tuple[str, ...], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"Did you mean '{meant}'?" in line
    assert "--out" not in line


@pytest.mark.parametrize("name", ["federated", "chain-3", "fan-out-2"])
def test_a_name_that_is_right_leaves_the_missing_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["simulate", name]) == 2
    assert "Missing option '--out'" in capsys.readouterr().err


def test_files_to_write(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert writable(None) is None
    for path in (Path("new"), Path("edges.csv"), here / "folder" / "new"):
        assert writable(path) == path
        assert writable(str(path)) == str(path)
    assert writable("-") == "-"
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user that is not root
    with pytest.raises(InputError, match="Expected to write new, but this user cannot write to"):
        writable("new")
