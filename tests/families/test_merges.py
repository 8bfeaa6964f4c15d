"""What a config of mergekit says: parents, shares to first order, and the recipe."""

from typing import Any

import pytest
import torch

from disinherit.common.errors import DataError
from disinherit.families.evidence import Kind, Relation
from disinherit.families.merges import LEAST_SHARE, claims_of_merge


def model(name: Any, **parameters: Any) -> dict[str, Any]:
    return {"model": name, "parameters": parameters}


def said(config: dict[str, Any]) -> tuple[dict[str, float | None], list[Kind]]:
    claims, findings = claims_of_merge("m", config)
    return {claim.parent: claim.share for claim in claims}, [one.kind for one in findings]


TWO = [model("a", weight=3), model("b", weight=1)]


@pytest.mark.parametrize(
    ("config", "shares", "kinds"),
    [
        ({"merge_method": "linear", "models": TWO}, {"a": 0.75, "b": 0.25}, []),
        (
            {"merge_method": "linear", "models": [model("a", weight=-1), model("b", weight=3)]},
            {"a": 0.5, "b": 0.5},
            [Kind.SHARES],
        ),
        (
            {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]},
            {"a": 0.5, "b": 0.5},
            [Kind.SHARES],
        ),
        (
            {
                "merge_method": "linear",
                "models": [{"model": "a"}, {"model": "b"}],
                "parameters": {"weight": 1.0},
            },
            {"a": 0.5, "b": 0.5},
            [],
        ),
        (
            {"merge_method": "task_arithmetic", "base_model": "c", "models": TWO}
            | {"parameters": {"normalize": True}},
            {"c": LEAST_SHARE, "a": 0.75, "b": 0.25},
            [],
        ),
        (
            {
                "merge_method": "task_arithmetic",
                "base_model": "c",
                "models": [{"model": "c"}, model("a", weight=0.3), model("b", weight=0.2)],
            },
            {"c": 0.5, "a": 0.3, "b": 0.2},
            [],
        ),
        (
            {
                "merge_method": "ties",
                "base_model": "c",
                "models": [model("a", weight=1, density=0.5), model("b", weight=1, density=0.5)],
            },
            {"c": 0.5, "a": 0.25, "b": 0.25},
            [],
        ),
        (
            {"merge_method": "task_arithmetic", "base_model": "c", "models": TWO},
            {"c": 1 / 3, "a": 1 / 3, "b": 1 / 3},
            [Kind.SHARES],
        ),
        (
            {"merge_method": "linear", "models": [model("a", weight=1), model("b", weight=0.0)]},
            {"a": 1, "b": LEAST_SHARE},
            [],
        ),
        (
            {"merge_method": "slerp", "base_model": "a", "models": TWO, "parameters": {"t": 0.25}},
            {"a": 0.75, "b": 0.25},
            [],
        ),
        (
            {
                "merge_method": "slerp",
                "base_model": "a",
                "models": TWO,
                "parameters": {"t": [{"filter": "attn", "value": [0, 1]}, {"value": 0.5}]},
            },
            {"a": 0.5, "b": 0.5},
            [Kind.SHARES],
        ),
        (
            {"merge_method": "model_stock", "base_model": "c", "models": TWO},
            {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3},
            [Kind.SHARES],
        ),
        (
            {"merge_method": "linear", "models": [model("a", weight=float("nan")), TWO[1]]},
            {"a": 0.5, "b": 0.5},
            [Kind.SHARES],
        ),
    ],
)
def test_shares_are_those_of_the_method(
    config: dict[str, Any], shares: dict[str, float], kinds: list[Kind]
) -> None:
    found, listed = said(config)
    assert found == pytest.approx(shares)
    assert list(found) == list(shares)
    assert listed == kinds


def test_shares_of_ties_are_near_its_derivative() -> None:
    """A naive TIES in float64, changed a little at one parent; density 1 and equal signs."""
    torch.manual_seed(0)
    base = torch.zeros(1000, dtype=torch.float64)
    parents = {name: torch.rand(1000, dtype=torch.float64) for name in "ab"}

    def ties(parts: dict[str, torch.Tensor]) -> torch.Tensor:
        return base + (3 * (parts["a"] - base) + (parts["b"] - base)) / 4

    config = {"merge_method": "ties", "base_model": "c", "models": TWO}
    shares, _ = said(config)
    for name in "ab":
        changed = parents | {name: parents[name] + 1e-3}
        moved = ((ties(changed) - ties(parents)) / 1e-3).mean().item()
        assert shares[name] == pytest.approx(moved)


@pytest.mark.parametrize(
    ("config", "names", "what"),
    [
        (
            {"merge_method": "passthrough", "models": [model("a"), model("b")]},
            ["a", "b"],
            "stacked",
        ),
        (
            {
                "merge_method": "passthrough",
                "slices": [
                    {"sources": [{"model": "a", "layer_range": [0, 2]}]},
                    {"sources": [{"model": "b", "layer_range": [1, 3]}]},
                    {"sources": [{"model": "a", "layer_range": [2, 4]}]},
                ],
            },
            ["a", "b"],
            "stacked",
        ),
        (
            {"base_model": "c", "experts": [{"source_model": "a"}, {"source_model": "b"}]},
            ["a", "b", "c"],
            "mixture of experts",
        ),
        (
            {"merge_method": "linear", "models": [model("a+lora", weight=1), model("b", weight=1)]},
            ["a", "b", "lora"],
            "adapters",
        ),
        (
            {
                "merge_method": "slerp",
                "modules": {"text": {"models": [model("a"), model("b")]}},
            },
            ["a", "b"],
            "slices",
        ),
    ],
)
def test_a_merge_that_is_a_composition_is_listed(
    config: dict[str, Any], names: list[str], what: str
) -> None:
    claims, (finding,) = claims_of_merge("m", config)
    assert [claim.parent for claim in claims] == names
    assert {claim.relation for claim in claims} == {Relation.COMPOSITION}
    assert {claim.share for claim in claims} == {None}
    assert finding.kind is Kind.COMPOSITION
    assert what in finding.text


@pytest.mark.parametrize(
    "reference",
    [
        "a/b@0123abc",
        {"model": {"path": "a/b", "revision": "0123abc"}},
        {"path": "a/b", "revision": "0123abc"},
    ],
)
def test_a_revision_is_read(reference: Any) -> None:
    config = {"merge_method": "linear", "models": [model(reference, weight=1)]}
    ((claim,), _) = claims_of_merge("m", config)
    assert (claim.parent, claim.revision) == ("a/b", "0123abc")


TIES = {"merge_method": "ties", "base_model": "c", "models": TWO}
SPARSE = [model("a", weight=1, density=0.5), model("b", weight=0.5)]


@pytest.mark.parametrize(
    ("config", "recipe"),
    [
        (TIES, "ties weights=3.0,1.0"),
        (TIES | {"models": SPARSE}, "ties density=0.5,1.0 weights=1.0,0.5"),
        (
            TIES | {"dtype": "bfloat16", "parameters": {"normalize": False, "lambda": 0.5}},
            "ties dtype=bfloat16 lambda=0.5 normalize=false weights=3.0,1.0",
        ),
        (
            TIES | {"parameters": {"int8_mask": True, "density": 0.2}},
            "ties density=0.2,0.2 weights=3.0,1.0",
        ),
        (TIES | {"merge_method": "task_arithmetic"}, "task_arithmetic weights=3.0,1.0"),
        ({"merge_method": "linear", "models": TWO}, "linear weights=3.0,1.0"),
        ({"merge_method": "linear", "models": [{"model": "a"}, TWO[1]]}, None),
        (TIES | {"merge_method": "dare_ties"}, None),
        (TIES | {"tokenizer_source": "union"}, None),
        (TIES | {"parameters": {"rescale": True}}, None),
        (TIES | {"parameters": {"gamma": 1}}, None),
        (TIES | {"models": [model("a", weight=[0, 1]), model("b", weight=1)]}, None),
        (TIES | {"models": [model("a", weight=[{"filter": "x", "value": 1}]), TWO[1]]}, None),
        (TIES | {"base_model": None}, None),
    ],
)
def test_a_recipe_is_recorded_where_the_config_tells_it_fully(
    config: dict[str, Any], recipe: str | None
) -> None:
    claims, _ = claims_of_merge("m", config)
    assert {claim.recipe and str(claim.recipe) for claim in claims} == {recipe}
    if recipe and "base_model" in config:
        assert [claim.parent for claim in claims] == ["c", "a", "b"]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"merge_method": "linear"},
        {"merge_method": "linear", "models": []},
        {"merge_method": "linear", "models": "a"},
        {"merge_method": "linear", "models": [{"parameters": {}}]},
        {"merge_method": "linear", "models": [model("a\x1bb")]},
        {"merge_method": "linear", "models": [model(7)] * 20_000},
        {"merge_method": "passthrough", "slices": [[[[]]]]},
    ],
)
def test_a_malformed_config_is_one_line(config: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="Expected"):
        claims_of_merge("m", config)


def test_the_same_model_twice_is_a_conflict_and_a_parent_without_a_share() -> None:
    shares, kinds = said({"merge_method": "linear", "models": [*TWO, TWO[0]]})
    assert (shares, kinds) == ({"a": None, "b": None}, [Kind.CONFLICT])


def test_a_path_with_pluses_is_no_adapter() -> None:
    models = [model("/home/u/c++/a", weight=1), model("b", weight=1)]
    assert said({"merge_method": "linear", "models": models}) == (
        {"/home/u/c++/a": 0.5, "b": 0.5},
        [],
    )
