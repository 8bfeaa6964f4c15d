"""Cached logits against whole forward passes of a copy with the changed weights."""

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from disinherit.client.dampening.logits import CachedLogits
from disinherit.common.errors import DataError
from tests.support.client_tasks import Hungry

CPU = torch.device("cpu")


class Scaled(nn.Module):
    """A temperature after the head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(inputs).relu()) / 2.0
        return logits


class Twice(nn.Module):
    """The same layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.head(inputs).relu())
        return logits


class Keyword(nn.Module):
    """The head is called with a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(input=inputs.relu())
        return logits


class Auxiliary(nn.Module):
    """The linear layer registered last does not make the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.gate = nn.Linear(3, 4), nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs * self.gate(inputs).sigmoid())
        return logits


class Tied(nn.Module):
    """The head's weight is also that of the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 3, bias=False), nn.Linear(3, 3)
        self.head.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.first(inputs).relu())
        return logits


class Overwritten(nn.Module):
    """The head's input is overwritten after the head has seen it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs * 1
        logits: Tensor = self.head(features)
        features.zero_()
        return logits


def plain(bias: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 4, bias=bias)
    )


class Tempered(nn.Module):
    """A temperature after the head that is a parameter, and at first without effect."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.temperature = nn.Linear(3, 4), nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(inputs) / self.temperature
        return logits


SEPARATE: list[Callable[[], nn.Module]] = [
    plain,
    lambda: plain(bias=False),
    lambda: nn.Linear(3, 4),
    Auxiliary,
]
ENTANGLED: list[Callable[[], nn.Module]] = [
    Scaled,
    Twice,
    Keyword,
    Tied,
    Overwritten,
    lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU()),
    lambda: nn.Sequential(nn.Linear(3, 4), nn.LogSoftmax(dim=1)),
]


def make_batches() -> list[tuple[Tensor, Tensor]]:
    inputs = torch.randn(23, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.arange(23) % 3
    empty = (inputs[:0], targets[:0])
    return [empty, *zip(inputs.split(10), targets.split(10), strict=True)]


def changed(model: nn.Module, names: Iterable[str], seed: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for name, p in model.named_parameters()
        if name in names
    }


def head_names(model: nn.Module) -> list[str]:
    """Names of the head, or of the last linear layer where there is none."""
    layer = getattr(model, "head", None)
    linear = layer or [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    own = {id(parameter) for parameter in linear.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in own]


def whole(model: nn.Module, parameters: dict[str, Tensor]) -> Tensor:
    other = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, value in parameters.items():
            other.get_parameter(name).copy_(value)
        return torch.cat([other(inputs) for inputs, _ in make_batches()[1:]])


def check(logits: CachedLogits, model: nn.Module, candidates: list[dict[str, Tensor]]) -> None:
    found = torch.cat(list(logits(candidates)))
    expected = torch.stack([whole(model, parameters) for parameters in candidates], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", SEPARATE + ENTANGLED)
def test_logits_are_those_of_the_changed_model(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make().double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = frozenset(head_names(model))
    logits = CachedLogits(model, make_batches(), names, CPU)
    assert logits.cached is logits.shared is (make in SEPARATE)
    assert logits.targets.tolist() == [i % 3 for i in range(23)]
    check(logits, model, [{}, changed(model, names), changed(model, [min(names)])])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("make", [*SEPARATE[:2], Auxiliary, *ENTANGLED, Tempered])
def test_deeper_changes_share_features_where_the_head_is_all(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    model = make().double()
    names = frozenset(name for name, _ in model.named_parameters())
    logits = CachedLogits(model, make_batches(), names, CPU)
    assert not logits.cached
    assert logits.shared is (make in SEPARATE)
    one = changed(model, names)
    check(logits, model, [one, one | changed(model, head_names(model), seed=3)])


def test_a_model_without_a_linear_layer_is_not_cached() -> None:
    model = nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Conv1d(3, 4, 1), nn.Flatten()).double()
    logits = CachedLogits(model, make_batches(), frozenset(["1.bias"]), CPU)
    assert not logits.cached
    check(logits, model, [changed(model, ["1.bias"])])


@pytest.mark.parametrize("names", [("2.weight", "2.bias"), ("0.weight", "2.weight")])
def test_logits_are_equal_after_out_of_memory(names: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    hungry = Hungry(model, limit=8)
    inner = frozenset(f"network.{name}" for name in names)
    logits = CachedLogits(hungry, make_batches(), inner, CPU)
    parameters = changed(model, names)
    found = logits([{f"network.{name}": value for name, value in parameters.items()}])
    torch.testing.assert_close(torch.cat(list(found))[:, 0], whole(model, parameters))
    assert max(hungry.sizes) <= 8
    assert all(hungry.inferring[1:])  # the first call finds the head


def test_cached_candidates_run_no_model() -> None:
    hungry = Hungry(nn.Linear(3, 4).double(), limit=100)
    names = frozenset(["network.weight", "network.bias"])
    logits = CachedLogits(hungry, make_batches(), names, CPU)
    # A few samples to find the head, twice to compare, and every sample once.
    assert hungry.sizes == [8, 8, 8, 10, 10, 3]
    pieces = list(logits([changed(hungry, names), {}]))
    assert len(hungry.sizes) == 6
    assert all(piece.is_inference() for piece in pieces)


def test_logits_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disinherit.client.dampening.logits._PIECE", 64)
    model = nn.Linear(3, 4).double()
    names = frozenset(["weight", "bias"])
    logits = CachedLogits(model, make_batches(), names, CPU)
    candidates = [changed(model, names), {}]
    assert [piece.shape for piece in logits(candidates)] == [(8, 2, 4), (8, 2, 4), (7, 2, 4)]
    check(logits, model, candidates)


def test_batches_without_samples_are_refused() -> None:
    batches = make_batches()[:1]
    with pytest.raises(DataError, match="at least one sample to compute logits on, but got none"):
        CachedLogits(nn.Linear(3, 4).double(), batches, frozenset(["weight"]), CPU)


def test_batches_that_are_used_up_are_refused() -> None:
    with pytest.raises(DataError, match="iterated again"):
        CachedLogits(nn.Linear(3, 4).double(), iter(make_batches()), frozenset(["weight"]), CPU)
