"""Large embedding tables, of which a backward pass gives the rows that were looked up."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

from disinherit.common.errors import FisherError
from disinherit.common.fisher import gradients, sums
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.fisher.methods import SamplesMethod
from tests.support.fisher_cases import CLASSES, all_sums, oracle

ROWS, WIDTH = 50, 6
TOKENS = torch.tensor([[3, 3, 0, 7], [1, 2, 3, 4], [49, 0, 0, 0], [5, 6, 5, 6], [9, 9, 9, 9]])
TARGETS = torch.tensor([0, 1, 1, 3, 0])


class Reader(nn.Module):
    """Tokens looked up once."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.embed = nn.Embedding(ROWS, WIDTH, **options)  # type: ignore[arg-type]
        self.mix = nn.Bilinear(WIDTH, WIDTH, 4)
        self.head = nn.Linear(4, CLASSES)

    def words(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.embed(tokens)
        return found

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.words(tokens)
        made: Tensor = self.head(torch.tanh(self.mix(words, words.roll(1, 1))).sum(1))
        return made


class Twice(Reader):
    """Tokens looked up twice."""

    def words(self, tokens: Tensor) -> Tensor:
        return super().words(tokens) * super().words(tokens.flip(1))


class Tied(Reader):
    """A table that is a matrix, too."""

    def words(self, tokens: Tensor) -> Tensor:
        words = super().words(tokens)
        return words + (words @ self.embed.weight.T).softmax(2) @ self.embed.weight


class Tanh(nn.Module):
    """What a table is computed from; its gradient is of whole tensors only."""

    def forward(self, values: Tensor) -> Tensor:
        return torch.tanh(values)


class Computing(nn.Embedding):
    """A table that computes its rows itself."""

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, torch.tanh(self.weight), sparse=self.sparse)


class Substituted(Reader):
    """A table whose rows are put in its place for one call."""

    def words(self, tokens: Tensor) -> Tensor:
        rows = {"weight": torch.tanh(self.embed.weight)}
        found: Tensor = functional_call(self.embed, rows, (tokens,))
        return found


class Asking(Reader):
    """A lookup of its own, as its table does it."""

    def words(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, torch.tanh(self.embed.weight), sparse=self.embed.sparse)


def changed(change: Callable[[Reader], object]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = Reader()
        change(model)
        return model

    return make


def without_first(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    gradient[:3] = 0
    return gradient


MODELS: list[tuple[Callable[[], nn.Module], bool]] = [
    (Reader, True),
    (lambda: Reader(padding_idx=0), True),
    (Twice, True),
    (Tied, False),
    (lambda: Reader(scale_grad_by_freq=True), False),
    (changed(lambda model: setattr(model, "embed", Computing(ROWS, WIDTH))), False),
    (Substituted, False),
    (Asking, False),
]
COMPUTED: list[Callable[[nn.Module], object]] = [
    weight_norm,
    lambda table: register_parametrization(table, "weight", Tanh()),
]


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each gradient of a table came with all of its rows; tables of any size are large."""
    seen: list[bool] = []
    add = sums.Sums.add_sample

    def noted(self: sums.Sums, name: str, batch: object, gradient: Tensor, *rest: object) -> None:
        if name == "embed.weight":
            seen.append(not gradient.is_sparse)
        add(self, name, batch, gradient, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SamplesMethod, "_vmapped", None)
    monkeypatch.setattr("disinherit.common.fisher.methods.MOST_ELEMENTS", 8)
    monkeypatch.setattr(gradients, "_LARGE_TABLE", ROWS * WIDTH)
    monkeypatch.setattr(sums, "_LARGE", 4)
    monkeypatch.setattr(sums.Sums, "add_sample", noted)
    return seen


@pytest.mark.parametrize(("make", "sparse"), MODELS)
def test_sums_are_those_of_whole_gradients(
    make: Callable[[], nn.Module], sparse: bool, dense: list[bool]
) -> None:
    model = make().double()
    expected = oracle(model, TOKENS, TARGETS)
    found = fisher_diagonal(model, [(TOKENS, TARGETS)], scope="all", per_class=True)
    assert all_sums(found).keys() == expected.keys()
    for name, value in all_sums(found).items():
        torch.testing.assert_close(value, expected[name])
    assert dense == [not sparse] * len(TOKENS)
    assert not model.get_submodule("embed").sparse


@pytest.mark.parametrize("compute", COMPUTED)
def test_what_a_table_is_computed_from_has_whole_gradients(
    compute: Callable[[nn.Module], object], dense: list[bool]
) -> None:
    """PyTorch has no gradients of rows for most of what a table may be computed by."""
    model = changed(lambda model: compute(model.embed))().double()
    found = fisher_diagonal(model, [(TOKENS, TARGETS)], scope="all", per_class=True)
    expected = oracle(model, TOKENS, TARGETS)
    for name, value in all_sums(found).items():
        torch.testing.assert_close(value, expected[name])
    assert dense == []  # it is no parameter itself


def test_hooks_of_a_table_get_whole_gradients(dense: list[bool]) -> None:
    model = Reader().double()
    model.embed.weight.register_hook(without_first)
    found = fisher_diagonal(model, [(TOKENS, TARGETS)], scope="all", per_class=True)
    expected = oracle(model, TOKENS, TARGETS)["embed.weight"][found.classes]
    expected[:, :3] = 0
    torch.testing.assert_close(found.sums["embed.weight"], expected)
    assert dense == [True] * len(TOKENS)


def test_a_lookup_that_fails_leaves_no_trace(dense: list[bool]) -> None:
    model = Reader().double()
    with pytest.raises(FisherError, match="out of range"):
        fisher_diagonal(model, [(TOKENS + ROWS, TARGETS)], scope="all")
    assert not model.embed.sparse
    assert not model.embed._forward_hooks
    assert not model.embed._forward_pre_hooks


@pytest.mark.parametrize("options", [{"clip_norm": 1e-3}, {"factored": True}, {"per_class": False}])
def test_options_are_those_of_whole_gradients(
    options: dict[str, object], dense: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Reader().double()
    given = {"scope": "all", "per_class": True} | options
    found = fisher_diagonal(model, [(TOKENS, TARGETS)], **given)  # type: ignore[call-overload]
    monkeypatch.setattr(gradients, "_LARGE_TABLE", ROWS * WIDTH + 1)
    expected = fisher_diagonal(model, [(TOKENS, TARGETS)], **given)  # type: ignore[call-overload]
    assert dense == [False] * len(TOKENS) + [True] * len(TOKENS)
    values = expected.values if options.get("per_class") is False else expected.sums
    for name, value in values.items():
        mine = found.values if options.get("per_class") is False else found.sums
        torch.testing.assert_close(mine[name], value)
    if options.get("factored"):
        torch.testing.assert_close(found.columns["embed.weight"], expected.columns["embed.weight"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_models_of_low_precision_have_them_too(dtype: torch.dtype, dense: list[bool]) -> None:
    """Sums are those of the gradients as the model's precision gives them."""
    model = Reader().to(dtype)
    found = fisher_diagonal(model, [(TOKENS, TARGETS)], scope="all", per_class=True)
    assert dense == [False] * len(TOKENS)
    looked_up = found.sums["embed.weight"].flatten(2).sum(2) > 0
    for place, label in enumerate(found.classes.tolist()):
        expected = set(TOKENS[label == TARGETS].flatten().tolist())
        assert set(looked_up[place].nonzero().flatten().tolist()) == expected
