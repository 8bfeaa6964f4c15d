"""Coefficients of roots at models, against an enumeration of all paths."""

from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from disinherit.common.errors import RequestError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.common.graph.rules import passes_taint
from disinherit.common.method import Method
from disinherit.common.wire.requests import Request
from disinherit.common.wire.samples import SampleDigests
from disinherit.server.planning.coefficients import KEPT_OF_CLIENT, find_coefficients
from disinherit.server.planning.plan import plan
from disinherit.server.planning.targets import find_origins
from tests.support.graph_cases import random_graphs

_SAMPLES = SampleDigests("0" * 32, ("a" * 64,))


def _graph(edges: dict[tuple[str, str], float]) -> InheritanceGraph:
    ids = dict.fromkeys(id for pair in edges for id in pair)
    records = [
        ModelRecord(id, f"owner-{id}", "arch", ("cat", "dog"), "", age)
        for age, id in enumerate(sorted(ids))
    ]
    inherited = [
        Inheritance(
            parent,
            child,
            InheritanceKind.TRANSFER if weight == 1 else InheritanceKind.FEDERATED,
            weight,
        )
        for (parent, child), weight in edges.items()
    ]
    return InheritanceGraph(records, inherited)


def test_paths_multiply_along_and_add_up_across() -> None:
    edges = {("a", "b"): 1.0, ("a", "c"): 0.25, ("b", "c"): 0.75, ("c", "d"): 1.0}
    found = find_coefficients(_graph(edges), ["a"], ["a", "b", "c", "d"])
    assert found == {"a": {"a": 1.0}, "b": {"a": 1.0}, "c": {"a": 1.0}, "d": {"a": 1.0}}
    found = find_coefficients(_graph(edges), ["b"], ["b", "c", "d"])
    assert found == {"b": {"b": 1.0}, "c": {"b": 0.75}, "d": {"b": 0.75}}


def test_a_root_below_another_root_changes_by_both() -> None:
    edges = {("a", "b"): 1.0, ("b", "c"): 0.5, ("aa", "c"): 0.5}
    found = find_coefficients(_graph(edges), ["a", "b"], ["a", "b", "c"])
    assert found["b"] == {"a": 1.0, "b": 1.0}
    assert found["c"] == {"a": 0.5, "b": 0.5}


@given(random_graphs(), st.data())
def test_coefficients_are_sums_over_all_paths(graph: InheritanceGraph, data: st.DataObject) -> None:
    ids = [record.id for record in graph.models()]
    if not ids:
        return
    roots = data.draw(st.lists(st.sampled_from(ids), unique=True, min_size=1, max_size=3))
    unlearned = [edge.child for edge in graph.edges() if edge.kind is InheritanceKind.UNLEARNED]
    cleansed = data.draw(st.sets(st.sampled_from(unlearned))) if unlearned else set()
    # Of an aggregate beside the global model of before, the larger way counts (tests below).
    kinds = [{edge.kind.merges for edge in graph.parents(model)} for model in ids]
    assume(not any(len(some) > 1 for some in kinds))
    origins = find_origins(graph, roots)
    starts = {root: {root, *origins.get(root, ())} for root in roots}
    affected = graph.affected({one for some in starts.values() for one in some}, cleansed=cleansed)
    found = find_coefficients(graph, roots, affected, cleansed, origins)
    assert list(found) == list(affected)

    def paths(model: str, begin: set[str]) -> Iterator[float]:
        if model in begin:
            yield 1.0
            return
        for edge in graph.parents(model):
            if passes_taint(edge, cleansed):
                yield from (edge.weight * product for product in paths(edge.parent, begin))

    for model in affected:
        expected = {root: list(paths(model, begin)) for root, begin in starts.items()}
        assert found[model].keys() == {root for root, products in expected.items() if products}
        for root, coefficient in found[model].items():
            assert coefficient == pytest.approx(sum(expected[root]), rel=1e-9)


def test_a_plan_has_the_shares_of_each_group_in_the_order_of_its_roots() -> None:
    graph = _graph({("a", "c"): 0.25, ("b", "c"): 0.75, ("c", "d"): 1.0})
    request = Request(samples={"a": _SAMPLES, "b": _SAMPLES}, method=Method(mechanism="delta"))
    groups = plan(graph, request.to_proto()).groups
    both = next(group for group in groups if group.models == ("c", "d"))
    assert both.roots == ("a", "b")
    assert both.shares == {"c": (0.25, 0.75), "d": (0.25, 0.75)}
    assert {group.models: group.shares for group in groups if len(group.roots) == 1} == {
        ("a",): {"a": (1.0,)},
        ("b",): {"b": (1.0,)},
    }


def test_a_plan_gives_no_model_more_than_a_whole_change() -> None:
    graph = _graph({("a", "b"): 1.0, ("a", "c"): 1.0, ("b", "d"): 1.0, ("c", "d"): 1.0})
    assert find_coefficients(graph, ["a"], ["a", "b", "c", "d"])["d"] == {"a": 2.0}
    request = Request(samples={"a": _SAMPLES}, method=Method(mechanism="delta"))
    (group,) = plan(graph, request.to_proto()).groups
    assert group.shares == dict.fromkeys("abcd", (1.0,))


def test_a_plan_of_a_request_for_fisher_information_has_no_shares() -> None:
    graph = _graph({("a", "c"): 0.25, ("b", "c"): 0.75})
    request = Request(samples={"a": _SAMPLES}, method=Method(mechanism="fisher"))
    assert not any(group.shares for group in plan(graph, request.to_proto()).groups)


@pytest.mark.parametrize("roots", [("a", "a~q"), ("a~q", "a"), ("a~q", "a~p"), ("a", "c", "a~o")])
def test_two_versions_of_one_root_are_refused_for_their_change_would_count_twice(
    roots: tuple[str, ...],
) -> None:
    ids = ("a", "a~p", "a~q", "a~o", "c")
    labels = ("cat", "dog")
    records = [ModelRecord(one, "owner", "arch", labels, "", age) for age, one in enumerate(ids)]
    made = [("a", "a~q"), ("a", "a~p"), ("a~p", "a~o")]
    edges = [Inheritance(*pair, InheritanceKind.UNLEARNED) for pair in made]
    graph = InheritanceGraph(records, [*edges, Inheritance("a", "c", InheritanceKind.TRANSFER)])
    samples = dict.fromkeys(roots, _SAMPLES)
    request = Request(samples=samples, method=Method(mechanism="delta")).to_proto()
    first, last = roots[0], roots[-1]
    with pytest.raises(RequestError, match=f"'{first}' and '{last}' are versions of one"):
        plan(graph, request)
    plan(graph, Request(samples=samples, method=Method(mechanism="fisher")).to_proto())


def test_what_is_kept_shrinks_with_training_and_not_with_averages_or_successors() -> None:
    records = [
        ModelRecord(id, "anna", "arch", ("cat", "dog"), "", age)
        for age, id in enumerate(("r", "u", "m", "t", "t~q", "k"))
    ]
    trains = InheritanceKind.INCREMENTAL
    edges = [
        Inheritance("r", "m", InheritanceKind.FEDERATED, 0.5, {}, Recipe.AVERAGE, 1),
        Inheritance("u", "m", InheritanceKind.FEDERATED, 0.5, {}, Recipe.AVERAGE, 2),
        Inheritance("m", "t", trains),
        Inheritance("t", "t~q", InheritanceKind.UNLEARNED),
        Inheritance("t~q", "k", trains),
    ]
    graph = InheritanceGraph(records, edges)
    affected = graph.affected(["r"])
    found = find_coefficients(graph, ["r"], affected, kept=0.25)
    assert {model: shares["r"] for model, shares in found.items()} == {
        "r": 1.0,
        "m": 0.5,
        "t": 0.125,
        "t~q": 0.125,
        "k": 0.03125,
    }


def test_only_what_a_client_contributed_shrinks_in_a_plan() -> None:
    trained = Provenance("points", {"cat": 3})
    records = [
        ModelRecord("r", "anna", "arch", ("cat", "dog"), "", 1, provenance=trained),
        ModelRecord("m", "ben", "arch", ("cat", "dog"), "", 2),
    ]
    graph = InheritanceGraph(records, [Inheritance("r", "m", InheritanceKind.TRANSFER)])
    method = Method(mechanism="delta", scope="all")
    asked = Request(samples={"r": _SAMPLES}, method=method, id="q").to_proto()
    assert [group.shares["m"] for group in plan(graph, asked).groups if "m" in group.shares] == [
        (1.0,)
    ]
    asked = Request(forget={"r": ()}, client="anna", method=method, id="q").to_proto()
    assert [group.shares["m"] for group in plan(graph, asked).groups] == [(KEPT_OF_CLIENT,)]


@given(st.lists(st.floats(0.1, 1), min_size=2, max_size=4), st.integers(1, 5), st.floats(0.5, 1))
def test_what_a_servers_optimiser_made_inherits_each_change_once(
    amounts: list[float], rounds: int, kept: float
) -> None:
    """The way through the updates of a round is that from the global model of before."""
    weights = [amount / sum(amounts) for amount in amounts]
    trains, merges = InheritanceKind.INCREMENTAL, InheritanceKind.FEDERATED
    graph = InheritanceGraph([ModelRecord("g0", "server", "arch", ("cat",), "", 0)])
    for number in range(1, rounds + 1):
        last = f"g{number - 1}"
        updates = [f"u{number}-{node}" for node in range(len(weights))]
        for update in updates:
            record = ModelRecord(update, "node", "arch", ("cat",), "", 2 * number)
            graph.add(record, [Inheritance(last, update, trains)])
        edges = [
            Inheritance(update, f"g{number}", merges, weight)
            for update, weight in zip(updates, weights, strict=True)
        ]
        record = ModelRecord(f"g{number}", "server", "arch", ("cat",), "", 2 * number + 1)
        graph.add(record, [Inheritance(last, f"g{number}", trains), *edges])
    roots = [f"u{number}-0" for number in range(1, rounds + 1)]
    found = find_coefficients(graph, roots, graph.affected(roots), kept=kept)
    for number in range(1, rounds + 1):
        assert found[f"g{number}"] == pytest.approx(
            {f"u{one}-0": weights[0] * kept ** (number - one + 1) for one in range(1, number + 1)}
        )
