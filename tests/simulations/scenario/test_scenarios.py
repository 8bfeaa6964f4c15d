"""Scenario files: the embedded settings, what a user may write, and what is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disinherit.common.errors import GraphError, InputError
from disinherit.common.graph.records import InheritanceKind
from disinherit.simulations.data.datasets import load_dataset
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.scenarios import (
    known_scenarios,
    load_scenario,
    topology_from_dict,
    topology_to_dict,
)
from disinherit.simulations.scenario.topology import Derivation, ParentEdge, Topology

DIGITS = load_dataset("digits")
KINDS = [kind for kind in InheritanceKind if kind is not InheritanceKind.UNLEARNED]


def test_the_papers_four_settings_are_embedded() -> None:
    assert {"federated", "distributed", "incremental", "transfer"} <= set(known_scenarios())


@pytest.mark.parametrize("name", [*known_scenarios(), "chain-50", "fan-out-30"])
def test_an_embedded_scenario_fits_a_data_set_and_survives_json(name: str) -> None:
    topology = load_scenario(name)
    assert topology.name == name
    spaces = label_spaces(topology, DIGITS)
    assert set(spaces.labels) == set(topology.ids)
    values = json.loads(json.dumps(topology_to_dict(topology)))
    assert topology_from_dict(values) == topology


def test_the_three_roots_have_descendants_of_one_two_and_all_of_them() -> None:
    topology = load_scenario("federated-three-roots")
    above = {
        model: {r for r in topology.roots if model in topology.descendants(r)}
        for model in topology.ids
    }
    assert above["x1"] == {"r1"}
    assert above["x12"] == {"r1", "r2"}
    assert above["x123"] == {"r1", "r2", "r3"}
    assert above["d"] == set()


def test_a_chain_is_as_deep_and_a_fan_out_as_wide_as_its_number() -> None:
    assert len(list(load_scenario("chain-50").generations())) == 51
    levels = list(load_scenario("fan-out-7").generations())
    assert [len(level) for level in levels] == [1, 7]


def test_the_distributed_setting_goes_both_ways() -> None:
    forward, back = load_scenario("distributed"), load_scenario("distributed-back")
    assert forward.derivations == back.derivations
    assert forward.descendants("w1") == {"w1", "u0", "v1", "v2", "v3"}
    assert back.roots == ("u0",)


FULL = """
kind = "incremental"
roots = ["a", "b"]
edges = [
  "a -> c",
  { edge = "a, b -> d", kind = "federated", weights = [3, 1] },
]
aliases = { three = "3" }

[models]
e = { owner = 2, classes = [0, "1", "three"], data = ["three"] }
c = { classes = "0-50%", train = "head", head = "new" }
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_everything_a_file_can_say(tmp_path: Path) -> None:
    topology = load_scenario(write(tmp_path, FULL))
    federated, incremental = InheritanceKind.FEDERATED, InheritanceKind.INCREMENTAL
    assert topology == Topology(
        "mine",
        (
            Derivation("e", classes=("0", "1", "three"), data=("three",), owner=2),
            Derivation("a"),
            Derivation(
                "c", (ParentEdge("a", incremental),), classes="0-50%", trains="head", new_head=True
            ),
            Derivation("b"),
            Derivation("d", (ParentEdge("a", federated, 3.0), ParentEdge("b", federated, 1.0))),
        ),
        ("a", "b"),
        {"three": "3"},
    )
    assert topology.derivations[4].shares == {"a": 0.75, "b": 0.25}


def test_children_may_be_written_before_their_parents(tmp_path: Path) -> None:
    text = 'roots = ["a"]\nedges = ["b -> c", "a -> b"]'
    assert load_scenario(write(tmp_path, text)).ids == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("roots = [", "TOML in scenario"),
        ('edges = ["a -> b"]', "root in scenario 'mine', but got none"),
        ('roots = ["r"]\nedges = ["a -> b"]', "as the root, but got 'r'"),
        ('roots = ["a"]\nedges = ["a - b"]', r"edges\[0\] to read 'parent, parent -> child'"),
        ('roots = ["a"]\nedges = ["a -> b -> c"]', "'a -> b -> c'"),
        ('roots = ["a"]\nedges = [" -> b"]', "' -> b'"),
        ('roots = ["a"]\nedges = ["a -> b", "b -> a"]', "a, b derive from each other"),
        ('roots = ["a"]\nedges = ["a -> b", "a -> b"]', "every parent of 'b' once"),
        ('roots = ["a"]\nedges = "a -> b"', "a list as edges in .*, but got 'a -> b'"),
        ('roots = ["a"]\nkind = "copied"\nedges = ["a -> b"]', "'copied'"),
        ('roots = ["a"]\nedge = ["a -> b"]', "in the scenario, but got edge"),
        ('roots = ["a"]\nedges = [{ edge = "a -> b", weights = [1, 2] }]', "1 numbers as weights"),
        (
            'roots = ["a"]\nedges = [{ edge = "a -> b", weights = ["x"] }]',
            r"a number as edges\[0\]\.weights\[0\]",
        ),
        ('roots = ["a"]\nedges = [{ edge = "a -> b", weights = [0] }]', "weight > 0 from 'a' to"),
        (
            'roots = ["a"]\n[models]\na = { trains = "head" }',
            r"train, head.* but got models\.a\.trains",
        ),
        ('roots = ["b"]\nedges = ["a -> b"]\n[models]\nb = { train = "x" }', "got 'x'"),
        ('roots = ["b"]\nedges = ["a -> b"]\n[models]\nb = { head = "old" }', "got 'old'"),
        ('roots = ["a"]\n[models]\na = { owner = "me" }', r"a whole number as models\.a\.owner"),
        (
            'roots = ["a"]\n[models]\na = { classes = [1.5] }',
            r"models\.a\.classes\[0\] in .* but got 1\.5",
        ),
        ('roots = ["a"]\n[models]\na = 3', r"a table as models\.a in"),
        ('roots = ["a"]\naliases = { x = 3 }\n[models]\na = {}', r"text as aliases\.x in"),
    ],
)
def test_what_makes_no_sense_is_one_line_that_names_it(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_scenario(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "mine" in str(caught.value)


@pytest.mark.parametrize("name", ["federate", "chain-0", "chain-1000", "chain-", "", "x.txt"])
def test_an_unknown_name_lists_what_there_is(name: str) -> None:
    with pytest.raises(InputError, match=r"federated.*chain-N.*\.toml"):
        load_scenario(name)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        load_scenario("nowhere.toml")


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Any topology a file could describe, of up to six models."""
    derivations: list[Derivation] = []
    for index in range(draw(st.integers(1, 6))):
        earlier = [d.id for d in derivations]
        parents = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        merges = draw(st.booleans())
        kinds = [kind for kind in KINDS if kind.merges is merges]
        links = tuple(
            ParentEdge(p, draw(st.sampled_from(kinds)), draw(st.floats(0.1, 10))) for p in parents
        )
        choices = st.none() | st.just("0-50%") | st.just(("1", "2"))
        derivations.append(
            Derivation(
                f"m{index}",
                links,
                draw(choices),
                draw(choices),
                draw(st.sampled_from(["all", "head"])) if links else "all",
                draw(st.booleans()) if links else False,
                draw(st.none() | st.integers(0, 3)),
            )
        )
    return Topology("drawn", tuple(derivations), ("m0",), {"one": "1"})


@given(topologies())
def test_every_topology_survives_the_form_of_a_file(topology: Topology) -> None:
    again = topology_from_dict(json.loads(json.dumps(topology_to_dict(topology))))
    assert again == topology


@pytest.mark.parametrize("values", [{"models": []}, {"edges": [3]}, {"roots": "a"}, {"name": 3}])
def test_values_of_another_type_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match="Expected"):
        topology_from_dict(values)
