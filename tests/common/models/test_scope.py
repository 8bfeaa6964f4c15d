import time

import pytest
import torch
from torch import nn

from disinherit.common.errors import ScopeError
from disinherit.common.limits import GLOBS
from disinherit.common.models.heads import Head, HeadLayer
from disinherit.common.models.scope import architecture_fingerprint, resolve_scope

HEAD = Head((HeadLayer("3", "3.weight", "3.bias"),))


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embed.weight


class WithIntegers(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)
        self.steps = nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("head", ("3.weight", "3.bias")),
        (" head ", ("3.weight", "3.bias")),
        ("all", ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")),
        ("3.*", ("3.weight", "3.bias")),
        ("*.bias", ("0.bias", "1.bias", "3.bias")),
        ("3.bias, 0.*", ("0.weight", "0.bias", "3.bias")),
        ("3.bias,*.bias", ("0.bias", "1.bias", "3.bias")),
        ("[01].weight", ("0.weight", "1.weight")),
    ],
)
def test_scopes(scope: str, expected: tuple[str, ...]) -> None:
    assert resolve_scope(network(), scope, HEAD) == expected


def test_literal_names_are_no_globs_and_not_bounded() -> None:
    """A model may have more parameters than a request may name globs, and names like globs."""
    model = nn.ModuleDict({f"layer[{i}]": nn.Linear(1, 1) for i in range(120)})
    names = [name for name, _ in model.named_parameters()]
    assert resolve_scope(model, names) == tuple(names)
    assert resolve_scope(model, names[:1:-1]) == tuple(names[2:])
    with pytest.raises(ScopeError, match=r"unknown \['layer\*'\]"):
        resolve_scope(model, ["layer*"])


def test_frozen_parameters_belong_to_a_scope() -> None:
    model = network().requires_grad_(False)
    for scope in ("head", "all", "*"):
        assert resolve_scope(model, scope, HEAD) == resolve_scope(network(), scope, HEAD)


def test_a_tied_parameter_appears_once_by_any_of_its_names() -> None:
    assert resolve_scope(Tied(), "all") == ("embed.weight", "head.bias")
    head = Head((HeadLayer("head", "embed.weight", "head.bias"),))
    assert resolve_scope(Tied(), "head", head) == ("embed.weight", "head.bias")
    assert resolve_scope(Tied(), "head.weight") == ("embed.weight",)


def test_integer_parameters_have_no_gradient_and_are_left_out() -> None:
    assert resolve_scope(WithIntegers(), "all") == ("weight", "bias")
    assert resolve_scope(WithIntegers(), "*s") == ("bias",)
    with pytest.raises(ScopeError, match="'steps' matches none"):
        resolve_scope(WithIntegers(), "steps")


def test_a_glob_without_match_lists_close_names() -> None:
    with pytest.raises(ScopeError, match=r"'3\.wieght' matches none; close names: \['3\.weight'"):
        resolve_scope(network(), "3.bias,3.wieght")


def test_scope_head_needs_a_head() -> None:
    with pytest.raises(ScopeError, match="head that a forward pass found"):
        resolve_scope(network(), "head")


def test_a_glob_without_close_names_lists_existing_ones() -> None:
    with pytest.raises(ScopeError, match=r"'zzz' matches none; the model has \['weight', 'bias'\]"):
        resolve_scope(nn.Linear(2, 2), "zzz")
    deep = nn.Sequential(*[nn.Linear(1, 1) for _ in range(5)])
    with pytest.raises(ScopeError, match="and 2 more"):
        resolve_scope(deep, "zzz")


@pytest.mark.parametrize("scope", ["", "3.*,", ","])
def test_an_empty_glob_is_an_error(scope: str) -> None:
    with pytest.raises(ScopeError, match="'' matches none"):
        resolve_scope(network(), scope)


def test_a_model_without_parameters_is_an_error() -> None:
    with pytest.raises(ScopeError, match="ReLU without any"):
        resolve_scope(nn.ReLU(), "all")


@pytest.mark.parametrize("scope", ["head", "all", "*"])
def test_parameters_without_a_shape_are_an_error(scope: str) -> None:
    with pytest.raises(ScopeError, match=r"uninitialized \['weight', 'bias'\]"):
        resolve_scope(nn.LazyLinear(3), scope)


def test_the_fingerprint_ignores_values_and_order() -> None:
    state = network().state_dict()
    shuffled = dict(reversed([(name, torch.zeros_like(value)) for name, value in state.items()]))
    assert architecture_fingerprint(state) == architecture_fingerprint(shuffled)
    assert len(architecture_fingerprint(state)) == 64


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(6)},
        {"a": torch.zeros(2, 3, dtype=torch.float64)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(())},
        {},
    ],
)
def test_the_fingerprint_tells_architectures_apart(other: dict[str, torch.Tensor]) -> None:
    assert architecture_fingerprint({"a": torch.zeros(2, 3)}) != architecture_fingerprint(other)


def test_a_scope_is_bounded_and_matched_fast() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(1000)))
    globs = ",".join(f"*[w{chr(0x4E00 + number)}]*" for number in range(GLOBS.most))
    started = time.process_time()
    assert len(resolve_scope(model, globs)) == 1000
    assert time.process_time() - started < 5
    assert resolve_scope(model, ",".join(["0.*"] * 1000)) == ("0.weight", "0.bias")
    with pytest.raises(ScopeError, match="a scope to have at most 100 globs, but got 101"):
        resolve_scope(model, ",".join(f"{number}.*" for number in range(GLOBS.most + 1)))
    with pytest.raises(ScopeError, match="a scope to have at most 4,096 characters"):
        resolve_scope(model, "x" * 3_000_000)
    with pytest.raises(ScopeError, match="a glob of a scope to have at most 256 characters"):
        resolve_scope(model, "x" * 257)
    worst = "*a" * 100 + "b"
    deep = nn.ModuleDict({"a" * 200: nn.Linear(1, 1)})
    with pytest.raises(ScopeError, match="match"):
        resolve_scope(deep, worst)
