"""Versions that are computed again from their parents, in graphs by hand."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.recipes import Recipe
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.server.planning.coefficients import find_coefficients
from disinherit.server.planning.recipes import Computed, Ingredient, birth
from disinherit.server.planning.recipes import find_computed as find_computed_below
from disinherit.server.planning.targets import find_origins, find_starts

FEDERATED, UNLEARNED = InheritanceKind.FEDERATED, InheritanceKind.UNLEARNED


def find_computed(
    graph: InheritanceGraph, roots: Sequence[str], leaving: Sequence[str] = (), kept: float = 1.0
) -> dict[str, Computed]:
    """Below the roots, with their coefficients."""
    affected = graph.affected(find_starts(graph, roots))
    upstream = find_coefficients(graph, roots, affected, (), find_origins(graph, roots))
    return find_computed_below(graph, roots, upstream, leaving, kept)


def version(id: str, age: int, labels: tuple[str, ...] = ("cat", "dog")) -> ModelRecord:
    return ModelRecord(id, "anna", "arch", labels, "", age)


def average(child: str, *parents: str) -> list[Inheritance]:
    return [
        Inheritance(parent, child, FEDERATED, 1 / len(parents), {}, Recipe.AVERAGE, place)
        for place, parent in enumerate(parents, 1)
    ]


def part(model: str, affected: bool = False, leaves: bool = False) -> Ingredient:
    return Ingredient(model, 0.5, affected, leaves)


def made() -> InheritanceGraph:
    """Root r and others u and v; m of v and r, k of m and u, and t trained from k."""
    graph = InheritanceGraph([version(id, age) for age, id in enumerate("ruv", 1)])
    graph.add(version("m", 4), average("m", "v", "r"))
    graph.add(version("k", 5), average("k", "u", "m"))
    graph.add(version("t", 6), [Inheritance("k", "t", InheritanceKind.INCREMENTAL)])
    graph.add(version("a", 7), average("a", "t", "u"))
    return graph


def test_averages_need_the_roots_above_and_trained_versions_cannot_be_exact() -> None:
    needs = frozenset({"r"})
    assert find_computed(made(), ["r"]) == {
        "m": Computed(Recipe.AVERAGE, (part("v"), part("r", affected=True)), needs),
        "k": Computed(Recipe.AVERAGE, (part("u"), part("m", affected=True)), needs),
        "a": Computed(Recipe.AVERAGE, (part("t", affected=True), part("u")), None),
    }


def test_the_contribution_of_a_leaving_client_has_no_share() -> None:
    found = find_computed(made(), ["r"], ["r"])["m"]
    parts = (part("v"), part("r", affected=True, leaves=True))
    assert found == Computed(Recipe.AVERAGE, parts, frozenset())


def test_successors_are_computed_as_their_origins_and_after_their_parents() -> None:
    graph = made()
    for place, id in enumerate("krm"):  # registered in whatever order
        graph.add(version(f"{id}~q", 10 + place), [Inheritance(id, f"{id}~q", UNLEARNED)])
    found = find_computed(graph, ["r~q"])
    needs = frozenset({"r~q"})
    parts = (part("u"), part("m", affected=True))
    assert found["k~q"] == Computed(Recipe.AVERAGE, parts, needs)
    assert birth(graph, "r~q") < birth(graph, "m~q") < birth(graph, "k~q")


def test_an_average_over_other_classes_or_with_a_gap_is_not_computed() -> None:
    graph = InheritanceGraph([version("r", 1), version("u", 2, ("cat", "owl"))])
    graph.add(version("m", 3, ("cat", "dog", "owl")), average("m", "r", "u"))
    known, other = average("k", "r", "u")
    graph.add(version("k", 4), [known, Inheritance("u", "k", FEDERATED, other.weight)])
    assert find_computed(graph, ["r"]) == {}


CLIENT = ("u1-3", "u2-3", "u3-3")


def federation() -> InheritanceGraph:
    """Three rounds of three nodes, the second without the first of them."""
    graph = InheritanceGraph([version("g0", 0)])
    age = 0
    for number, nodes in enumerate(["123", "23", "123"], 1):
        updates = [f"u{number}-{node}" for node in nodes]
        for update in updates:
            age += 1
            last = f"g{number - 1}"
            graph.add(
                version(update, age), [Inheritance(last, update, InheritanceKind.INCREMENTAL)]
            )
        age += 1
        graph.add(version(f"g{number}", age), average(f"g{number}", *updates))
    return graph


def starts(graph: InheritanceGraph, roots: Sequence[str] = CLIENT) -> dict[str, tuple[str, float]]:
    found = find_computed(graph, roots, roots, 0.5)
    return {model: (one.start, one.kept) for model, one in found.items()}


def test_averages_of_rounds_know_what_the_client_started_from_and_what_others_kept() -> None:
    assert starts(federation()) == {"g1": ("g0", 0.0), "g2": ("g1", 0.5), "g3": ("g2", 0.5)}


def test_a_client_that_came_later_or_stayed_away_has_the_same_start_as_the_others() -> None:
    assert starts(federation(), ["u1-1", "u3-1"]) == {
        "g1": ("g0", 0.0),
        "g2": ("g1", 0.5),
        "g3": ("g2", 0.5),
    }
    assert starts(federation(), ["u2-3"]) == {"g2": ("g1", 0.0), "g3": ("g2", 0.5)}


def test_no_start_is_known_of_updates_from_elsewhere_copies_and_what_a_request_made() -> None:
    graph = federation()
    graph.add(version("late", 50), [Inheritance("g1", "late", InheritanceKind.INCREMENTAL)])
    graph.add(version("g4", 51), average("g4", "u3-3", "late"))
    graph.add(version("copy", 52), average("copy", "g3"))
    graph.add(version("g2~p", 53), [Inheritance("g2", "g2~p", UNLEARNED)])
    found = starts(graph)
    assert found["g4"] == found["copy"] == found["g2~p"] == ("", 0.0)
    assert {one.start for one in find_computed(graph, CLIENT).values()} == {""}, "nobody leaves"


@given(st.data(), st.integers(1, 5), st.floats(0.5, 1))
def test_affine_rounds_come_out_as_without_the_client_whoever_took_part(
    data: st.DataObject, rounds: int, kept: float
) -> None:
    """Training is `kept * start + b`, in numbers; node 0 leaves."""
    others = st.sets(st.integers(1, 3), min_size=1)
    graph = InheritanceGraph([version("g0", 0)])
    model, expected, roots = {"g0": 1.0}, 1.0, []
    for number in range(1, rounds + 1):
        taking_part = sorted(data.draw(others) | data.draw(st.sets(st.just(0))))
        sizes = {node: data.draw(st.floats(0.1, 10)) for node in taking_part}
        moves = {node: data.draw(st.floats(-1, 1)) for node in taking_part}
        weights = {node: size / sum(sizes.values()) for node, size in sizes.items()}
        last, name = f"g{number - 1}", f"g{number}"
        edges = []
        for place, node in enumerate(taking_part, 1):
            update = f"u{number}-{node}"
            model[update] = kept * model[last] + moves[node]
            trained = Inheritance(last, update, InheritanceKind.INCREMENTAL)
            graph.add(version(update, 2 * number), [trained])
            edges.append(
                Inheritance(update, name, FEDERATED, weights[node], {}, Recipe.AVERAGE, place)
            )
        graph.add(version(name, 2 * number + 1), edges)
        model[name] = sum(weights[node] * model[f"u{number}-{node}"] for node in taking_part)
        staying = sum(weights[node] for node in taking_part if node)
        expected = kept * expected + sum(
            weights[node] / staying * moves[node] for node in taking_part if node
        )
        roots += [f"u{number}-0"] * (0 in taking_part)
    if not roots:
        return
    found = find_computed(graph, roots, roots, kept)
    new = dict(model)
    for number in range(1, rounds + 1):
        name = f"g{number}"
        if name in found:
            one = found[name]
            leaving = [part for part in one.ingredients if part.leaves]
            gone = sum(part.weight for part in leaving)
            change = one.kept * (new[one.start] - model[one.start])
            for part in leaving:
                change += part.weight / (1 - gone) * (model[name] - model[part.model])
            new[name] = model[name] + change
    assert new[f"g{rounds}"] == pytest.approx(expected, rel=1e-6, abs=1e-6)
