"""The inheritance graph as JSON and GraphML: round trips and refusals."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from disinherit.common.errors import GraphError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.json_text import from_graphml, from_json, to_graphml, to_json
from disinherit.common.graph.records import ModelRecord
from tests.support.graph_cases import random_graphs, sample


@given(random_graphs())
def test_round_trips_are_identities(graph: InheritanceGraph) -> None:
    assert from_json(to_json(graph)) == graph
    assert from_graphml(to_graphml(graph)) == graph


def test_json_schema_is_stable() -> None:
    content = json.loads(to_json(sample()))
    assert list(content) == ["schema_version", "models", "edges"]
    assert content["schema_version"] == 1
    assert content["models"][0] == {
        "id": "r",
        "owner": "ann",
        "architecture": "arch",
        "labels": ["cat", "dog"],
        "digest": "d1",
        "created_us": 1,
        "provenance": {
            "dataset": "set",
            "samples_per_class": {"cat": 2},
            "sample_set_digest": "",
        },
        "fisher_digest": "",
        "status": "active",
    }
    assert content["edges"][0] == {
        "parent": "r",
        "child": "m",
        "kind": "federated",
        "weight": 0.25,
        "labels": {},
    }


JSON_REFUSALS: dict[str, tuple[Callable[[Any], object], str]] = {
    "later version": (lambda c: c.update(schema_version=2), "schema version 1, but got 2"),
    "no version": (lambda c: c.pop("schema_version"), "key schema_version in the graph"),
    "version as a flag": (
        lambda c: c.update(schema_version=True),
        "whole number as schema_version in the graph, but got True",
    ),
    "no models": (lambda c: c.pop("models"), "key models in the graph"),
    "models no list": (lambda c: c.update(models={}), "a list as models in the graph"),
    "model no object": (lambda c: c["models"].__setitem__(1, 7), r"an object as models\[1\] in"),
    "no owner": (lambda c: c["models"][1].pop("owner"), r"key models\[1\]\.owner in"),
    "owner no string": (
        lambda c: c["models"][1].update(owner=7),
        r"text as models\[1\]\.owner in the graph, but got 7",
    ),
    "label no string": (
        lambda c: c["models"][1].update(labels=[1]),
        r"text as models\[1\]\.labels\[0\]",
    ),
    "repeated label": (lambda c: c["models"][1].update(labels=["a", "a"]), "distinct class names"),
    "fractional time": (
        lambda c: c["models"][1].update(created_us=1.5),
        r"whole number as models\[1\]\.created_us in the graph, but got 1\.5",
    ),
    "unknown status": (lambda c: c["models"][1].update(status="lost"), "but got 'lost'"),
    "provenance no object": (lambda c: c["models"][1].update(provenance=1), "but got 1"),
    "no data set": (
        lambda c: c["models"][0]["provenance"].pop("dataset"),
        r"models\[0\]\.provenance\.dataset",
    ),
    "count no number": (
        lambda c: c["models"][0]["provenance"]["samples_per_class"].update(cat="2"),
        r"whole number as models\[0\]\.provenance\.samples_per_class\.cat in .*, but got '2'",
    ),
    "negative count": (
        lambda c: c["models"][0]["provenance"]["samples_per_class"].update(cat=-1),
        "'cat' .* but got -1",
    ),
    "unknown kind": (
        lambda c: c["edges"][1].update(kind="cousin"),
        r"edges\[1\]\.kind in the graph, but got 'cousin'",
    ),
    "weight no number": (
        lambda c: c["edges"][1].update(weight="1"),
        "a finite number as .*, but got '1'",
    ),
    "NaN weight": (lambda c: c["edges"][1].update(weight=float("nan")), "but got nan"),
    "huge weight": (lambda c: c["edges"][1].update(weight=10**400), "weight in"),
    "mapping no object": (
        lambda c: c["edges"][1].update(labels=[]),
        r"a table as edges\[1\]\.labels",
    ),
    "mapping to a number": (
        lambda c: c["edges"][1].update(labels={"cat": 1}),
        r"text as edges\[1\]\.labels\.cat",
    ),
    "incomplete merge": (lambda c: c["edges"].pop(0), r"'m' to sum to 1, but got 0\.75"),
    "half a character": (
        lambda c: c["edges"][1].update(kind="\ud800"),
        r"UTF-8 can hold in the graph, but got '\\ud800'",
    ),
    "edge twice": (lambda c: c["edges"].append(c["edges"][0]), "but got another"),
}


@pytest.mark.parametrize("name", JSON_REFUSALS)
def test_json_reader_refuses(name: str) -> None:
    change, reason = JSON_REFUSALS[name]
    content = json.loads(to_json(sample()))
    change(content)
    with pytest.raises(GraphError, match=reason):
        from_json(json.dumps(content))


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), float("inf"), float("nan"), True, "1"], ids="{!r:.9}".format
)
def test_a_fisher_scale_that_is_not_finite_is_refused(value: object) -> None:
    content = json.loads(to_json(sample()))
    content["models"][0]["fisher_scale"] = {"scope": "head", "sums": [1.0, value]}
    with pytest.raises(
        GraphError, match=r"a finite number as models\[0\]\.fisher_scale\.sums\[1\]"
    ):
        from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nonsense"])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(GraphError, match="Expected the graph to be JSON"):
        from_json(text)


def test_json_that_is_no_object_is_refused() -> None:
    with pytest.raises(GraphError, match="Expected an object in the graph, but got a list of 0"):
        from_json("[]")


def test_graphml_opens_in_networkx() -> None:
    import networkx as nx

    plain = nx.read_graphml(io.BytesIO(to_graphml(sample()).encode()))
    assert set(plain) == {"r", "s", "m", "t", "t2", "u"}
    assert plain.nodes["t"]["owner"] == "cy"
    assert plain.edges["r", "m"]["weight"] == 0.25


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('edgedefault="directed"', 'edgedefault="undirected"', "directed GraphML graph"),
        (">retired<", ">lost<", "node 'u', but got 'lost'"),
        (">transfer<", ">cousin<", "edge 'm' -> 't', but got 'cousin'"),
        (">0.25<", ">a quarter<", "as GraphML, but"),
        (">[]<", ">[<", "'labels' of node 'u' to be JSON"),
        (">null<", ">1<", "an object as provenance in node"),
        ('target="t2"', 'target="x"', "key owner in node 'x'"),
        ("</graphml>", "", "as GraphML, but"),
        ("graphml.graphdrawing.org", "example.org", "as GraphML, but"),
        (">1</data>\n  </graph>", ">2</data>\n  </graph>", "schema version 1, but got 2"),
    ],
)
def test_graphml_reader_refuses(old: str, new: str, reason: str) -> None:
    text = to_graphml(sample())
    assert old in text
    with pytest.raises(GraphError, match=reason):
        from_graphml(text.replace(old, new))


def test_graphml_refuses_characters_that_xml_cannot_hold() -> None:
    graph = InheritanceGraph([ModelRecord("m", "ann", "a\x00", (), "", 0)])
    with pytest.raises(GraphError, match=r"architecture of model 'm' .* but got 'a\\x00'"):
        to_graphml(graph)
