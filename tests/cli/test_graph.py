"""`disinherit graph` on a coordinator's database, a run's folder and an exported file."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from disinherit.cli.graph import read_graph
from disinherit.cli.main import run
from disinherit.common.graph.formats import dump_graph, load_graph
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, ModelStatus
from disinherit.server.store.store import CoordinatorStore
from tests.support import graph_cases
from tests.support.service import Running, speak_as


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


@pytest.mark.parametrize("form", ["json", "graphml", "protobuf"])
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
        (("export", "{}", "--format", "pdf"), "'pdf'"),
        (("export", "{}", "--as", "dot", "--around", "r1"), "--around with --as svg only"),
        (("export", "{}", "--as", "svg", "--depth", "1"), "--depth with --around"),
        (("export", "{}", "--as", "svg", "--around", "r9"), "but got 'r9'"),
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
    assert printed.err.startswith(("error: Expected", "error: Invalid value"))
    assert named in printed.err


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A graph in which unlearning made versions: r1 and r2 forgot by q, and r3 came later."""
    graph = InheritanceGraph()

    def add(id: str, owner: str, parents: dict[str, float], kind: str = "federated") -> None:
        digest = hashlib.sha256(id.encode()).hexdigest()
        record = ModelRecord(id, owner, "f" * 64, ("a", "b"), digest, len(graph))
        edges = [Inheritance(one, id, InheritanceKind(kind), w) for one, w in parents.items()]
        graph.add(record, edges)

    add("r1", "ann", {})
    add("r2", "ben", {"r1": 1.0})
    for id, owner in (("r1", "ann"), ("r2", "ben")):
        graph.replace(replace(graph.model(id), status=ModelStatus.SUPERSEDED))
        add(f"{id}~q", owner, {id: 1.0}, "unlearned")
    add("r3", "cleo", {"r1": 0.5, "r2~q": 0.5})
    path = tmp_path / "family.json"
    path.write_text(str(dump_graph(graph, "json")))
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert run(["graph", *arguments]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_versions_are_folded_into_their_model(
    family: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(capsys, "show", str(family), "--root", "r1") == [
        "gen. model owner status derived from role",
        "0 r1 ann ✓ forgot by q root",
        "1 r2 ben ✓ forgot by q r1 (federated, 1) affected",
        "2 r3 cleo ✓ active r1 (federated, 0.5), r2~q (federated, 0.5) affected",
    ]
    every = shown(capsys, "show", str(family), "--all-versions")
    assert len(every) == 6
    assert "1 r1~q ann ✓ active r1 (unlearned, 1)" in every
    assert shown(capsys, "show", str(family), "-q") == ["r1", "r2", "r3"]
    assert run(["graph", "show", str(family), "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_a_drawing_folds_versions_unless_all_are_asked_for(
    family: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folded = "\n".join(shown(capsys, "export", str(family), "--as", "dot", "--root", "r1"))
    assert '"r1" [label="r1\\nann\\nforgot by q"' in folded
    assert "r1~q" not in folded
    assert '"r2" -> "r3"' in folded
    every = "\n".join(shown(capsys, "export", str(family), "--as", "dot", "--all"))
    assert '"r2~q" -> "r3"' in every
    assert run(["graph", "export", str(family), "--as", "json", "--all"]) == 2
    assert "--all with --as dot, png or svg" in capsys.readouterr().err


def test_a_family_as_a_tree(family: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "tree", str(family)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "r1 (ann) ✓ forgot by q",
        "├── r2 (ben) ✓ forgot by q",
        "│   └── r3 (cleo) ✓ active",
        "└── r3 ⤴",
    ]
    assert shown(capsys, "tree", str(family), "--root", "r2") == [
        "r2 (ben) ✓ forgot by q",
        "└── r3 (cleo) ✓ active",
    ]
    assert shown(capsys, "tree", str(family), "--depth", "0")[-1] == "└── 2 more below"
    assert run(["graph", "tree", str(family), "--format", "json"]) == 0
    (tree,) = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in tree["children"]] == ["r2", "r3"]
    assert run(["graph", "tree", str(family), "--root", "r33"]) == 2
    assert "Did you mean 'r3'?" in capsys.readouterr().err


def test_a_drawing_does_not_go_to_a_terminal(
    folder: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["graph", "export", str(folder), "--as", "png"]) == 2
    printed = capsysbinary.readouterr()
    assert printed.out == b""
    assert b"--out -" in printed.err
    assert run(["graph", "export", str(folder), "--as", "png", "--out", "-"]) == 0
    assert capsysbinary.readouterr().out.startswith(b"\x89PNG")


def test_the_graph_of_the_coordinator(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speak_as("viewer", running, monkeypatch)
    assert len(shown(capsys, "show")) == 8
    assert shown(capsys, "tree", "--root", "r1")[0].startswith("r1 (anna)")
    assert run(["graph", "export", "--as", "json"]) == 0
    assert load_graph(capsys.readouterr().out, "json") == running.world.store.graph()
