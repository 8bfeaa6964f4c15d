"""Round trips of the inheritance graph through every format, and what its readers refuse."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import GraphError, InputError
from disinherit.common.graph import InheritanceGraph
from disinherit.common.graph_formats import (
    from_graphml,
    from_json,
    from_protobuf,
    graph_from_proto,
    graph_to_proto,
    inheritance_from_proto,
    inheritance_to_proto,
    record_from_proto,
    record_to_proto,
    to_dot,
    to_graphml,
    to_json,
    to_png,
    to_protobuf,
)
from disinherit.common.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)
from disinherit.v1 import graph_pb2

KINDS = tuple(InheritanceKind)
# Anything a class may be called: all of Unicode that can be encoded, controls included.
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,7}", fullmatch=True)
digests = st.text("0123456789abcdef", max_size=8)
provenances = st.none() | st.builds(
    Provenance, names, st.dictionaries(names, st.integers(0, 2**40), max_size=3), digests
)


@st.composite
def random_graphs(draw: st.DrawFn) -> InheritanceGraph:
    records: list[ModelRecord] = []
    edges: list[Inheritance] = []
    for id in draw(st.lists(ids, unique=True, max_size=6)):
        record = ModelRecord(
            id=id,
            owner=draw(ids),
            architecture=draw(digests),
            labels=tuple(draw(st.lists(names, unique=True, max_size=4))),
            digest=draw(digests),
            created_us=draw(st.integers(0, 2**55)),
            provenance=draw(provenances),
            fisher_digest=draw(digests),
            status=draw(st.sampled_from(ModelStatus)),
        )
        older = [parent for parent in records if parent.created_us < record.created_us]
        parents = draw(st.lists(st.sampled_from(older), unique_by=id_of)) if older else []
        kinds = [draw(st.sampled_from(KINDS)) for _ in parents]
        share = 1 / max(sum(kind.merges for kind in kinds), 1)
        for parent, kind in zip(parents, kinds, strict=True):
            weight = share if kind.merges else draw(st.floats(0, 1, exclude_min=True))
            edges.append(Inheritance(parent.id, id, kind, weight, draw(mappings(parent, record))))
        records.append(record)
    return InheritanceGraph(records, edges)


def id_of(record: ModelRecord) -> str:
    return record.id


def mappings(parent: ModelRecord, child: ModelRecord) -> st.SearchStrategy[dict[str, str]]:
    """One-to-one mappings between the names that the two do not share."""
    sources = [label for label in parent.labels if label not in child.labels]
    targets = [label for label in child.labels if label not in parent.labels]
    return st.integers(0, len(sources)).map(
        lambda count: dict(zip(sources[:count], targets, strict=False))
    )


def sample() -> InheritanceGraph:
    """Two roots, their merge, a transfer with a mapping, and a successor."""
    return InheritanceGraph(
        [
            ModelRecord("r", "ann", "arch", ("cat", "dog"), "d1", 1, Provenance("set", {"cat": 2})),
            ModelRecord("s", "bob", "arch", ("cat", "dog"), "d2", 2),
            ModelRecord("m", "bob", "arch", ("cat", "dog"), "d3", 3),
            ModelRecord("t", "cy", "arch", ('"K\\&amp;\n', "dog"), "d4", 4, None, "f"),
            ModelRecord("t2", "cy", "arch", ('"K\\&amp;\n', "dog"), "d5", 5),
            ModelRecord("u", "cy", "arch", (), "d6", 6, status=ModelStatus.RETIRED),
        ],
        [
            Inheritance("r", "m", InheritanceKind.FEDERATED, 0.25),
            Inheritance("s", "m", InheritanceKind.FEDERATED, 0.75),
            Inheritance("m", "t", InheritanceKind.TRANSFER, 1.0, {"cat": '"K\\&amp;\n'}),
            Inheritance("t", "t2", InheritanceKind.UNLEARNED),
        ],
    )


@given(random_graphs())
def test_round_trips_are_identities(graph: InheritanceGraph) -> None:
    assert from_protobuf(to_protobuf(graph)) == graph
    assert from_json(to_json(graph)) == graph
    assert from_graphml(to_graphml(graph)) == graph
    for record in graph.models():
        assert record_from_proto(record_to_proto(record)) == record
    for edge in graph.edges():
        assert inheritance_from_proto(inheritance_to_proto(edge)) == edge


@pytest.mark.parametrize("write", [to_protobuf, to_json, to_graphml, to_dot])
def test_equal_graphs_give_equal_output(write: Callable[[InheritanceGraph], object]) -> None:
    graph = sample()
    other = InheritanceGraph(reversed(graph.models()), reversed(graph.edges()))
    assert write(other) == write(graph)


@pytest.mark.parametrize(
    ("write", "read"),
    [(to_protobuf, from_protobuf), (to_json, from_json), (to_graphml, from_graphml)],
)
def test_the_empty_graph_and_an_empty_provenance_are_kept(
    write: Callable[[InheritanceGraph], Any], read: Callable[[Any], InheritanceGraph]
) -> None:
    assert read(write(InheritanceGraph())) == InheritanceGraph()
    graph = InheritanceGraph([ModelRecord("m", "ann", "", (), "", 0, Provenance(""))])
    assert read(write(graph)).model("m").provenance == Provenance("")


def test_every_kind_and_status_has_its_own_number() -> None:
    for kind in InheritanceKind:
        message = inheritance_to_proto(Inheritance("a", "b", kind))
        assert graph_pb2.InheritanceKind.Name(message.kind) == f"INHERITANCE_KIND_{kind.name}"
        assert inheritance_from_proto(message).kind is kind
    for status in ModelStatus:
        record = record_to_proto(ModelRecord("a", "b", "", (), "", 0, status=status))
        assert graph_pb2.ModelStatus.Name(record.status) == f"MODEL_STATUS_{status.name}"
        assert record_from_proto(record).status is status


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


def message_with(change: Callable[[graph_pb2.Graph], object]) -> graph_pb2.Graph:
    message = graph_to_proto(sample())
    change(message)
    return message


PROTO_REFUSALS: dict[str, tuple[Callable[[graph_pb2.Graph], object], str]] = {
    "no version": (lambda m: m.ClearField("schema_version"), "schema version 1, but got 0"),
    "later version": (lambda m: setattr(m, "schema_version", 2), "schema version 1, but got 2"),
    "no status": (lambda m: m.models[0].ClearField("status"), "in model 'r', but got number 0"),
    "unknown status": (lambda m: setattr(m.models[0], "status", 9), "model 'r', but got number 9"),
    "no kind": (lambda m: m.edges[0].ClearField("kind"), "'r' -> 'm', but got number 0"),
    "malformed id": (lambda m: setattr(m.models[0], "id", "../r"), "but got '../r'"),
    "no weight": (lambda m: m.edges[0].ClearField("weight"), "but got 0.0"),
    "incomplete merge": (lambda m: m.edges.__delitem__(0), "'m' to sum to 1, but got 0.75"),
    "model missing": (lambda m: m.models.__delitem__(0), "in the graph, but got 'r'"),
    "model twice": (lambda m: m.models.append(m.models[0]), "not taken, but got 'r'"),
    "label mapping": (lambda m: m.edges[2].labels.update({"cow": "dog"}), "'m' -> 't'"),
}


@pytest.mark.parametrize("name", PROTO_REFUSALS)
def test_protobuf_reader_refuses(name: str) -> None:
    change, reason = PROTO_REFUSALS[name]
    with pytest.raises(InputError, match=reason):
        graph_from_proto(message_with(change))


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(GraphError, match="Expected a serialised inheritance graph"):
        from_protobuf(b"\xff\xff")


@pytest.mark.parametrize(
    "record",
    [
        ModelRecord("m", "ann", "", (), "", 2**63),
        ModelRecord("m", "ann", "", ("\ud800",), "", 0),
        ModelRecord("m", "ann", "", (), "", 0, Provenance("set", {"cat": 2**63})),
    ],
)
def test_values_that_protobuf_cannot_hold_are_refused(record: ModelRecord) -> None:
    with pytest.raises(GraphError, match="Expected model 'm' to fit protobuf"):
        to_protobuf(InheritanceGraph([record]))


def test_mapping_that_protobuf_cannot_hold_is_refused() -> None:
    edge = Inheritance("a", "b", InheritanceKind.TRANSFER, labels={"\ud800": "cat"})
    with pytest.raises(GraphError, match="Expected inheritance 'a' -> 'b' to fit protobuf"):
        inheritance_to_proto(edge)


JSON_REFUSALS: dict[str, tuple[Callable[[Any], object], str]] = {
    "later version": (lambda c: c.update(schema_version=2), "schema version 1, but got 2"),
    "no version": (lambda c: c.pop("schema_version"), "'schema_version' in the graph, but got"),
    "version as a flag": (lambda c: c.update(schema_version=True), "to be int, but got True"),
    "no models": (lambda c: c.pop("models"), "'models' in the graph"),
    "models no list": (lambda c: c.update(models={}), "'models' of the graph to be list"),
    "model no object": (lambda c: c["models"].__setitem__(1, 7), r"models\[1\] to be an object"),
    "no owner": (lambda c: c["models"][1].pop("owner"), r"key 'owner' in models\[1\]"),
    "owner no string": (lambda c: c["models"][1].update(owner=7), "to be str, but got 7"),
    "label no string": (lambda c: c["models"][1].update(labels=[1]), r"'labels' of models\[1\]"),
    "repeated label": (lambda c: c["models"][1].update(labels=["a", "a"]), "distinct class names"),
    "fractional time": (lambda c: c["models"][1].update(created_us=1.5), "to be int, but got 1.5"),
    "unknown status": (lambda c: c["models"][1].update(status="lost"), "but got 'lost'"),
    "provenance no object": (lambda c: c["models"][1].update(provenance=1), "but got 1"),
    "no data set": (lambda c: c["models"][0]["provenance"].pop("dataset"), r"provenance of models"),
    "count no number": (
        lambda c: c["models"][0]["provenance"]["samples_per_class"].update(cat="2"),
        "'cat' of 'samples_per_class' of .* to be int, but got '2'",
    ),
    "negative count": (
        lambda c: c["models"][0]["provenance"]["samples_per_class"].update(cat=-1),
        "'cat', but got -1",
    ),
    "unknown kind": (
        lambda c: c["edges"][1].update(kind="cousin"),
        r"edges\[1\], but got 'cousin'",
    ),
    "weight no number": (lambda c: c["edges"][1].update(weight="1"), r"int \| float, but got '1'"),
    "NaN weight": (lambda c: c["edges"][1].update(weight=float("nan")), "but got nan"),
    "huge weight": (lambda c: c["edges"][1].update(weight=10**400), "weight in"),
    "mapping no object": (lambda c: c["edges"][1].update(labels=[]), "to be dict"),
    "mapping to a number": (lambda c: c["edges"][1].update(labels={"cat": 1}), "to be str"),
    "incomplete merge": (lambda c: c["edges"].pop(0), r"'m' to sum to 1, but got 0\.75"),
    "edge twice": (lambda c: c["edges"].append(c["edges"][0]), "but got another"),
}


@pytest.mark.parametrize("name", JSON_REFUSALS)
def test_json_reader_refuses(name: str) -> None:
    change, reason = JSON_REFUSALS[name]
    content = json.loads(to_json(sample()))
    change(content)
    with pytest.raises(GraphError, match=reason):
        from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nonsense"])
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(GraphError, match="Expected the graph to be JSON"):
        from_json(text)


def test_json_that_is_no_object_is_refused() -> None:
    with pytest.raises(GraphError, match=r"Expected the graph to be an object, but got \[\]"):
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
        (">null<", ">1<", "'provenance' of node"),
        ('target="t2"', 'target="x"', "node 'x', but got only"),
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


def test_graphml_keeps_what_xml_cannot_hold_out() -> None:
    graph = InheritanceGraph([ModelRecord("m", "ann", "a\x00", (), "", 0)])
    with pytest.raises(GraphError, match=r"architecture of model 'm' .* but got 'a\\x00'"):
        to_graphml(graph)


def test_dot_escapes_and_marks() -> None:
    assert to_dot(sample(), ["r"], cleansed=["t2"]) == (
        "digraph inheritance {\n"
        "  rankdir=LR;\n"
        "  node [shape=box, style=filled];\n"
        '  "r" [label="r\\nann", fillcolor="#d55e00"];\n'
        '  "s" [label="s\\nbob", fillcolor="#ffffff"];\n'
        '  "m" [label="m\\nbob", fillcolor="#f0c36d"];\n'
        '  "t" [label="t\\ncy", fillcolor="#f0c36d"];\n'
        '  "t2" [label="t2\\ncy", fillcolor="#ffffff"];\n'
        '  "u" [label="u\\ncy", fillcolor="#ffffff"];\n'
        '  "r" -> "m" [label="federated 0.25"];\n'
        '  "s" -> "m" [label="federated 0.75"];\n'
        '  "m" -> "t" [label="transfer\\ncat → \\"K\\\\&amp;amp;\\\\n"];\n'
        '  "t" -> "t2" [label="unlearned", style=dashed];\n'
        "}\n"
    )


def test_dot_without_roots_colours_nothing() -> None:
    assert "#d55e00" not in to_dot(sample())
    assert "#f0c36d" in to_dot(sample(), ["s"])


def pixels(png: bytes) -> tuple[int, int, set[tuple[int, int, int]]]:
    import matplotlib.image

    image = matplotlib.image.imread(io.BytesIO(png))
    height, width = image.shape[:2]
    colours = {tuple(int(v) for v in p) for p in (image[..., :3] * 255).round().reshape(-1, 3)}
    return width, height, colours  # type: ignore[return-value]


def test_png_is_drawn_with_the_colours_of_the_request() -> None:
    root, affected = (0xD5, 0x5E, 0x00), (0xF0, 0xC3, 0x6D)
    width, height, colours = pixels(to_png(sample(), ["r"], cleansed=["t2"]))
    assert (width, height) == (800, 420)
    assert {root, affected} <= colours
    assert root not in pixels(to_png(sample()))[2]
    assert affected not in pixels(to_png(sample()))[2]


def test_png_of_the_empty_graph() -> None:
    width, height, colours = pixels(to_png(InheritanceGraph()))
    assert (width, height) == (400, 150)
    assert colours == {(255, 255, 255)}


def test_png_of_a_long_chain_stays_within_the_raster() -> None:
    records = [ModelRecord(f"m{age:04}", "ann", "", (), "", age) for age in range(40)]
    edges = [
        Inheritance(records[age].id, records[age + 1].id, InheritanceKind.INCREMENTAL)
        for age in range(39)
    ]
    width, height, _ = pixels(to_png(InheritanceGraph(records, edges)))
    assert (width, height) == (6000, 240)


def test_png_without_matplotlib_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(GraphError, match=r"`pip install 'disinherit\[simulation\]'`"):
        to_png(sample())


@pytest.mark.parametrize("draw", [to_dot, to_png])
def test_drawings_refuse_unknown_roots(
    draw: Callable[[InheritanceGraph, list[str]], object],
) -> None:
    with pytest.raises(GraphError, match="but got 'x'"):
        draw(sample(), ["x"])
