"""Computations found by name, and what they are given."""

from importlib.metadata import EntryPoint, entry_points

import pytest
import torch

from disinherit.common.errors import CheckpointError, GraphError, InputError
from disinherit.common.graph.recipes import Recipe, as_recipe
from disinherit.common.recipes import computing
from disinherit.common.recipes.computing import Parent, compute, flag, numbers, recipes

WEIGHTS = {"w": torch.tensor([1.0, 2.0])}


def test_computations_are_entry_points() -> None:
    named = ["average", "fold", "int8", "linear", "nf4", "q4_0", "q8_0", "task_arithmetic", "ties"]
    assert recipes() == named
    for point in entry_points(group=computing.GROUP):
        assert callable(point.load())


def test_another_package_adds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", f"{__name__}:doubled", computing.GROUP)
    monkeypatch.setattr(computing, "installed", lambda group: {"mine": point})
    made = compute(Recipe("mine"), [Parent(lambda: WEIGHTS, 1.0)], WEIGHTS)
    assert torch.equal(made["w"], torch.tensor([2.0, 4.0]))


def doubled(recipe: object, parents: list[Parent], like: object) -> dict[str, torch.Tensor]:
    return {name: value * 2 for name, value in parents[0].load().items()}


def test_unknown_recipes_are_named_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match="among average, .*, but got 'slerp'"):
        compute(Recipe("slerp"), [], {})


def test_a_version_with_other_tensors_is_refused() -> None:
    with pytest.raises(CheckpointError, match="makes others: 'w'"):
        compute(Recipe.AVERAGE, [Parent(lambda: WEIGHTS, 1.0)], {})


@pytest.mark.parametrize("text", ["average", "ties density=0.2,0.9 lambda=1.5 weights=1,-0.25"])
def test_texts_of_recipes_are_read_back(text: str) -> None:
    assert str(as_recipe(text)) == text
    assert as_recipe(text) == as_recipe(text)


@pytest.mark.parametrize(
    "text", ["", "Ties", "a b", "a b=", "a =1", "a b=1 b=2", "a  b=1", "a b=c\nd", "a" * 65]
)
def test_malformed_recipes_are_refused(text: str) -> None:
    with pytest.raises(GraphError, match="Expected"):
        as_recipe(text)


@pytest.mark.parametrize("text", ["", "1,", "1,2,3", "x"])
def test_numbers_that_do_not_fit_are_refused(text: str) -> None:
    recipe = Recipe("ties", {"weights": text} if text else {})
    with pytest.raises(InputError, match="Expected weights of recipe 'ties' as 2 numbers"):
        numbers(recipe, "weights", 2)


def test_flags_are_true_or_false() -> None:
    assert flag(Recipe("linear", {"normalize": "false"}), "normalize", True) is False
    with pytest.raises(InputError, match="true or false, but got 'yes'"):
        flag(Recipe("linear", {"normalize": "yes"}), "normalize", True)
