"""The layers of the head: those that make the logits, and no similar ones."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from disinherit.common.errors import FisherError, ScopeError
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.models.heads import Head, HeadLayer, find_head

CLASSES, WIDTH = 4, 6


class Body(nn.Module):
    """A hidden layer, with a `forward` from each test."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Linear(WIDTH, WIDTH)
        self.made = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.made(self, torch.relu(self.body(inputs)))


def linear(rows: int = CLASSES, width: int = WIDTH) -> nn.Linear:
    return nn.Linear(width, rows)


def inputs(*shape: int, n: int = 5) -> Tensor:
    return torch.randn(n, *(shape or (WIDTH,)), generator=torch.Generator().manual_seed(1))


def modules(head: Head) -> list[str]:
    return [layer.module for layer in head.layers]


def test_the_layer_that_outputs_the_logits_is_the_head() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, CLASSES), nn.ReLU(), nn.Linear(CLASSES, CLASSES))
    head = find_head(model, inputs())
    assert head == Head((HeadLayer("2", "2.weight", "2.bias"),))
    assert head.parameters == ("2.weight", "2.bias")
    assert str(head) == "2.*"


def test_a_model_can_be_its_own_head() -> None:
    assert find_head(nn.Linear(WIDTH, 3, bias=False), inputs()) == Head(
        (HeadLayer("", "weight", None),)
    )


@pytest.mark.parametrize("unused", [CLASSES, 3])
def test_a_layer_registered_last_and_not_used_is_not_the_head(unused: int) -> None:
    model = Body(lambda m, x: m.head(x), head=linear(), aux=linear(unused))
    assert modules(find_head(model, inputs())) == ["head"]


@pytest.mark.parametrize("pool", [1, CLASSES])
def test_a_scorer_registered_after_the_classifier_is_not_the_head(pool: int) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        weight = m.score(x).mean(-1, keepdim=True).sigmoid()
        logits: Tensor = m.fc(x * weight)
        return logits

    model = Body(forward, fc=linear(), score=linear(pool))
    assert modules(find_head(model, inputs())) == ["fc"]


SUMS: dict[str, tuple[Callable[[Any, Tensor], Tensor], list[str]]] = {
    "mean of two": (lambda m, x: (m.a(x) + m.b(x)) / 2, ["a", "b"]),
    "weighted": (lambda m, x: 0.3 * m.a(x) + 2 * m.b(x), ["a", "b"]),
    "stacked": (lambda m, x: torch.stack([m.a(x), m.b(x), m.c(x)]).mean(0), ["a", "b", "c"]),
    "temperature": (lambda m, x: m.a(x) / 3, ["a"]),
    "a copy": (lambda m, x: m.a(x).clone(), ["a"]),
    "logarithms": (lambda m, x: m.a(x).log_softmax(1), ["a"]),
    "same layer on two views": (lambda m, x: m.a(x) + m.a(x.flip(1)), ["a"]),
    "after the in-place": (lambda m, x: m.a(x).mul_(2), ["a"]),
    "one column is the others' mean": (lambda m, x: m.a(x) - m.a(x).mean(1, keepdim=True), ["a"]),
}


@pytest.mark.parametrize("case", SUMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_summed_layers_are_the_head_together(case: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    forward, expected = SUMS[case]
    model = Body(forward, a=linear(), b=linear(), c=linear()).to(dtype)
    head = find_head(model, inputs().to(dtype))
    assert modules(head) == expected
    assert not head.exact
    assert head.gauge_free


NO_HEADS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "not linear": lambda m, x: m.a(x).relu(),
    "probabilities": lambda m, x: m.a(x).softmax(1),
    "turned round": lambda m, x: -m.a(x),
    "one of two turned round": lambda m, x: m.a(x) - m.b(x),
    "classes mixed": lambda m, x: m.a(x) + m.b(x).roll(1, 1),
    "called recursively": lambda m, x: m.square(m.square(x[:, :CLASSES]).relu()),
    "a gate of each sample": lambda m, x: m.a(x) * x.sum(1, keepdim=True).sigmoid(),
    "other scales": lambda m, x: m.a(x) * torch.arange(1, CLASSES + 1),
    "not called": lambda m, x: nn.functional.linear(x, m.a.weight, m.a.bias),
    "something beside": lambda m, x: m.a(x) + x @ m.lookup.weight.T,
    "no layer with a row per class": lambda m, x: x[:, :CLASSES] @ torch.eye(CLASSES),
}


@pytest.mark.parametrize("case", NO_HEADS)
def test_a_model_without_a_head_is_refused_with_another_scope(case: str) -> None:
    torch.manual_seed(0)
    layers = {"a": linear(), "b": linear(), "square": linear(width=CLASSES)}
    model = Body(NO_HEADS[case], lookup=nn.Embedding(CLASSES, WIDTH), **layers)
    with pytest.raises(ScopeError, match=r"4 logits of Body .* Give another scope") as refused:
        find_head(model, inputs())
    scope = str(refused.value).split("such as ")[1].split("'")[1]
    assert scope == "a.*,b.*,square.*"
    x = inputs()
    assert fisher_diagonal(model, [(x, torch.arange(5) % 4)], scope=scope).values


def test_a_missing_layer_with_enough_rows_is_reported() -> None:
    with pytest.raises(ScopeError, match=r"no linear layer has 6 rows\. .* such as 'all'"):
        find_head(
            nn.Sequential(
                nn.Linear(WIDTH, 3),
                nn.Flatten(),
                nn.Unflatten(1, (3, 1)),
                nn.Upsample(size=2),
                nn.Flatten(),
            ),
            inputs(),
        )


@pytest.mark.parametrize("norm", [weight_norm, nn.utils.parametrizations.spectral_norm])
def test_a_computed_weight_is_refused_by_name(norm: Callable[[nn.Module], nn.Module]) -> None:
    model = Body(lambda m, x: m.head(x), head=norm(linear()))
    with pytest.raises(ScopeError, match=r"'head' is computed from .*parametrizations\.weight"):
        find_head(model, inputs())


def test_weight_norm_by_hooks_is_refused_by_name() -> None:
    with pytest.warns(FutureWarning):
        normed = nn.utils.weight_norm(linear())
    with pytest.raises(ScopeError, match=r"'head' is computed from .*weight_g, weight_v"):
        find_head(Body(lambda m, x: m.head(x), head=normed), inputs())


class Convolutional(nn.Module):
    def __init__(self, pool: Callable[[Tensor], Tensor], kernel: int = 1) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(2, 5, 3), nn.Conv2d(5, CLASSES, kernel)
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.head(torch.relu(self.body(images))))


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_before_a_mean_is_a_head(kernel: int) -> None:
    head = find_head(Convolutional(lambda y: y.mean((2, 3)), kernel), inputs(2, 7, 7))
    assert modules(head) == ["head"]
    assert head.gauge_free


def test_the_gauge_of_a_convolution_before_a_maximum_is_not_free() -> None:
    head = find_head(Convolutional(lambda y: y.amax((2, 3))), inputs(2, 7, 7))
    assert modules(head) == ["head"]
    assert not head.gauge_free


def test_a_convolution_before_an_activation_is_no_head() -> None:
    with pytest.raises(ScopeError, match="no sum of the outputs of 'head'"):
        find_head(Convolutional(lambda y: y.relu().mean((2, 3))), inputs(2, 7, 7))


def test_linear_layers_of_an_excitation_are_no_head() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = torch.relu(m.conv(x.view(-1, 1, 2, 3)))
        weight = m.se2(torch.relu(m.se1(y.mean((2, 3))))).sigmoid()
        logits: Tensor = m.last(y * weight[:, :, None, None]).mean((2, 3))
        return logits

    model = Body(
        forward,
        conv=nn.Conv2d(1, 4, 1),
        last=nn.Conv2d(4, 4, 1),
        se1=nn.Linear(4, 4),
        se2=nn.Linear(4, 4),
    )
    assert modules(find_head(model, inputs())) == ["last"]


def test_a_head_over_positions_is_a_head() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        logits: Tensor = m.head(x.view(-1, 3, 2)).mean(1)
        return logits

    assert modules(find_head(Body(forward, head=linear(width=2)), inputs())) == ["head"]
    last = Body(lambda m, x: m.head(x.view(-1, 3, 2))[:, -1], head=linear(width=2))
    assert modules(find_head(last, inputs())) == ["head"]


def test_a_weight_used_elsewhere_has_no_free_gauge() -> None:
    tied = Body(lambda m, x: m.head(torch.relu(m.first(x))), first=nn.Linear(6, 6), head=linear(6))
    tied.head.weight = tied.first.weight
    head = find_head(tied, inputs())
    assert head.layers == (HeadLayer("head", "first.weight", "head.bias"),)
    assert not head.gauge_free


def test_a_tied_weight_without_other_use_has_a_free_gauge() -> None:
    tied = Body(lambda m, x: m.head(x), label=nn.Embedding(CLASSES, WIDTH), head=linear())
    tied.head.weight = tied.label.weight
    head = find_head(tied, inputs())
    assert head == Head((HeadLayer("head", "label.weight", "head.bias"),))


def test_zero_weights_do_not_mislead_the_search_for_a_head() -> None:
    class Cosine(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            weight = nn.functional.normalize(self.weight)
            return nn.functional.linear(nn.functional.normalize(x), weight)

    model = Body(lambda m, x: m.head(x), head=Cosine(WIDTH, CLASSES))
    nn.init.zeros_(model.head.weight)
    assert not find_head(model, inputs()).gauge_free
    two = Body(lambda m, x: m.a(x) + 0, a=linear(), b=linear())
    for layer in (two.a, two.b):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert modules(find_head(two, inputs())) == ["a"]


def test_a_head_of_two_classes_is_found() -> None:
    model = Body(lambda m, x: (m.a(x) + m.b(x)) / 2, a=linear(2), b=linear(2), c=linear(2))
    assert modules(find_head(model, inputs())) == ["a", "b"]
    with pytest.raises(ScopeError):
        find_head(Body(lambda m, x: m.a(x).flip(1), a=linear(2)), inputs())


def test_the_head_of_a_compiled_model_is_found() -> None:
    layers = nn.Linear(WIDTH, 3), nn.ReLU(), nn.Linear(3, 3)
    model: Any = torch.compile(nn.Sequential(*layers), backend="eager")
    model(inputs())
    assert modules(find_head(model, inputs())) == ["_orig_mod.2"]


def test_the_model_is_restored() -> None:
    model = Body(
        lambda m, x: (m.a(x) + m.b(x.detach())) / 2, a=linear(), b=linear(), drop=nn.Dropout()
    )
    model.train()
    model.drop.eval()
    model.b.weight.requires_grad_(False)
    parameters = dict(model.named_parameters())
    before = copy.deepcopy(model.state_dict())
    x = inputs()
    assert len(find_head(model, x).layers) == 2
    assert all(model.get_parameter(name) is p for name, p in parameters.items())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model.training, model.drop.training, model.b.weight.requires_grad) == (
        True,
        False,
        False,
    )
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None for p in parameters.values())
    assert torch.equal(x, inputs())


def test_several_inputs_are_arguments() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(6, 5), nn.Linear(3, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor, y: Tensor) -> Any:
            return self.head(torch.relu(self.left(x) + self.right(y)))

    assert modules(find_head(Two(), (inputs(), inputs(3)))) == ["head"]
    with pytest.raises(FisherError, match="dict with the keys x, y"):
        find_head(Two(), {"x": inputs(), "y": inputs(3)})  # type: ignore[arg-type]
    with pytest.raises(FisherError, match=r"inputs that Two can take .*\[\[5, 6\]\].*TypeError"):
        find_head(Two(), inputs())


def test_an_output_that_is_no_tensor_is_refused_by_name() -> None:
    model = Body(lambda m, x: {"logits": m.head(x)}, head=linear())  # type: ignore[arg-type, return-value]
    with pytest.raises(FisherError, match=r"logits \[5, C\], but got dict; wrap it"):
        find_head(model, inputs())


def test_parameters_without_a_shape_are_an_error() -> None:
    with pytest.raises(ScopeError, match=r"uninitialized \['weight', 'bias'\]"):
        find_head(nn.LazyLinear(3), inputs())
