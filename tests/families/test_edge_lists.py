"""Edge lists that people write, and what is wrong with some."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from disinherit.common.errors import DataError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import InheritanceKind, ModelRecord
from disinherit.families.edge_lists import MOST_EDGES
from disinherit.families.evidence import Kind
from disinherit.families.importing import Imported, import_families
from tests.support.light_folders import listed, model, parents, snapshot


def from_text(text: str | bytes, tmp_path: Path, name: str = "edges.csv", **more: Any) -> Imported:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return import_families([path], **more)


@pytest.mark.parametrize(
    "text",
    [
        "child,parent\nb,a\nc,b\n",
        "\ufeffChild; Parent \r\n b ; a\r\n\r\nc;b\r\n",
        'parent\tchild\na\tb\n"b"\tc\n',
    ],
)
def test_spreadsheets_are_read(text: str, tmp_path: Path) -> None:
    found = from_text(text, tmp_path)
    assert [(e.parent, e.child, e.source, e.confidence) for e in found.graph.edges()] == [
        ("a", "b", "edge list", 1),
        ("b", "c", "edge list", 1),
    ]
    again = import_families([tmp_path / "edges.csv"], known=found.graph)
    assert again.changed == ()


def test_json_is_read_with_shares(tmp_path: Path) -> None:
    rows = [
        {"child": "c", "parent": "a", "relation": "merge", "weight": 0.25},
        {"child": "c", "parent": "b", "relation": "merge", "weight": 0.75, "confidence": 0.5},
    ]
    for value, name in ((rows, "edges.json"), ({"edges": rows}, "EDGES.JSON")):
        found = from_text(json.dumps(value), tmp_path, name)
        assert [(e.parent, e.kind, e.weight, e.confidence) for e in found.graph.edges()] == [
            ("a", InheritanceKind.DISTRIBUTED, 0.25, 1),
            ("b", InheritanceKind.DISTRIBUTED, 0.75, 0.5),
        ]


def test_a_recipe_is_that_of_all_parents_in_their_order(tmp_path: Path) -> None:
    text = "child,parent,relation,weight,recipe\n" + "".join(
        f'c,{name},merge,0.5,"linear weights=1,1"\n' for name in "ba"
    )
    found = from_text(text, tmp_path)
    assert {(e.parent, e.place, str(e.recipe)) for e in found.graph.edges()} == {
        ("b", 1, "linear weights=1,1"),
        ("a", 2, "linear weights=1,1"),
    }
    assert import_families([tmp_path / "edges.csv"], known=found.graph).changed == ()


def test_shares_that_are_no_merge_are_recorded_as_they_are(tmp_path: Path) -> None:
    text = "child,parent,relation,weight\nc,a,merge,0.5\nc,b,merge,0.25\n"
    found = from_text(text, tmp_path)
    assert {(e.kind, e.weight) for e in found.graph.edges()} == {
        (InheritanceKind.INCREMENTAL, 0.5),
        (InheritanceKind.INCREMENTAL, 0.25),
    }


def test_a_list_overrules_all_else_and_names_models_and_ids(tmp_path: Path) -> None:
    for number, name in enumerate(("base", "other", "tuned")):
        (tmp_path / "models" / name).mkdir(parents=True)
        state = {"w": torch.full((1,), float(number))}
        save_file(state, tmp_path / "models" / name / "model.safetensors")
    (tmp_path / "models/tuned/README.md").write_text("---\nbase_model: other\n---\n")
    (tmp_path / "edges.csv").write_text("child,parent\ntuned,base\nbase,r1\n")
    known = InheritanceGraph([ModelRecord("r1", "anna", "", (), "", 1)])
    found = import_families([tmp_path / "models", tmp_path / "edges.csv"], known=known)
    assert {(e.parent, e.child) for e in found.graph.edges()} == {("base", "tuned"), ("r1", "base")}
    assert [one.kind for one in found.findings] == [Kind.CONFLICT]


def test_a_name_beside_folders_that_none_has_is_listed_and_makes_no_model(tmp_path: Path) -> None:
    model(tmp_path / "models/base", 1)
    model(tmp_path / "models/news", 2, base_model="base", base_model_relation="finetune")
    edges = tmp_path / "edges.csv"
    edges.write_text("child,parent\nnews,bsae\nnwes,base\n")
    for sources in ([tmp_path / "models", edges], [edges, tmp_path / "models"]):
        found = import_families(sources)
        assert parents(found) == {"news": "base"}
        assert found.models == 2
        assert listed(found) == [
            ("conflict", "news"),
            ("unknown child", "nwes"),
            ("unknown parent", "news"),
        ]
    told = [one.text for one in found.findings]
    assert "line 3 of edges.csv: 'nwes' is not here" in told[1]
    assert all("--declare" in text for text in told[1:])
    edges.write_text("child,parent\nnews,base\n")
    mended = import_families([tmp_path / "models", edges], known=found.graph)
    assert (parents(mended), mended.findings, len(mended.graph)) == ({"news": "base"}, (), 2)


def test_names_beside_folders_become_models_if_that_is_asked_for(tmp_path: Path) -> None:
    model(tmp_path / "models/news", 2)
    (tmp_path / "edges.csv").write_text("child,parent\nnews,base\nbase,first\n")
    sources = [tmp_path / "models", tmp_path / "edges.csv"]
    found = import_families(sources, declare=True)
    assert parents(found) == {"news": "base", "base": "first"}
    assert import_families(sources, known=found.graph).changed == ()  # the graph has them


def test_a_list_alone_makes_no_models_beside_those_that_owners_registered(tmp_path: Path) -> None:
    known = InheritanceGraph([ModelRecord(id, "anna", "", (), "", 1) for id in ("acme--base", "b")])
    text = "child,parent\nb,acme/base\nc,b\n"
    options: dict[str, Any] = {"known": known, "registered": True}
    found = from_text(text, tmp_path, **options)
    assert listed(found) == [("order", "b"), ("unknown child", "c")]
    assert from_text(text, tmp_path, known=known).graph.parents("c")
    declared = from_text(text, tmp_path, declare=True, **options)
    assert parents(declared) == {"c": "b"}
    empty = from_text(text, tmp_path, registered=True)
    assert parents(empty) == {"b": "acme--base", "c": "b"}
    again = from_text(text, tmp_path, known=empty.graph, registered=True)
    assert (again.changed, again.findings) == ((), ())


def test_a_list_names_children_as_it_names_parents(tmp_path: Path) -> None:
    model(snapshot(tmp_path / "hub", "acme/base", "a" * 40, "main"), 1)
    model(snapshot(tmp_path / "hub", "acme/twice", "b" * 40), 2)
    model(snapshot(tmp_path / "hub", "acme/twice", "c" * 40, "main"), 3)
    model(snapshot(tmp_path / "hub", "acme/news", "d" * 40, "main"), 4)
    (tmp_path / "edges.csv").write_text(
        "child,parent\nacme--news,acme/base\nacme/twice,acme/base\n"
    )
    found = import_families([tmp_path / "hub", tmp_path / "edges.csv"])
    assert parents(found) == {"acme--news": "acme--base", "acme--twice": "acme--base"}
    assert found.graph.model("acme--twice").digest != ""
    assert (found.findings, len(found.graph)) == ((), 4)
    (tmp_path / "hub/models--acme--twice/refs/main").write_text("e" * 40)  # none of those here
    found = import_families([tmp_path / "hub", tmp_path / "edges.csv"])
    assert parents(found) == {"acme--news": "acme--base"}
    assert listed(found) == [("unknown child", "acme/twice")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "a header with child and parent"),
        ("a,b\nc,d\n", "a header with child and parent"),
        ("child,parent,child\na,b,c\n", "a header with child and parent"),
        ("child,parent\na\n", "2 cells in line 2"),
        ("child,parent\na,\n", "a name as parent in line 2"),
        ("child,parent,colour\na,b,red\n", "colour"),
        ("child,parent,weight\na,b,x\n", r"in \(0, 1\] as weight in line 2"),
        ("child,parent,weight\na,b,0\n", r"in \(0, 1\] as weight"),
        ("child,parent,confidence\na,b,nan\n", r"in \(0, 1\] as confidence in line 2"),
        ("child,parent,confidence\na,b,1e999\n", r"in \(0, 1\] as confidence"),
        ("child,parent,relation\na,b,son\n", "a relation among"),
        ("child,parent,recipe\na,b,Q4\n", "In line 2 of edges.csv: Expected the name of a recipe"),
        ("child,parent,recipe\na,b,q4_0\na,c,\n", "one recipe for all parents of 'a'"),
        ("child,parent\na\x1b[2J,b\n", "printable"),
        ('child,parent\n"a,b\n', "line 2"),
        ("child,parent\n" + "x" * 200_000 + ",b\n", "field"),
        (b"child,parent\n\xff,b\n", "UTF-8"),
        (b"\xff\xfec\0h\0", "UTF-8"),
        ("child,parent\n" + "a,b\n" * 1_000_000, f"at most {MOST_EDGES:,} edges"),
    ],
)
def test_a_malformed_list_is_one_line(text: str | bytes, what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what) as caught:
        from_text(text, tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("[", "JSON"),
        ("[" * 100_000, "JSON"),
        ("{}", "a list of edges"),
        ('{"edges": [1]}', "an object as edge 1"),
        ('[{"child": "a", "parent": 3}]', "a name as parent in edge 1"),
        ('[{"child": "a", "parent": "b", "weight": NaN}]', "as weight"),
        ('[{"child": "a", "parent": "b", "weight": true}]', "as weight"),
        ('[{"child": "a", "parent": "b", "weight": 1e400}]', "as weight"),
        ('[{"child": "a", "parent": "b", "weight": [1]}]', "as weight"),
    ],
)
def test_malformed_json_is_one_line(value: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what):
        from_text(value, tmp_path, "edges.json")


def test_a_cycle_in_a_list_is_listed(tmp_path: Path) -> None:
    found = from_text("child,parent\na,b\nb,a\nc,a\nd,d\n", tmp_path)
    assert [(e.parent, e.child) for e in found.graph.edges()] == [("a", "c")]
    kinds = [one.kind for one in found.findings if one.kind is not Kind.WEIGHTS]
    assert kinds == [Kind.CYCLE, Kind.CYCLE, Kind.SELF]
