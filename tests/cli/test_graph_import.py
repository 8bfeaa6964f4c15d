"""`disinherit graph import` into a file, a database and a running coordinator."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from disinherit.cli.main import run
from disinherit.common.graph.formats import load_graph
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind
from disinherit.common.wire.requests import Request
from disinherit.server.states import Task
from disinherit.server.store.store import CoordinatorStore
from tests.support.command_line import Capture, as_json, error_line
from tests.support.service import Running, speak_as


def model(folder: Path, value: float, base: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"w": torch.full((2,), value)}, folder / "model.safetensors")
    config = {"id2label": {"0": "cat", "1": "dog"}}
    (folder / "config.json").write_text(json.dumps(config))
    if base:
        head = f"---\nbase_model: {base}\nbase_model_relation: finetune\n---\n"
        (folder / "README.md").write_text(head)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A base, a fine-tune of it, and one of a model that is not here."""
    root = tmp_path / "models"
    model(root / "base", 1)
    model(root / "chat", 2, "base")
    model(root / "lost", 3, "gone/model")
    return root


@pytest.mark.parametrize("form", ["json", "graphml"])
def test_a_file_gets_the_graph_and_doubts_are_printed(
    form: str, models: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / f"graph.{form}"
    assert run(["graph", "import", str(models), "--out", str(out), "--owner", "anna"]) == 0
    printed = capsys.readouterr().out
    row = r"^ chat +base \([0-9a-f]{8}\) +incremental 1 +relation 0.85 *$"
    assert re.search(row, printed, re.MULTILINE)
    assert "unknown parent: lost: The relation: 'gone/model' is not here." in printed
    assert printed.endswith("3 models read, 3 versions new or changed, 1 findings\n")
    graph = load_graph(out.read_bytes(), form)
    assert {record.owner for record in graph.models()} == {"anna"}
    (edge,) = graph.edges()
    assert (edge.parent, edge.child, edge.source) == ("base", "chat", "relation")
    before = out.read_bytes()
    assert run(["graph", "import", str(models), "--out", str(out)]) == 0
    assert out.read_bytes() == before
    assert capsys.readouterr().out.endswith("0 versions new or changed, 1 findings\n")


def test_show_has_source_and_confidence(models: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "graph.json"
    assert run(["graph", "import", str(models), "--out", str(out)]) == 0
    capsys.readouterr()
    assert run(["graph", "show", str(out)]) == 0
    assert "base (incremental, 1; relation 0.85)" in capsys.readouterr().out
    shown = {one["id"]: one for one in as_json(capsys, "graph", "show", str(out))}
    assert shown["chat"]["sources"] == {"base": {"source": "relation", "confidence": 0.85}}
    assert "sources" not in shown["base"]


def test_dry_run_records_nothing(models: Path, tmp_path: Path, capsys: Capture) -> None:
    for place in ("--out", "--store"):
        path = tmp_path / "graph.json"
        capsys.readouterr()
        found = as_json(capsys, "graph", "import", str(models), place, str(path), "--dry-run")
        assert not path.exists()
        assert found["changed"] == ["base", "chat", "lost"]
        (edge,) = found["edges"]
        assert edge["parent_digest"] == load(models, tmp_path).model("base").digest
        assert [one["kind"] for one in found["findings"]] == ["unknown parent"]
        assert found["refused"] == []
    capsys.readouterr()
    as_json(capsys, "graph", "import", str(models), "--dry-run")


def load(models: Path, tmp_path: Path) -> InheritanceGraph:
    out = tmp_path / "other.json"
    assert run(["graph", "import", str(models), "--out", str(out), "--format", "json"]) == 0
    return load_graph(out.read_bytes(), "json")


def test_a_database_is_updated(models: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ("graph", "import", str(models), "--store", str(tmp_path))
    (models / "base").rename(tmp_path / "aside")
    assert as_json(capsys, *command)["changed"] == ["chat", "lost"]
    (tmp_path / "aside").rename(models / "base")
    assert as_json(capsys, *command)["changed"] == ["base", "chat"]
    assert as_json(capsys, *command)["changed"] == []
    model(models / "second", 5)
    model(models / "chat", 2, "second")
    found = as_json(capsys, *command)
    assert set(found["changed"]) == {"second", "chat"}
    with store(tmp_path) as opened:
        graph = opened.graph()
        (edge,) = graph.parents("chat")
        assert (edge.parent, edge.confidence) == ("second", 0.85)
        assert graph.affected(["second"]) == ("second", "chat")


class store:  # noqa: N801
    """The database in a folder, closed afterwards."""

    def __init__(self, folder: Path) -> None:
        self._store = CoordinatorStore(folder / "coordinator.db")

    def __enter__(self) -> CoordinatorStore:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()


def test_what_a_request_affects_stays_as_it_was_planned_with(
    models: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ("graph", "import", str(models), "--store", str(tmp_path))
    as_json(capsys, *command)
    with store(tmp_path) as opened:
        request = Request(id="q", forget={"base": ["cat"]}).to_proto()
        graph = opened.graph()
        tasks = [Task(model, graph.model(model).owner) for model in graph.affected(["base"])]
        opened.submit(request, tasks)
    model(models / "aaa", 5)
    model(models / "chat", 2, "aaa")
    found = as_json(capsys, *command, code=1)
    assert ["'q' does" in line for line in found["refused"]] == [True]
    with store(tmp_path) as opened:
        assert [edge.parent for edge in opened.graph().parents("chat")] == ["base"]
        assert "aaa" in opened.graph()


def test_edges_that_were_observed_stay(models: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ("graph", "import", str(models), "--store", str(tmp_path))
    records = {record.id: record for record in load(models, tmp_path).models()}
    with store(tmp_path) as opened:
        opened.add_model(replace(records["lost"], created_us=1))
        edge = Inheritance("lost", "chat", InheritanceKind.FEDERATED)
        opened.add_model(records["chat"], [edge])
    capsys.readouterr()
    found = as_json(capsys, *command)
    assert [one["kind"] for one in found["findings"]] == ["recorded otherwise", "unknown parent"]
    with store(tmp_path) as opened:
        assert opened.graph().parents("chat") == (edge,)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere", "--out", "{0}/g.json"], "nowhere"),
        (["{0}", "--out", "{0}/g.txt"], ".json or .graphml"),
        (["{0}", "--out", "{0}/g.json", "--store", "{0}"], "got both"),
        (["{0}", "--out", "{0}/g.json", "--from", "hub"], "'hub' is not one of"),
        (["{0}", "--out", "{0}/g.json", "--alias", "x"], "PARENT=MODEL"),
        (["{0}", "--out", "{0}/g.json", "--from", "edges", "--alias", "x=y"], "got none"),
        (["nowhere", "--store", "{0}/new.db"], "nowhere"),
        (["{0}", "--out", "{0}/g.json", "--owner", "a b"], "owner"),
        (["{0}", "--out", "{0}/broken.json"], "JSON"),
        (["{0}", "--out", "{0}/g.json", "--from", "dvc"], "got none"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], expected: str, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty").mkdir()
    given = [argument.format(tmp_path) for argument in arguments]
    assert run(["graph", "import", *given]) == 2
    assert expected in error_line(capsys)
    assert not (tmp_path / "new.db").exists()


def test_an_alias_for_no_model_is_one_line(models: Path, capsys: Capture) -> None:
    assert run(["graph", "import", str(models), "--dry-run", "--alias", "gone/model=zzz"]) == 2
    assert "'gone/model=zzz': 'zzz' is not here" in error_line(capsys)


def test_a_list_may_declare_models(models: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "edges.csv").write_text("child,parent\nbase,first\n")
    command = ("graph", "import", str(models), str(tmp_path / "edges.csv"), "--dry-run")
    assert "first" not in as_json(capsys, *command)["changed"]
    assert "first" in as_json(capsys, *command, "--declare")["changed"]


def test_a_coordinator_that_is_not_there_is_named(models: Path, capsys: Capture) -> None:
    assert run(["graph", "import", str(models), "--server", "127.0.0.1:9"]) == 3
    assert "127.0.0.1:9" in error_line(capsys)


def test_a_coordinator_registers_them(
    running: Running, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    speak_as("operator", running, monkeypatch)
    command = ("graph", "import", str(models), "--owner", "anna")
    (models / "base").rename(models.parent / "aside")
    assert as_json(capsys, *command)["changed"] == ["chat", "lost"]
    (models.parent / "aside").rename(models / "base")
    model(models / "next", 4, "chat")
    found = as_json(capsys, *command, code=1)
    (refused,) = found["refused"]
    assert "parents of model 'chat', which is known without any" in refused
    graph = running.world.store.graph()
    assert [(e.parent, e.source, e.confidence) for e in graph.parents("next")] == [
        ("chat", "relation", 0.85)
    ]
    speak_as("anna", running, monkeypatch)
    assert run([*command]) == 4
    assert "to see the inheritance graph" in error_line(capsys)


def test_weights_that_come_later_pin_the_version(
    models: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ("graph", "import", str(models), "--store", str(tmp_path))
    weights = models / "base/model.safetensors"
    weights.rename(tmp_path / "aside")
    as_json(capsys, *command)
    (tmp_path / "aside").rename(weights)
    assert as_json(capsys, *command)["changed"] == ["base"]
    assert as_json(capsys, *command)["changed"] == []
    with store(tmp_path) as opened:
        graph = opened.graph()
        assert opened.with_weights(graph.model("base").digest) == [graph.model("base")]
        assert [edge.parent for edge in graph.parents("chat")] == ["base"]
