"""`disinherit graph` on a coordinator's database, a run's folder and an exported file."""

import json
from pathlib import Path

import pytest

from disinherit.cli.graph import read_graph
from disinherit.cli.main import run
from disinherit.common.graph.formats import load_graph
from disinherit.server.store.store import CoordinatorStore
from tests.support import graph_cases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with a coordinator database."""
    store = CoordinatorStore(tmp_path / "coordinator.db")
    graph = graph_cases.sample()
    for record in graph.models():
        store.add_model(record, graph.parents(record.id))
    store.close()
    return tmp_path


def test_show_lists_parents_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "show", str(folder), "--root", "r", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [model["id"] for model in shown] == ["r", "s", "u", "m", "t", "t2"]
    assert {model["id"]: model["role"] for model in shown} == {
        "r": "root",
        "s": "untouched",
        "u": "untouched",
        "m": "affected",
        "t": "affected",
        "t2": "affected",
    }
    m = shown[3]
    assert m["parents"] == {"r": 0.25, "s": 0.75}
    assert m["generation"] == 1
    assert m["owner"] == "bob"


def test_show_as_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "show", str(folder / "coordinator.db")]) == 0
    out = capsys.readouterr().out
    assert "role" not in out
    assert "federated, 0.25" in " ".join(out.split())
    assert "retired" in out


@pytest.mark.parametrize("form", ["json", "graphml", "protobuf"])
def test_exported_graph_is_the_same_graph(form: str, folder: Path) -> None:
    out = folder / f"graph.{form}"
    assert run(["graph", "export", str(folder), "--format", form, "--out", str(out)]) == 0
    assert load_graph(out.read_bytes(), form) == graph_cases.sample()


@pytest.mark.parametrize("form", ["json", "graphml"])
def test_an_exported_file_is_a_source_too(
    form: str, folder: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    out = folder / f"graph.{form}"
    assert run(["graph", "export", str(folder), "--format", form, "--out", str(out)]) == 0
    assert read_graph(out) == graph_cases.sample()
    assert run(["graph", "export", str(out), "--format", form]) == 0
    assert capsysbinary.readouterr().out == out.read_bytes()


@pytest.mark.parametrize(("form", "start"), [("dot", b"digraph"), ("png", b"\x89PNG")])
def test_drawings_show_what_a_request_would_affect(form: str, start: bytes, folder: Path) -> None:
    plain, marked = folder / f"plain.{form}", folder / f"marked.{form}"
    export = ["graph", "export", str(folder), "--format", form, "--out"]
    assert run([*export, str(plain)]) == 0
    assert run([*export, str(marked), "--root", "r"]) == 0
    assert plain.read_bytes().startswith(start)
    assert marked.read_bytes().startswith(start)
    assert plain.read_bytes() != marked.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("export", "{}", "--format", "svg"), "'svg'"),
        (("export", "{}", "--format", "json", "--root", "x"), "'x'"),
        (("show", "{}", "--root", "x"), "'x'"),
        (("show", "{}/missing.json"), "missing.json"),
        (("show", "{}/broken.json"), "JSON"),
        (("show", "{}/broken.db"), "broken.db"),
        (("export", "{}", "--format", "json", "--out", "{}/broken.db/x"), "broken.db"),
    ],
)
def test_wrong_input_prints_one_line(
    arguments: tuple[str, ...],
    named: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "broken.json").write_text("{")
    (folder / "broken.db").write_bytes(b"not a database, but long enough to look at" * 100)
    assert run(["graph", *(a.format(folder) for a in arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: Expected")
    assert named in printed.err
