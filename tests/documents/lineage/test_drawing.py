"""Pictures of lineage: nothing overlaps, everything leads somewhere, hundreds fit on a page."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations

import pytest

from disinherit.common.graph.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
)
from disinherit.documents.lineage.drawing import draw_lineage, draw_owners
from disinherit.documents.lineage.folding import fold
from disinherit.documents.lineage.standalone import draw_file
from disinherit.documents.standing import ShownEdge, ShownModel, Standing
from tests.documents.campaign.made import graph_of

SVG = "{http://www.w3.org/2000/svg}"


def shown(id: str, standing: Standing = Standing.FORGOT) -> ShownModel:
    return ShownModel(id, "o", "affected", standing)


def drawn(models: list[ShownModel], edges: list[ShownEdge]) -> tuple[ET.Element, str]:
    image, left_out = draw_lineage(models, edges, {one.id for one in models})
    return ET.fromstring(str(image)), left_out


def size(image: ET.Element) -> tuple[float, float]:
    _, _, width, height = map(float, image.get("viewBox", "").split())
    return width, height


def links(image: ET.Element) -> list[str]:
    return [one.get("href", "") for one in image.iter(f"{SVG}a")]


def edge(parent: str, child: str, kind: str = "federated") -> ShownEdge:
    return ShownEdge(parent, child, kind, 0.5)


def wide_fleet(generations: int, width: int) -> tuple[list[ShownModel], list[ShownEdge]]:
    """Every model inherits from two of the generation before and one further back."""
    models: list[ShownModel] = []
    edges: list[ShownEdge] = []
    for g in range(generations):
        for i in range(width):
            name = f"m{g}-{i}"
            models.append(shown(name))
            parents = {f"m{g - 1}-{i}", f"m{g - 1}-{(i + 1) % width}"} if g else set()
            if g > 2:
                parents.add(f"m{g - 3}-{(i * 2) % width}")
            edges += [edge(parent, name) for parent in sorted(parents)]
    return models, edges


@pytest.mark.parametrize(("generations", "width"), [(1, 1), (5, 6), (40, 1), (2, 15), (9, 3)])
def test_no_two_boxes_of_a_graph_overlap_and_all_are_inside(generations: int, width: int) -> None:
    models, edges = wide_fleet(generations, width)
    image, _ = drawn(models, edges)
    boxes = [
        tuple(float(rect.get(key, "")) for key in ("x", "y", "width", "height"))
        for rect in image.iter(f"{SVG}rect")
        if rect.get("class") == "box"
    ]
    folded = fold(models, edges)
    assert len(boxes) == len(folded.boxes)
    full_width, full_height = size(image)
    for (x, y, w, h), (u, v, w2, h2) in combinations(boxes, 2):
        assert x + w < u or u + w2 < x or y + h < v or v + h2 < y
    for x, y, w, h in boxes:
        assert x >= 0 <= y
        assert x + w <= full_width
        assert y + h <= full_height
    assert sorted(links(image)) == sorted(f"#m-{one.id}" for one in models)


def test_a_chain_and_a_fan_are_one_box_each_and_every_model_is_a_link() -> None:
    root = ShownModel("u0", "o", "root", Standing.FORGOT)
    chain = [shown(f"u{i}", Standing.OPEN if i == 7 else Standing.FORGOT) for i in range(1, 51)]
    image, _ = drawn([root, *chain], [edge(f"u{i}", f"u{i + 1}") for i in range(50)])
    assert len(links(image)) == 51
    assert size(image)[0] < 400 > size(image)[1]
    assert any("u1 … u50, 50 models: 1 …, 49 ✓" in text for text in image.itertext())
    fan = [shown(f"u{i}") for i in range(1, 201)]
    image, _ = drawn([root, *fan], [edge("u0", one.id) for one in fan])
    assert size(image)[0] < 400 > size(image)[1]
    assert any("200 children of u0: 200 ✓" in text for text in image.itertext())
    assert "and 116 more" in set(image.itertext())


def test_versions_are_drawn_as_the_model_that_they_were_made_of() -> None:
    models = [shown("a"), shown("b"), shown("a~q"), shown("b~q"), shown("c")]
    edges = [edge("a", "b"), edge("a", "a~q", "unlearned"), edge("b", "b~q", "unlearned")]
    edges += [edge("b~q", "c")]
    folded = fold(models, edges)
    assert list(folded.boxes) == ["a", "b", "c"]
    assert sorted(folded.edges) == [("a", "b"), ("b", "c")]
    assert "2 versions made later drawn with the first one" in drawn(models, edges)[1]


def test_untouched_models_and_edges_that_say_nothing_new_are_left_out_where_it_is_crowded() -> None:
    root = ShownModel("r", "o", "root", Standing.FORGOT)
    others = [ShownModel(f"x{i}", "o", "untouched", Standing.LEFT) for i in range(20)]
    image, left_out = drawn([root, *others, shown("a")], [edge("r", "a")])
    assert links(image) == ["#m-r", "#m-a"]
    assert left_out == "20 untouched models not drawn"
    models, edges = wide_fleet(3, 6)
    edges.append(edge("m0-0", "m2-0"))
    assert fold(models, edges).dropped == 1
    few = [shown(name) for name in "abc"]
    assert fold(few, [edge("a", "b"), edge("b", "c"), edge("a", "c")]).dropped == 0


def test_hundreds_of_models_are_squares_of_a_strip_with_the_worst_first() -> None:
    models, edges = wide_fleet(12, 40)
    models[85] = shown(models[85].id, Standing.FAILED)
    image, left_out = drawn(models, edges)
    assert "each is a square" in left_out
    width, height = size(image)
    assert width < 1100 > height
    row = [link for link in links(image) if link.startswith("#m-m2-")]
    assert row[0] == f"#m-{models[85].id}"
    assert len(links(image)) == 480
    assert "1 ✕, 39 ✓" in set(image.itertext())


def test_names_are_escaped() -> None:
    evil = ShownModel("a", '<script>"&', "root", Standing.KEPT, "<b>")
    image = str(draw_lineage([evil], [], {"a"})[0])
    assert "<script" not in image
    assert '<script>"&' in "".join(ET.fromstring(image).itertext())


def test_a_file_needs_no_page_and_shows_what_became_of_a_version() -> None:
    graph = graph_of({"a": (), "b": ("a",), "c": ("b",), "d": ("c",), "x": ()})
    graph.replace(replace(graph.model("a"), status=ModelStatus.SUPERSEDED))
    made = ModelRecord("a~q", "o", "a", ("cat", "dog"), "", 99)
    graph.add(made, [Inheritance("a", "a~q", InheritanceKind.UNLEARNED)])
    image = ET.fromstring(draw_file(graph, ["a"]))
    titles = [one.text or "" for one in image.iter(f"{SVG}title")]
    assert any(one.startswith("a, owner-7, root; became a~q") for one in titles)
    assert links(image) == []
    assert image.find(f"{SVG}style") is not None
    assert not any("url(http" in text or "@import" in text for text in image.itertext())
    near = ET.fromstring(draw_file(graph, around="b", depth=1))
    items = [one for one in near.iter() if one.get("role") == "listitem"]
    assert len(items) == 3


def test_owners_have_a_line_each_with_the_worst_first() -> None:
    models = [ShownModel(f"m{i}", f"owner-{i % 5}", "affected", Standing.FORGOT) for i in range(20)]
    models[8] = replace(models[8], standing=Standing.FAILED)
    untouched = ShownModel("x", "owner-9", "untouched", Standing.LEFT)
    image = ET.fromstring(str(draw_owners([*models, untouched], {one.id for one in models})))
    assert links(image)[0] == "#m-m8"
    assert len(links(image)) == 20
    assert "1 ✕, 3 ✓" in set(image.itertext())
    assert draw_owners(models[:12]) is None
    assert draw_owners([replace(one, owner="o") for one in models]) is None
