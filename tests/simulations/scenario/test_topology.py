"""Topologies: levels, descendants, and which model learns which class."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import GraphError
from disinherit.common.graph.records import InheritanceKind
from disinherit.simulations.scenario.scenarios import FEDERATED
from disinherit.simulations.scenario.topology import Derivation, ParentEdge, Topology, model_seed

UNLEARNED, TRANSFER = InheritanceKind.UNLEARNED, InheritanceKind.TRANSFER


def derived(model: str, *parents: str) -> Derivation:
    return Derivation(model, tuple(map(ParentEdge, parents)))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Up to eight models, each derived from any of the earlier ones."""
    derivations: list[Derivation] = []
    for index in range(draw(st.integers(1, 8))):
        earlier = [d.id for d in derivations]
        parents = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        derivations.append(derived(f"m{index}", *parents))
    return Topology("drawn", tuple(derivations), ("m0",))


def is_ancestor(topology: Topology, root: str, model: str) -> bool:
    """Walk up from the model: an oracle that goes the other way round."""
    parents = next(d.parents for d in topology.derivations if d.id == model)
    return model == root or any(is_ancestor(topology, root, parent) for parent in parents)


@given(topologies())
def test_generations_hold_every_model_once_after_its_parents(topology: Topology) -> None:
    done: set[str] = set()
    for generation in topology.generations():
        assert generation
        assert all(done.issuperset(d.parents) for d in generation)
        assert done.isdisjoint(d.id for d in generation)
        done.update(d.id for d in generation)
    assert done == set(topology.ids)


@given(topologies(), st.data())
def test_descendants_are_the_models_with_the_root_among_their_ancestors(
    topology: Topology, data: st.DataObject
) -> None:
    root = data.draw(st.sampled_from(topology.ids))
    found = topology.descendants(root)
    assert found == {m for m in topology.ids if is_ancestor(topology, root, m)}


@given(topologies(), st.data())
def test_a_class_is_learned_by_its_root_and_descendants_only(
    topology: Topology, data: st.DataObject
) -> None:
    roots = data.draw(st.lists(st.sampled_from(topology.ids), unique=True, min_size=1))
    forget = {root: [f"class of {root}"] for root in roots}
    for model in topology.ids:
        missing = {f"class of {r}" for r in roots if not is_ancestor(topology, r, model)}
        assert set(topology.never_learned(model, forget)) == missing


@given(topologies())
def test_weights_of_the_edges_to_a_model_sum_to_one(topology: Topology) -> None:
    for derivation in topology.derivations:
        edges = topology.edges(derivation)
        assert [edge.parent for edge in edges] == list(derivation.parents)
        assert {edge.child for edge in edges} <= {derivation.id}
        assert not edges or sum(edge.weight for edge in edges) == pytest.approx(1)


def test_the_federated_setting_is_the_papers() -> None:
    parents = {d.id: set(d.parents) for d in FEDERATED.derivations}
    assert parents == {
        "d": set(),
        "s": set(),
        "r1": {"d", "s"},
        "r2": {"r1"},
        "r3": {"d", "r2"},
        "r4": {"r1", "r2"},
        "r6": {"s", "r3"},
    }
    assert FEDERATED.descendants("r1") == {"r1", "r2", "r3", "r4", "r6"}


@pytest.mark.parametrize("owners", [1, 2, 3, 7, 10])
def test_models_are_dealt_to_owners_in_turn(owners: int) -> None:
    held = [FEDERATED.owner_of(model, owners) for model in FEDERATED.ids]
    counts = [held.count(owner) for owner in range(owners)]
    assert sum(counts) == 7
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("derivations", "root", "message"),
    [
        ((derived("a"), derived("a")), "a", "'a' twice"),
        ((derived("b", "a"), derived("a")), "a", "parents of 'b' before it"),
        ((derived("a", "a"),), "a", "parents of 'a' before it"),
        ((derived("a"),), "r", "a model as the root, but got 'r'"),
        ((derived("a"), derived("b", "a", "a")), "a", "every parent of 'b' once"),
        ((derived("a~b"),), "a~b", "without '~'"),
        ((derived("a b"),), "a b", "well-formed model id"),
        ((Derivation("a", owner=-1),), "a", "owner of 'a' to be 0 or more, but got -1"),
        ((Derivation("a", trains="head"),), "a", "parent of 'a', whose features"),
        ((Derivation("a", new_head=True),), "a", "parent of 'a', whose features"),
        (
            (derived("a"), Derivation("b", (ParentEdge("a", weight=0),))),
            "a",
            "weight > 0 from 'a' to",
        ),
        (
            (derived("a"), Derivation("b", (ParentEdge("a", UNLEARNED),))),
            "a",
            "only a campaign makes",
        ),
        (
            (
                derived("a"),
                derived("b"),
                Derivation("c", (ParentEdge("a"), ParentEdge("b", TRANSFER))),
            ),
            "a",
            "either federated and distributed parents of 'c'",
        ),
    ],
)
def test_a_topology_that_cannot_be_trained_is_refused(
    derivations: tuple[Derivation, ...], root: str, message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        Topology("bad", derivations, (root,))


def test_seeds_differ_between_models_and_runs_and_stay_the_same_everywhere() -> None:
    seeds = {model_seed(seed, model) for seed in range(20) for model in FEDERATED.ids}
    assert len(seeds) == 20 * 7
    assert model_seed(0, "r1") == 2930326830
