"""All formats of the inheritance graph: round trips and refusals."""

import pytest

from disinherit.common.errors import GraphError
from disinherit.common.graph.drawing import to_dot
from disinherit.common.graph.formats import FORMATS, dump_graph, load_graph
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import ModelRecord, Provenance
from tests.support.graph_cases import sample

READABLE = ("json", "graphml", "protobuf")


def test_there_are_five_formats() -> None:
    assert sorted(FORMATS) == ["dot", "graphml", "json", "png", "protobuf"]


@pytest.mark.parametrize("format", READABLE)
def test_a_written_graph_is_read_back(format: str) -> None:
    written = dump_graph(sample(), format)
    assert load_graph(written, format) == sample()
    assert load_graph(written.encode() if isinstance(written, str) else written, format) == sample()


@pytest.mark.parametrize("format", READABLE)
def test_the_empty_graph_and_an_empty_provenance_are_kept(format: str) -> None:
    graph = InheritanceGraph([ModelRecord("m", "ann", "", (), "", 0, Provenance(""))])
    for written in (InheritanceGraph(), graph):
        assert load_graph(dump_graph(written, format), format) == written
    read = load_graph(dump_graph(graph, format), format)
    assert read.model("m").provenance == Provenance("")


@pytest.mark.parametrize("format", FORMATS)
def test_equal_graphs_give_equal_output(format: str) -> None:
    graph = sample()
    other = InheritanceGraph(reversed(graph.models()), reversed(graph.edges()))
    assert dump_graph(other, format, ["r"]) == dump_graph(graph, format, ["r"])


def test_roots_and_cleansed_reach_the_drawing() -> None:
    drawn = dump_graph(sample(), "dot", ["r"], cleansed=["t2"])
    assert drawn == to_dot(sample(), ["r"], cleansed=["t2"]) != to_dot(sample(), ["r"])
    png = dump_graph(sample(), "png", ["r"])
    assert isinstance(png, bytes)
    assert png.startswith(b"\x89PNG")
    assert png != dump_graph(sample(), "png")


@pytest.mark.parametrize("format", FORMATS)
def test_unknown_roots_are_refused_in_every_format(format: str) -> None:
    with pytest.raises(GraphError, match="roots that are models in the graph, but got 'x'"):
        dump_graph(sample(), format, ["x"])


@pytest.mark.parametrize("format", ["", "JSON", "xml"])
def test_unknown_formats_are_refused_with_a_list(format: str) -> None:
    known = "among json, graphml, protobuf, dot, png, but got"
    with pytest.raises(GraphError, match=f"{known} '{format}'"):
        dump_graph(sample(), format)
    with pytest.raises(GraphError, match=f"{known} '{format}'"):
        load_graph("{}", format)


@pytest.mark.parametrize("format", ["dot", "png"])
def test_drawings_are_not_read(format: str) -> None:
    with pytest.raises(GraphError, match=f"json, graphml, protobuf, but got {format}"):
        load_graph(dump_graph(sample(), format), format)


@pytest.mark.parametrize(
    ("data", "format", "reason"),
    [
        ("text", "protobuf", "bytes to read as protobuf, but got text"),
        (b"\xff", "json", "json as UTF-8 text, but"),
        (b"\xff", "graphml", "graphml as UTF-8 text, but"),
        (b"\xff", "protobuf", "serialised inheritance graph, but"),
    ],
)
def test_data_of_another_kind_is_refused(data: str | bytes, format: str, reason: str) -> None:
    with pytest.raises(GraphError, match=reason):
        load_graph(data, format)
