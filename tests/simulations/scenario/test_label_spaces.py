"""Label spaces: ranges, aliases, and which classes a model trains on."""

import pytest
import torch

from disinherit.common.errors import DataError
from disinherit.simulations.data.datasets import Dataset, load_dataset
from disinherit.simulations.scenario.label_spaces import LabelSpaces, label_spaces
from disinherit.simulations.scenario.scenarios import known_scenarios, load_scenario
from disinherit.simulations.scenario.topology import ClassChoice, Derivation, ParentEdge, Topology

DIGITS = load_dataset("digits")


def spaces_of(*derivations: Derivation, **aliases: str) -> LabelSpaces:
    topology = Topology("t", derivations, (derivations[0].id,), aliases)
    return label_spaces(topology, DIGITS)


@pytest.mark.parametrize(
    ("choice", "labels"),
    [
        (None, "0123456789"),
        ("0-50%", "01234"),
        ("50-100%", "56789"),
        ("0-25%", "012"),
        ("25 - 100 %", "3456789"),
        (("7", "2"), "72"),
    ],
)
def test_a_choice_of_classes(choice: ClassChoice, labels: str) -> None:
    assert spaces_of(Derivation("a", classes=choice)).labels["a"] == tuple(labels)


@pytest.mark.parametrize("count", range(2, 30))
def test_ranges_that_touch_share_no_class_and_leave_none_out(count: int) -> None:
    names = tuple(f"class {i}" for i in range(count))
    data = Dataset("d", torch.zeros(count, 1, 1, 1), torch.arange(count), names)
    choices = ("0-35%", "35-60%", "60-100%")
    found: list[str] = []
    for choice in choices:
        topology = Topology("t", (Derivation("a", data=choice),), ("a",))
        try:
            found += label_spaces(topology, data).held["a"]
        except DataError:
            continue  # too few classes for this range to have one
    assert tuple(found) == names


def test_what_a_model_trains_on_is_what_it_holds_and_what_entered_above_it() -> None:
    spaces = spaces_of(
        Derivation("a", classes="0-50%", data=("0", "three")),
        Derivation("b", (ParentEdge("a"),), data=("3", "7")),
        three="3",
    )
    assert spaces.held == {"a": ("0", "3"), "b": ("3", "7")}
    forget = {"b": ("3",)}
    assert spaces.never_trained("a", forget) == tuple("123456789")
    assert spaces.never_trained("b", forget) == tuple("01245689")
    assert spaces.left_out("b", forget) == tuple("012345689")


def test_a_class_that_changes_its_name_is_mapped_on_the_edge() -> None:
    child = Derivation("b", (ParentEdge("a"),), classes=("three", "0"))
    spaces = spaces_of(Derivation("a", classes=("3", "0", "1")), child, three="3")
    assert [dict(edge.labels) for edge in spaces.edges(child)] == [{"3": "three"}]
    assert spaces.label_of("b", "3") == "three"
    assert spaces.label_of("b", "1") is None
    assert spaces.sensitive({"b": ("three",)}) == {"b": ("3",)}


@pytest.mark.parametrize(
    ("derivation", "message"),
    [
        (Derivation("a", classes=("0",)), "two or more distinct classes of model 'a'"),
        (Derivation("a", classes=("0", "0")), "two or more distinct"),
        (Derivation("a", classes=("three", "3")), "two or more distinct"),
        (Derivation("a", classes=("0", "cat")), "'cat'"),
        (Derivation("a", classes="60-40%"), "range such as '0-60%', but got '60-40%'"),
        (Derivation("a", classes="0-101%"), "'0-101%'"),
        (Derivation("a", classes="half"), "'half'"),
        (Derivation("a", data="1-4%"), "none. Choose a wider range"),
        (Derivation("a", classes=("0", "1"), data=("2",)), r"but got \['2'\] too"),
        (Derivation("a", data=()), "data of model 'a', but got no class"),
    ],
)
def test_classes_that_do_not_fit_are_refused(derivation: Derivation, message: str) -> None:
    with pytest.raises(DataError, match=message):
        spaces_of(derivation, three="3")


def test_an_alias_that_names_another_class_is_refused() -> None:
    with pytest.raises(DataError, match="alias that is no class .*'4'"):
        spaces_of(Derivation("a"), **{"4": "3"})
    with pytest.raises(DataError, match="'cat'"):
        spaces_of(Derivation("a"), three="cat")


@pytest.mark.parametrize("name", known_scenarios())
@pytest.mark.parametrize("count", [4, 10, 100])
def test_the_embedded_scenarios_fit_data_sets_of_few_and_many_classes(
    name: str, count: int
) -> None:
    names = tuple(f"class {i}" for i in range(count))
    data = Dataset("d", torch.zeros(count, 1, 1, 1), torch.arange(count), names)
    spaces = label_spaces(load_scenario(name), data)
    assert all(len(labels) >= 2 for labels in spaces.labels.values())
    assert all("class 0" in spaces.held[root] for root in spaces.topology.roots)
