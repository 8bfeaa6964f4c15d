import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from disinherit.common.errors import FisherError, ScopeError
from disinherit.common.fisher import layers, sums, totals
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fisher.diagonal import MethodName, fisher_diagonal
from disinherit.common.fisher.pooled import Fisher
from disinherit.common.fisher.summation import METHODS
from disinherit.common.models.scope import resolve_scope
from tests.support.fisher_cases import (
    CASES,
    CLASSES,
    all_sums,
    last_layer,
    make,
    oracle,
    perceptron,
    places,
    rows,
)

X, Y = torch.randn(4, 3), torch.tensor([0, 1, 1, 3])


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, value in found.items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-10 * scale)


def by(scope: str, supported: bool) -> list[tuple[str, MethodName]]:
    names: list[MethodName] = ["head", "layers", "vmap"]
    return [
        (case, method)
        for case, spec in CASES.items()
        for method in names
        if (method in (spec.all_by if scope == "all" else spec.head_by)) == supported
    ]


@pytest.fixture
def as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have batches in the order of classes, and large calls, on the CPU too."""
    for module in (layers, sums, totals):
        monkeypatch.setattr(module, "is_accelerator", lambda device: True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.usefixtures("as_on_an_accelerator")
def test_the_ways_of_an_accelerator_match_one_backward_pass_per_sample(
    case: str, large: bool, factored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:  # no sums of all classes at once
        monkeypatch.setattr(totals, "_DEVICE_SMALL", 0)
    model, inputs, targets = make(case, 9)
    found = fisher_diagonal(
        model, [(inputs, targets)], scope="all", per_class=True, factored=factored
    )
    expected = oracle(model, inputs, targets)
    for name, columns in found.columns.items():
        rows = expected[name].flatten(2).sum(2)
        assert_equal({name: columns}, {name: expected[name][found.classes].sum(1)})
        expected[name] = rows
    assert_equal(all_sums(found), expected)


@pytest.mark.parametrize("case", ["two inputs", "frozen body"])
def test_large_sums_of_a_parameter_that_no_sample_reaches_are_zero(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_SMALL", 0)
    model, inputs, targets = make(case, 9)
    found = fisher_diagonal(model, [(inputs, targets)], scope="all", per_class=True)
    assert_equal(all_sums(found), oracle(model, inputs, targets))


@pytest.mark.parametrize(("case", "method"), by("all", True) + [(c, "auto") for c in CASES])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_every_parameter_matches_one_backward_pass_per_sample(
    case: str, method: MethodName, chunk_size: int | None
) -> None:
    # 5 samples: as many as the length of the sequences, so that the size does not reveal a layout
    model, inputs, targets = make(case, 5)
    before = places(model)
    found = fisher_diagonal(
        model,
        [(inputs, targets)],
        scope="all",
        per_class=True,
        method=method,
        chunk_size=chunk_size,
    )
    assert tuple(found.sums) == resolve_scope(model, "all")
    assert_equal(all_sums(found), oracle(model, inputs, targets))
    assert found.counts.equal(torch.bincount(targets, minlength=CLASSES))
    pooled = fisher_diagonal(
        model, [(inputs, targets)], scope="all", method=method, chunk_size=chunk_size
    )
    assert pooled.count == 5
    assert_equal(pooled.values, found.total().values)
    assert places(model) == before


@pytest.mark.parametrize(("case", "method"), by("head", True) + [(c, "auto") for c in CASES])
def test_the_head_matches_one_backward_pass_per_sample(case: str, method: MethodName) -> None:
    model, inputs, targets = make(case, 5, seed=1)
    before = places(model)
    names = last_layer(model)
    found = fisher_diagonal(
        model, [(inputs, targets)], scope=",".join(names), per_class=True, method=method
    )
    assert list(found.sums) == names
    assert_equal(all_sums(found), oracle(model, inputs, targets))
    assert places(model) == before


@pytest.mark.parametrize(
    ("scope", "case", "method"),
    [("all", *pair) for pair in by("all", False)] + [("head", *pair) for pair in by("head", False)],
)
def test_a_method_refuses_a_model_it_would_be_wrong_for(
    scope: str, case: str, method: MethodName
) -> None:
    model, inputs, targets = make(case, 5)
    before = places(model)
    scope = "all" if scope == "all" else ",".join(last_layer(model))
    with pytest.raises(FisherError, match="use method 'auto'"):
        fisher_diagonal(model, [(inputs, targets)], scope=scope, method=method)
    assert places(model) == before


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("method", ["auto", "vmap"])
def test_attention_matches_one_backward_pass_per_sample(method: MethodName) -> None:
    encoder = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
    model = nn.Sequential(encoder, nn.Flatten(), nn.Linear(12, CLASSES)).double()
    inputs, targets = torch.randn(4, 3, 4, dtype=torch.float64), torch.tensor([0, 1, 1, 3])
    found = fisher_diagonal(model, [(inputs, targets)], scope="all", per_class=True, method=method)
    assert_equal(all_sums(found), oracle(model, inputs, targets))


def test_one_parameter_of_a_layer_is_enough() -> None:
    for case in ("conv2d", "conv1d", "text", "sequences"):
        model, inputs, targets = make(case, 4)
        expected = oracle(model, inputs, targets)
        for name in resolve_scope(model, "all"):
            found = fisher_diagonal(model, [(inputs, targets)], scope=name, per_class=True)
            assert list(found.sums) == [name]
            assert_equal(all_sums(found), expected)


def test_a_sparse_embedding_works_without_vmap() -> None:
    model = nn.Sequential(nn.EmbeddingBag(6, 5, sparse=True), nn.Linear(5, CLASSES)).double()
    inputs, targets = torch.randint(0, 6, (4, 3)), torch.tensor([0, 1, 1, 3])
    dense = nn.Sequential(nn.EmbeddingBag(6, 5), nn.Linear(5, CLASSES)).double()
    dense.load_state_dict(model.state_dict())
    found = fisher_diagonal(model, [(inputs, targets)], scope="all", per_class=True)
    assert_equal(all_sums(found), oracle(dense, inputs, targets))


@pytest.mark.parametrize("max_norm", [0.5, None])
def test_embeddings_with_special_gradients_are_left_to_general_methods(
    max_norm: float | None,
) -> None:
    embed = nn.Embedding(6, 5, max_norm=max_norm, scale_grad_by_freq=max_norm is None)
    model = nn.Sequential(embed, nn.Flatten(), nn.Linear(15, CLASSES)).double()
    inputs, targets = torch.randint(0, 6, (4, 3)), torch.tensor([0, 1, 1, 3])
    with pytest.raises(FisherError, match=r"no formula for '0\.weight' of Embedding"):
        fisher_diagonal(model, [(inputs, targets)], scope="all", method="layers")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = fisher_diagonal(model, [(inputs, targets)], scope="all", per_class=True)
    assert_equal(all_sums(found), oracle(model, inputs, targets))
    for name, value in model.state_dict().items():
        assert value.equal(before[name])


def test_a_subclass_may_compute_something_else() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) * 2

    model = Doubled(3, CLASSES).double()
    inputs, targets = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 3])
    found = fisher_diagonal(model, [(inputs, targets)], per_class=True)
    assert_equal(all_sums(found), oracle(model, inputs, targets))


def test_user_hooks_are_part_of_the_model() -> None:
    model, inputs, targets = make("perceptron", 4)
    for layer in model.children():
        layer.register_forward_hook(lambda module, args, output: output * 3)
    found = fisher_diagonal(model, [(inputs, targets)], scope="all", per_class=True)
    assert_equal(all_sums(found), oracle(model, inputs, targets))


def test_a_head_may_be_called_with_keywords() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, CLASSES)

        def forward(self, x: Tensor) -> Any:
            return self.head(input=torch.tanh(x))

    model = Keyword().double()
    inputs, targets = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 3])
    for method in get_args(MethodName):
        found = fisher_diagonal(
            model, [(inputs, targets)], scope="head", per_class=True, method=method
        )
        assert_equal(all_sums(found), oracle(model, inputs, targets))


@pytest.mark.parametrize("method", get_args(MethodName))
def test_an_input_changed_in_place_is_not_used_silently(method: MethodName) -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, CLASSES)

        def forward(self, x: Tensor) -> Any:
            x = x * 2
            logits: Tensor = self.head(x)
            x.zero_()
            return logits

    with pytest.raises(FisherError, match=r"(?s)changed in place|modified by an inplace|its layer"):
        fisher_diagonal(Overwriting(), [(X, Y)], method=method)


def test_padding_to_the_same_size_may_be_asymmetric() -> None:
    convolution = nn.Conv2d(1, 2, (4, 3), padding="same", padding_mode="circular")
    model = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(32, CLASSES)).double()
    inputs, targets = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 1])
    found = fisher_diagonal(model, [(inputs, targets)], scope="0.*", per_class=True)
    assert_equal(all_sums(found), oracle(model, inputs, targets))


def test_the_method_changes_when_a_later_batch_is_unsupported() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, CLASSES)

        def forward(self, x: Tensor) -> Any:
            logits: Tensor = self.head(x)
            return torch.where(x.sum(1, keepdim=True) > 0, logits, 3 * logits)

    model = Sometimes().double()
    inputs = torch.rand(6, 3, dtype=torch.float64)
    inputs[4:] *= -1
    targets = torch.tensor([0, 1, 1, 3, 2, 0])
    batches = [(inputs[:2], targets[:2]), (inputs[2:5], targets[2:5]), (inputs[5:], targets[5:])]
    found = fisher_diagonal(model, batches, per_class=True)
    assert_equal(all_sums(found), oracle(model, inputs, targets))
    with pytest.raises(FisherError, match="not that of one call of its layer 'head'"):
        fisher_diagonal(model, batches, method="head")


def test_a_fallback_from_vmap_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    model, inputs, targets = make("branching", 3)
    with caplog.at_level(logging.INFO):
        fisher_diagonal(model, [(inputs, targets)], scope="all")
    assert "One backward pass per sample: vmap cannot handle the model" in caplog.text


@settings(max_examples=25, deadline=None)
@given(
    case=st.sampled_from(["perceptron", "conv1d", "text", "tied", "sequences"]),
    scope=st.sampled_from(["head", "all"]),
    order=st.permutations(range(7)),
    cuts=st.sets(st.integers(1, 6)),
    per_class=st.booleans(),
)
def test_batch_size_and_order_do_not_matter(
    case: str, scope: str, order: list[int], cuts: set[int], per_class: bool
) -> None:
    model, inputs, targets = make(case, 7)
    bounds = [0, *sorted(cuts), 7]
    parts = [torch.tensor(order)[a:b] for a, b in pairwise(bounds)]
    batches = [(rows(inputs, part), targets[part]) for part in parts]
    whole = [(inputs, targets)]
    if per_class:
        split = fisher_diagonal(model, batches, scope=scope, per_class=True)
        together = fisher_diagonal(model, whole, scope=scope, per_class=True)
        assert_equal(all_sums(split), all_sums(together))
        assert split.counts.equal(together.counts)
    else:
        assert_equal(
            fisher_diagonal(model, batches, scope=scope).values,
            fisher_diagonal(model, whole, scope=scope).values,
        )


@pytest.mark.parametrize("method", get_args(MethodName))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(method: MethodName, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, CLASSES))
    inputs, targets = torch.randn(2000, 6), torch.randint(0, CLASSES, (2000,))
    expected = fisher_diagonal(model, [(inputs, targets)])
    batches = list(zip(torch.split(inputs.to(dtype), 50), torch.split(targets, 50), strict=True))
    found = fisher_diagonal(model.to(dtype), batches, method=method)
    for name, value in found.values.items():
        assert value.dtype == torch.float32
        # Summed in half precision, it would stagnate far below: 8 bits cannot hold 2,000 terms.
        torch.testing.assert_close(value, expected.values[name], rtol=0.03, atol=1e-4)


def test_precision_of_the_sums_follows_the_model() -> None:
    model, inputs, targets = make("perceptron", 3)
    assert fisher_diagonal(model, [(inputs, targets)]).values["2.weight"].dtype == torch.float64
    found = fisher_diagonal(model.float(), [(inputs.float(), targets)])  # type: ignore[union-attr]
    assert found.values["2.weight"].dtype == torch.float32


@pytest.mark.parametrize("method", get_args(MethodName))
def test_the_model_is_restored(method: MethodName) -> None:
    model, inputs, targets = make("conv2d", 3)
    model.train()
    model.get_submodule("1").eval()
    model.get_parameter("0.weight").requires_grad_(False)
    kept = model.get_parameter("3.weight")
    kept.grad = torch.ones_like(kept)

    def snapshot() -> tuple[Any, ...]:
        return (
            [module.training for module in model.modules()],
            [p.requires_grad for p in model.parameters()],
            [p.grad is not None and float(p.grad.sum()) for p in model.parameters()],
            [float(tensor.sum()) for tensor in model.state_dict().values()],
            [len(module._forward_hooks) for module in model.modules()],
        )

    before = snapshot()
    random = torch.get_rng_state()
    fisher_diagonal(model, [(inputs, targets)], method=method)
    assert snapshot() == before
    assert torch.get_rng_state().equal(random)

    def failing() -> Iterator[tuple[Any, Tensor]]:
        yield inputs, targets
        raise KeyError("disk")

    with pytest.raises(KeyError, match="disk"):  # not ours to translate
        fisher_diagonal(model, failing(), method=method)
    with pytest.raises(FisherError):
        fisher_diagonal(model, [(inputs, targets), (inputs, targets + 9)], method=method)
    assert snapshot() == before


@pytest.mark.parametrize("scope", ["head", "all"])
def test_frozen_parameters_have_a_fisher_like_any_other(scope: str) -> None:
    model, inputs, targets = make("conv2d", 4)
    expected = fisher_diagonal(model, [(inputs, targets)], scope=scope)
    model.requires_grad_(False)
    assert_equal(fisher_diagonal(model, [(inputs, targets)], scope=scope).values, expected.values)


def test_fisher_works_within_no_grad_and_inference_mode() -> None:
    model, inputs, targets = make("perceptron", 4)
    expected = oracle(model, inputs, targets)
    with torch.inference_mode():
        made_here = inputs * 1
        found = fisher_diagonal(model, [(made_here, targets)], scope="all", per_class=True)
        assert torch.is_inference_mode_enabled()
    assert_equal(all_sums(found), expected)
    with torch.no_grad():
        found = fisher_diagonal(model, [(inputs, targets)], scope="all", per_class=True)
    assert_equal(all_sums(found), expected)


def test_lists_of_a_data_loader_and_small_integers_are_accepted() -> None:
    model, inputs, targets = make("two inputs", 4)
    found = fisher_diagonal(model, [[list(inputs), targets.to(torch.uint8)]], per_class=True)
    assert_equal(all_sums(found), oracle(model, inputs, targets))


def test_empty_batches_are_skipped() -> None:
    model, inputs, targets = make("perceptron", 4)
    none = rows(inputs, torch.tensor([], dtype=torch.int64)), targets[:0]
    found = fisher_diagonal(model, [none, (inputs, targets), none])
    assert found.count == 4
    assert_equal(found.values, fisher_diagonal(model, [(inputs, targets)]).values)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least one sample, but got none"),
        ([(X[:0], Y[:0])], "at least one sample, but got none"),
        ([(X, Y - 1)], r"targets in \[0, 4\).* got -1"),
        ([(X, Y + 2)], r"targets in \[0, 4\).* got 5"),
        ([(X, Y.double())], r"integer class indices .* got torch\.float64"),
        ([(X, Y > 0)], r"integer class indices .* got torch\.bool"),
        ([(X, Y[:3])], r"shape \[4\] for 4 inputs, but got \[3\]"),
        ([(X, Y[:, None])], r"shape \[4\] for 4 inputs, but got \[4, 1\]"),
        ([(X, [0, 1, 1, 3])], "batch 0 to be .* got 2 items"),
        ([(X, Y), (X, Y, Y)], "batch 1 to be .* got 3 items"),
        ([X], "batch 0 to be .* got Tensor"),
        ([("text", Y)], "inputs to be tensors .* got str"),
        ([((), Y)], "at least one input tensor"),
        ([(torch.tensor(1.0), Y)], "one row per sample"),
        ([((X, X[:2]), Y)], r"shapes \[\[4, 3\], \[2, 3\]\]"),
        (
            [(X[:, :2], Y)],
            r"differentiate, but batch 0 .*\[\[4, 2\]\].*RuntimeError",
        ),
        ([((X, X), Y)], r"that Sequential can take .* batch 0 .* TypeError"),
        ([(X * torch.nan, Y)], r"NaN or infinity for parameter '2\.weight'"),
    ],
)
@pytest.mark.parametrize("method", get_args(MethodName))
def test_wrong_batches_are_errors(batches: Any, message: str, method: MethodName) -> None:
    with pytest.raises(FisherError, match=message):
        fisher_diagonal(perceptron(), batches, method=method)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Flatten(0)), r"logits \[4, C\] .* shape \[16\]"),
        (nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2))), r"shape \[4, 2, 2\]"),
        (nn.Sequential(nn.Linear(3, 2), nn.LSTM(2, 2)), "got tuple; wrap it"),
        (nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 4)), "got '0'"),
    ],
)
def test_models_that_are_not_classifiers_of_single_samples_are_errors(
    model: nn.Module, message: str
) -> None:
    with pytest.raises(FisherError, match=message):
        fisher_diagonal(model, [(X, Y)])


def inferred() -> nn.Module:
    with torch.inference_mode():
        return perceptron()


def inferred_statistics() -> nn.Module:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, CLASSES))
    with torch.inference_mode():
        model[0].running_mean = torch.zeros(3)
    return model


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("scope", ["head", "all", "*"])
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (inferred, r"got '0\.weight', .* made in inference mode"),
        (inferred_statistics, r"got '0\.running_mean', made in inference mode"),
        (lambda: torch.jit.script(perceptron()), "got the whole model compiled by TorchScript"),
        (lambda: torch.jit.trace(perceptron(), X), "got the whole model compiled by TorchScript"),
        (
            lambda: nn.Sequential(nn.Linear(3, 3), torch.jit.script(nn.Linear(3, CLASSES))),
            "got '1' compiled by TorchScript",
        ),
    ],
)
def test_models_without_gradients_are_errors_in_one_line(
    build: Callable[[], nn.Module], message: str, scope: str
) -> None:
    with pytest.raises(ScopeError, match=message) as raised:
        fisher_diagonal(build(), [(X, Y)], scope=scope)
    assert "\n" not in str(raised.value)


def test_wrong_options_are_errors() -> None:
    model = perceptron()
    with pytest.raises(FisherError, match=r"method in .*'auto'.* got 'magic'"):
        fisher_diagonal(model, [(X, Y)], method="magic")  # type: ignore[call-overload]
    with pytest.raises(FisherError, match="chunk_size >= 1 or None, but got 0"):
        fisher_diagonal(model, [(X, Y)], chunk_size=0)
    with pytest.raises(FisherError, match="5 classes, but got 4 logits"):
        fisher_diagonal(model, [(X, Y)], num_classes=5)
    with pytest.raises(ScopeError, match="'nope' matches none"):
        fisher_diagonal(model, [(X, Y)], scope="nope")
    with pytest.raises(FisherError, match=r"\['0.weight', '2.weight'\] do not belong to one layer"):
        fisher_diagonal(model, [(X, Y)], scope="*.weight", method="head")
    assert fisher_diagonal(model, [(X, Y)], num_classes=4, per_class=True).num_classes == 4
    assert list(METHODS) == list(get_args(MethodName))


def test_out_of_memory_is_raised_to_the_caller() -> None:
    class Full(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            raise torch.OutOfMemoryError("device is full")

    with pytest.raises(torch.OutOfMemoryError, match="device is full"):
        fisher_diagonal(Full(3, CLASSES), [(X, Y)])


def fishers(counts: list[int]) -> ClassFishers:
    torch.manual_seed(0)
    sums = {"w": torch.rand(len(counts), 2, 3), "b": torch.rand(len(counts), 2)}
    return ClassFishers(sums, torch.tensor(counts))


@given(
    counts=st.lists(st.integers(0, 5), min_size=2, max_size=6),
    chosen=st.sets(st.integers(0, 5), min_size=1),
)
@settings(max_examples=40, deadline=None)
def test_classes_pool_by_their_numbers_of_samples(counts: list[int], chosen: set[int]) -> None:
    classes = ClassFishers(
        {"w": torch.arange(float(len(counts) * 2)).view(-1, 2)}, torch.tensor(counts)
    )
    chosen = {c for c in chosen if c < len(counts)}
    rest = set(range(len(counts))) - chosen
    for wanted, pool in ((chosen, classes.over), (rest, classes.excluding)):
        count = sum(counts[c] for c in wanted)
        if not count:
            with pytest.raises(FisherError, match="at least one sample"):
                pool(chosen)
            continue
        expected = sum((classes.sums["w"][c] for c in wanted), torch.zeros(2)) / count
        assert pool(chosen).count == count
        torch.testing.assert_close(pool(chosen).values["w"], expected)


def test_single_classes_are_kept_apart() -> None:
    classes = fishers([2, 0, 3])
    parts = classes.each([2, 0, 2])
    assert list(parts) == [0, 2]
    assert [part.count for part in parts.values()] == [2, 3]
    assert parts[2].values["w"].equal(classes.sums["w"][2] / 3)
    with pytest.raises(FisherError, match=r"got \[1\], which have none"):
        classes.each([0, 1])


def test_pooling_does_not_change_the_sums() -> None:
    classes = fishers([2, 1, 3])
    before = {name: value.clone() for name, value in classes.sums.items()}
    classes.over([1])
    classes.total()
    assert all(classes.sums[name].equal(value) for name, value in before.items())


def test_classes_that_do_not_exist_are_errors() -> None:
    classes = fishers([2, 1])
    for wrong in (-1, 2):
        for pool in (classes.over, classes.excluding, classes.each):
            with pytest.raises(FisherError, match=rf"in \[0, 2\), but got \[{wrong}\]"):
                pool([0, wrong])
    with pytest.raises(FisherError, match=r"got \[\], which have none"):
        classes.over([])
    with pytest.raises(FisherError, match="at least one sample"):
        fishers([0, 0]).total()


def test_shards_add_up() -> None:
    model, inputs, targets = make("perceptron", 7)
    first, second = torch.arange(3), torch.arange(3, 7)
    shards = [
        fisher_diagonal(model, [(rows(inputs, part), targets[part])], per_class=True)
        for part in (first, second)
    ]
    whole = fisher_diagonal(model, [(inputs, targets)], per_class=True)
    added = shards[0] + shards[1]
    assert_equal(all_sums(added), all_sums(whole))
    assert added.counts.equal(whole.counts)
    with pytest.raises(FisherError, match="the same shapes"):
        added + fishers([1, 1, 1, 1])
    with pytest.raises(FisherError, match="the same shapes"):
        fishers([1, 1]) + fishers([1, 1, 1])


def test_malformed_class_fishers_are_errors() -> None:
    with pytest.raises(
        FisherError, match=r"sums \[2, \.\.\.\] for parameter 'w', but got shape \[3\]"
    ):
        ClassFishers({"w": torch.zeros(3)}, torch.tensor([1, 1]))
    with pytest.raises(FisherError, match=r"of torch\.int64, but got torch\.float32"):
        ClassFishers({}, torch.tensor([1.0]))
    with pytest.raises(FisherError, match=r"counts >= 0, but got \[1, -1\]"):
        ClassFishers({}, torch.tensor([1, -1]))
    with pytest.raises(FisherError, match="at least one sample, but got 0"):
        Fisher({}, 0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ["perceptron", "conv2d", "text", "tied", "branching"])
@pytest.mark.parametrize("scope", ["head", "all"])
def test_cuda_agrees_with_the_cpu(case: str, scope: str) -> None:
    model, inputs, targets = make(case, 9)
    expected = oracle(model, inputs, targets)
    found = fisher_diagonal(model.cuda(), [(inputs, targets)], scope=scope, per_class=True)
    assert all(value.is_cuda for value in found.sums.values())
    assert_equal({name: value.cpu() for name, value in all_sums(found).items()}, expected)
