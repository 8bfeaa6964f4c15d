"""The inheritance graph against brute force on random graphs, and its refusals."""

import copy
import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import GraphError, LabelError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import (
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStatus,
    Provenance,
)

FEDERATED = InheritanceKind.FEDERATED
TRANSFER = InheritanceKind.TRANSFER
UNLEARNED = InheritanceKind.UNLEARNED


def version(id: str, created_us: int, labels: tuple[str, ...] = ("cat", "dog")) -> ModelRecord:
    return ModelRecord(id, "owner", "arch", labels, f"{created_us:x}", created_us)


def family() -> InheritanceGraph:
    """r and s are merged into m; t is derived from m; u is isolated."""
    return InheritanceGraph(
        [version(id, age) for age, id in enumerate(["r", "s", "m", "t", "u"])],
        [
            Inheritance("r", "m", FEDERATED, 0.25),
            Inheritance("s", "m", FEDERATED, 0.75),
            Inheritance("m", "t", TRANSFER),
        ],
    )


@st.composite
def random_graphs(draw: st.DrawFn) -> tuple[InheritanceGraph, list[str], list[str]]:
    """A random graph with roots and the successors some of its `unlearned` edges lead to."""
    size = draw(st.integers(1, 9))
    names = draw(st.permutations([f"m{number}" for number in range(size)]))
    records = [version(name, draw(st.integers(0, 4))) for name in names]
    edges = []
    for child in records:
        older = [record.id for record in records if record.created_us < child.created_us]
        parents = draw(st.lists(st.sampled_from(older), unique=True, max_size=3)) if older else []
        kinds = [
            draw(st.sampled_from([FEDERATED, TRANSFER, UNLEARNED, UNLEARNED])) for _ in parents
        ]
        share = 1 / max(kinds.count(FEDERATED), 1)
        edges += [
            Inheritance(parent, child.id, kind, share if kind is FEDERATED else 1.0)
            for parent, kind in zip(parents, kinds, strict=True)
        ]
    roots = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4))
    successors = sorted({edge.child for edge in edges if edge.kind is UNLEARNED})
    cleansed = draw(st.lists(st.sampled_from(successors), unique=True)) if successors else []
    return InheritanceGraph(records, edges), roots, cleansed


def reachable(graph: InheritanceGraph, start: str, cleansed: list[str]) -> set[str]:
    """Brute force: follow the plain edge list until nothing is added."""
    found = {start}
    while True:
        more = {
            edge.child
            for edge in graph.edges()
            if edge.parent in found and not (edge.kind is UNLEARNED and edge.child in cleansed)
        }
        if more <= found:
            return found
        found |= more


def upstream(
    graph: InheritanceGraph, model: str, roots: list[str], cleansed: list[str]
) -> set[str]:
    """Brute force: depth-first search along every path towards the ancestors."""
    found = {model} & set(roots)
    for edge in graph.parents(model):
        if not (edge.kind is UNLEARNED and edge.child in cleansed):
            found |= upstream(graph, edge.parent, roots, cleansed)
    return found


@given(random_graphs())
def test_affected_is_reachability_in_order(
    case: tuple[InheritanceGraph, list[str], list[str]],
) -> None:
    graph, roots, cleansed = case
    affected = graph.affected(roots, cleansed=cleansed)
    assert set(affected) == set().union(*(reachable(graph, root, cleansed) for root in roots))
    ages = [(graph.model(id).created_us, id) for id in affected]
    assert ages == sorted(set(ages))
    position = {id: index for index, id in enumerate(affected)}
    for edge in graph.edges():
        if edge.parent in position and edge.child in position:
            assert position[edge.parent] < position[edge.child]


@given(random_graphs())
def test_upstream_roots_match_depth_first_search(
    case: tuple[InheritanceGraph, list[str], list[str]],
) -> None:
    graph, roots, cleansed = case
    affected = graph.affected(roots, cleansed=cleansed)
    for record in graph.models():
        found = graph.upstream_roots(record.id, roots, cleansed=cleansed)
        assert found == upstream(graph, record.id, roots, cleansed)
        assert bool(found) == (record.id in affected)


@given(random_graphs())
def test_generations_are_longest_paths(
    case: tuple[InheritanceGraph, list[str], list[str]],
) -> None:
    graph, _, _ = case
    generations = graph.generations()
    level = {id: number for number, ids in enumerate(generations) for id in ids}
    assert len(level) == sum(map(len, generations)) == len(graph)
    for id, number in level.items():
        parents = [level[edge.parent] for edge in graph.parents(id)]
        assert number == max(parents, default=-1) + 1
    for ids in generations:
        assert list(ids) == sorted(ids, key=lambda id: (graph.model(id).created_us, id))


@given(random_graphs(), st.randoms(use_true_random=False))
def test_order_of_construction_does_not_matter(
    case: tuple[InheritanceGraph, list[str], list[str]], random: object
) -> None:
    graph, _, _ = case
    models, edges = list(graph.models()), list(graph.edges())
    random.shuffle(models)  # type: ignore[attr-defined]
    random.shuffle(edges)  # type: ignore[attr-defined]
    rebuilt = InheritanceGraph(models, edges)
    assert rebuilt == graph
    assert rebuilt.models() == graph.models()
    assert rebuilt.edges() == graph.edges()
    one_by_one = InheritanceGraph()
    for record in graph.models():
        one_by_one.add(record, graph.parents(record.id))
    assert one_by_one == graph


def test_added_versions_and_edges_are_found() -> None:
    graph = family()
    assert len(graph) == 5
    assert "m" in graph
    assert "x" not in graph
    assert [] not in graph
    assert graph.model("m") == version("m", 2)
    assert [record.id for record in graph.models()] == ["r", "s", "m", "t", "u"]
    assert [edge.parent for edge in graph.parents("m")] == ["r", "s"]
    assert [edge.child for edge in graph.children("m")] == ["t"]
    assert graph.parents("r") == graph.children("u") == ()
    assert graph.generations() == [("r", "s", "u"), ("m",), ("t",)]
    assert repr(graph) == "InheritanceGraph(5 models, 3 edges)"


def test_graphs_differ_by_models_edges_and_type() -> None:
    graph = family()
    assert graph == family()
    assert graph != InheritanceGraph(graph.models())
    assert graph != InheritanceGraph([*graph.models(), version("v", 9)], graph.edges())
    assert graph != "graph"
    with pytest.raises(TypeError, match="unhashable"):
        hash(graph)


def test_ties_in_age_are_broken_by_id() -> None:
    graph = InheritanceGraph([version("r", 0), version("b", 1), version("a", 1)])
    graph.add_inheritance("r", "b", TRANSFER)
    graph.add_inheritance("r", "a", TRANSFER)
    assert graph.affected(["r"]) == ("r", "a", "b")


def test_two_requests_cleanse_independently() -> None:
    """v -> a (unlearned for request A) -> b (unlearned for request B); w was derived from a."""
    graph = InheritanceGraph([version("v", 0)])
    graph.add(version("a", 1), [Inheritance("v", "a", UNLEARNED)])
    graph.add(version("b", 2), [Inheritance("a", "b", UNLEARNED)])
    graph.add(version("w", 3), [Inheritance("a", "w", TRANSFER)])
    assert graph.affected(["v"], cleansed=["a"]) == ("v",)
    # For request B, the successor of A's campaign is one more descendant.
    assert graph.affected(["v"], cleansed=["b"]) == ("v", "a", "w")
    assert graph.affected(["v"]) == ("v", "a", "b", "w")


def test_cleansed_version_is_affected_again_through_another_parent() -> None:
    graph = InheritanceGraph([version("v", 0), version("r", 0)])
    graph.add(version("a", 1), [Inheritance("v", "a", UNLEARNED), Inheritance("r", "a", TRANSFER)])
    assert graph.affected(["v", "r"], cleansed=["a"]) == ("r", "v", "a")
    assert graph.upstream_roots("a", ["v", "r"], cleansed=["a"]) == {"r"}


def test_status_does_not_hide_a_version() -> None:
    graph = family()
    retired = dataclasses.replace(graph.model("m"), status=ModelStatus.RETIRED)
    graph.replace(retired)
    assert graph.affected(["s"]) == ("s", "m", "t")
    assert graph.upstream_roots("t", ["r", "s"]) == {"r", "s"}


def test_replace_changes_mutable_fields() -> None:
    graph = family()
    record = dataclasses.replace(
        graph.model("m"),
        status=ModelStatus.SUPERSEDED,
        fisher_digest="f" * 64,
        provenance=Provenance("mnist", {"cat": 3}),
    )
    graph.replace(record)
    assert graph.model("m") == record
    assert graph.edges() == family().edges()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("owner", "thief"),
        ("architecture", "other"),
        ("labels", ("dog", "cat")),
        ("digest", "0123"),
        ("created_us", 7),
    ],
)
def test_replace_refuses_a_changed_identity(field: str, value: object) -> None:
    graph = family()
    changed = dataclasses.replace(graph.model("m"), **{field: value})  # type: ignore[arg-type]
    with pytest.raises(GraphError, match=rf"{field} of model 'm' to stay .* add a new version"):
        graph.replace(changed)
    assert graph == family()


def merge(*weights: float) -> list[Inheritance]:
    return [Inheritance(id, "n", FEDERATED, w) for id, w in zip("rst", weights, strict=False)]


REFUSALS: dict[str, tuple[Callable[[InheritanceGraph], object], str]] = {
    "duplicate model": (lambda g: g.add_model(version("m", 9)), "not taken, but got 'm'"),
    "replace unknown": (lambda g: g.replace(version("x", 9)), "in the graph, but got 'x'"),
    "unknown parent": (lambda g: g.add_inheritance("x", "m"), "in the graph, but got 'x'"),
    "unknown child": (lambda g: g.add_inheritance("m", "x"), "in the graph, but got 'x'"),
    "duplicate edge": (
        lambda g: g.add_inheritance("m", "t", TRANSFER),
        "one edge from 'm' to 't', but got another",
    ),
    "self-edge": (lambda g: g.add_inheritance("m", "m"), "other than the child, but got .* 'm'"),
    "older child": (lambda g: g.add_inheritance("t", "r"), "younger .* 3 us, but got 0 us"),
    "child of the same age": (
        lambda g: g.add(version("n", 3), [Inheritance("t", "n", TRANSFER)]),
        "'t' -> 'n' to be younger .* 3 us, but got 3 us",
    ),
    "weight 0": (lambda g: g.add_inheritance("r", "u", weight=0.0), r"\(0, 1\] .* but got 0.0"),
    "weight above 1": (lambda g: g.add_inheritance("r", "u", weight=1.5), "but got 1.5"),
    "negative weight": (lambda g: g.add_inheritance("r", "u", weight=-0.5), "but got -0.5"),
    "infinite weight": (lambda g: g.add_inheritance("r", "u", weight=float("inf")), "got inf"),
    "NaN weight": (lambda g: g.add_inheritance("r", "u", TRANSFER, float("nan")), "but got nan"),
    "sum above 1": (
        lambda g: g.add(version("n", 9), merge(0.5, 0.5, 0.5)),
        "parents of 'n' to sum to at most 1, but got 1.5",
    ),
    "incomplete merge": (
        lambda g: g.add(version("n", 9), merge(0.5, 0.25)),
        "parents of 'n' to sum to 1, but got 0.75",
    ),
    "second parent refused": (
        lambda g: g.add(version("n", 9), [*merge(0.5), Inheritance("x", "n", FEDERATED, 0.5)]),
        "in the graph, but got 'x'",
    ),
    "same parent twice": (
        lambda g: g.add(version("n", 9), [*merge(0.5), *merge(0.5)]),
        "one edge from 'r' to 'n', but got another",
    ),
    "edge to another child": (
        lambda g: g.add(version("n", 9), [Inheritance("r", "u", TRANSFER)]),
        "lead to 'n', but got inheritance 'r' -> 'u'",
    ),
    "unknown model": (lambda g: g.model("x"), "in the graph, but got 'x'"),
    "parents of unknown": (lambda g: g.parents("x"), "in the graph, but got 'x'"),
    "children of unknown": (lambda g: g.children("x"), "in the graph, but got 'x'"),
    "no roots": (lambda g: g.affected([]), "at least one root, but got none"),
    "unknown root": (lambda g: g.affected(["r", "x"]), "roots that are models .* but got 'x'"),
    "unknown root to trace": (lambda g: g.upstream_roots("m", ["x"]), "but got 'x'"),
    "unknown model to trace": (lambda g: g.upstream_roots("x", ["m"]), "but got 'x'"),
    "unknown cleansed": (lambda g: g.affected(["r"], cleansed=["x"]), "but got 'x'"),
    "cleansed by nobody": (
        lambda g: g.affected(["r"], cleansed=["m"]),
        "made by unlearning, but no unlearned edge leads to 'm'",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_the_value_and_changes_nothing(name: str) -> None:
    act, message = REFUSALS[name]
    graph = family()
    before = copy.deepcopy(graph)
    with pytest.raises(GraphError, match=message):
        act(graph)
    assert graph == before


@pytest.mark.parametrize("mapping", [{"cow": "cat"}, {"cat": "cow"}, {"cat": "dog"}])
def test_label_mapping_that_does_not_fit_is_refused(mapping: dict[str, str]) -> None:
    graph = family()
    with pytest.raises(LabelError, match="inheritance 'r' -> 'u'"):
        graph.add_inheritance("r", "u", TRANSFER, labels=mapping)
    assert graph == family()
    edge = Inheritance("r", "n", TRANSFER, labels=mapping)
    with pytest.raises(LabelError, match="inheritance 'r' -> 'n'"):
        graph.add(version("n", 9), [edge])
    assert graph == family()


def test_label_mapping_that_fits_is_kept() -> None:
    graph = family()
    graph.add(
        version("n", 9, ("kitten", "dog")),
        [Inheritance("r", "n", TRANSFER, 1.0, {"cat": "kitten"})],
    )
    assert graph.parents("n")[0].labels == {"cat": "kitten"}


def test_merge_that_grows_edge_by_edge() -> None:
    graph = InheritanceGraph([version(id, age) for age, id in enumerate("rstm")])
    graph.add_inheritance("r", "m", weight=0.7)
    with pytest.raises(GraphError, match=r"'m' to sum to 1, but got 0\.7"):
        graph.validate()
    assert graph.affected(["r"]) == ("r", "m")
    with pytest.raises(GraphError, match=r"at most 1, but got 1\.1"):
        graph.add_inheritance("s", "m", InheritanceKind.DISTRIBUTED, 0.4)
    graph.add_inheritance("s", "m", InheritanceKind.DISTRIBUTED, 0.3)
    graph.validate()
    graph.add_inheritance("t", "m", TRANSFER, 1.0)  # not part of the average
    graph.validate()


@pytest.mark.parametrize(("total", "fits"), [(1 - 9e-7, True), (1 + 9e-7, True), (1 - 2e-6, False)])
def test_sum_of_weights_has_a_tolerance(total: float, fits: bool) -> None:
    graph = family()
    if fits:
        graph.add(version("n", 9), merge(0.5, total - 0.5))
    else:
        with pytest.raises(GraphError, match=r"sum to 1, but got 0\.999998"):
            graph.add(version("n", 9), merge(0.5, total - 0.5))


def test_constructor_refuses_incomplete_graphs() -> None:
    graph = family()
    with pytest.raises(GraphError, match=r"'m' to sum to 1, but got 0\.25"):
        InheritanceGraph(graph.models(), graph.edges()[:1])
    with pytest.raises(GraphError, match="in the graph, but got 'm'"):
        InheritanceGraph(graph.models()[:2], graph.edges())


@given(random_graphs())
def test_lines_of_unlearning_are_followed_both_ways(
    drawn: tuple[InheritanceGraph, list[str], list[str]],
) -> None:
    graph, _, _ = drawn
    made = [edge for edge in graph.edges() if edge.kind is InheritanceKind.UNLEARNED]

    def before(id: str) -> set[str]:
        direct = {edge.parent for edge in made if edge.child == id}
        return direct.union(*map(before, direct))

    for record in graph.models():
        assert set(graph.origins(record.id)) == before(record.id)
        assert len(set(graph.origins(record.id))) == len(graph.origins(record.id))
        direct = {edge.child for edge in made if edge.parent == record.id}
        assert set(graph.successors(record.id)) == direct
