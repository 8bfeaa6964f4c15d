import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit.common.errors import InputError
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.simulations.data.datasets import load_dataset
from disinherit.simulations.networks.networks import MeanEmbedding, NetworkSpec, known_networks
from disinherit.simulations.networks.resnet import BasicBlock

SPECS = [
    NetworkSpec("cnn", (1, 8, 8), 10),
    NetworkSpec("cnn", (1, 28, 28), 3),
    NetworkSpec("cnn", (3, 5, 7), 4),
    NetworkSpec("mlp", (1, 8, 8), 10),
    NetworkSpec("resnet18", (1, 8, 8), 10),
    NetworkSpec("resnet18", (3, 5, 7), 4),
    NetworkSpec("text", (12,), 5, vocabulary=30),
    NetworkSpec("lstm", (12,), 5, vocabulary=30),
    NetworkSpec("transformer", (12,), 5, vocabulary=30),
]


def inputs_for(spec: NetworkSpec, count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, *spec.input_shape)
    if spec.vocabulary:
        return torch.randint(0, spec.vocabulary, shape, generator=generator)
    return torch.rand(shape, generator=generator)


def test_every_network_is_among_the_cases() -> None:
    assert {spec.name for spec in SPECS} == set(known_networks())


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_non_negative_features_under_a_linear_head(spec: NetworkSpec) -> None:
    model = spec.build(seed=0).eval()
    inputs = inputs_for(spec)

    with torch.no_grad():
        features, logits = model.features(inputs), model(inputs)

    assert logits.shape == (4, spec.classes)
    assert (features >= 0).all()
    assert (features > 0).any()
    assert isinstance(model.head, nn.Linear)
    assert list(model.named_modules())[-1] == ("head", model.head)
    assert model.head.out_features == spec.classes
    torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_same_seed_same_weights(spec: NetworkSpec) -> None:
    one, same, other = (spec.build(seed).state_dict() for seed in (5, 5, 6))

    assert list(one) == list(same)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_global_random_state_is_neither_used_nor_changed(spec: NetworkSpec) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = spec.build(seed=3)
    assert torch.equal(torch.get_rng_state(), before)

    torch.manual_seed(2)
    assert torch.equal(one.head.weight, spec.build(seed=3).head.weight)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_no_module_works_in_place_or_twice(spec: NetworkSpec) -> None:
    model = spec.build(seed=0).eval()
    calls: list[nn.Module] = []
    modules = [module for module in model.modules() if not isinstance(module, nn.ModuleList)]
    for module in modules:
        assert not getattr(module, "inplace", False)
        module.register_forward_hook(lambda module, *_: calls.append(module))

    model(inputs_for(spec))

    assert len(calls) == len(set(calls)) == len(modules)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_parameter_gets_a_gradient(spec: NetworkSpec) -> None:
    model = spec.build(seed=0)

    nn.functional.cross_entropy(model(inputs_for(spec)), torch.zeros(4).long()).backward()

    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_spec_survives_json(spec: NetworkSpec) -> None:
    assert NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_cnn_size() -> None:
    model = NetworkSpec("cnn", (1, 28, 28), 10).build(0)

    assert 50_000 <= sum(p.numel() for p in model.parameters()) <= 200_000


def test_resnet18_is_the_standard_one() -> None:
    model = NetworkSpec("resnet18", (3, 32, 32), 10).build(0)

    # The known size of the CIFAR variant with ten classes.
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock)]
    assert len(blocks) == 8
    features = model.eval().features
    assert isinstance(features, nn.Sequential)
    assert features[:5](torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)


def test_block_is_the_sum_of_body_and_shortcut() -> None:
    block = BasicBlock(2, 2, stride=1).eval()
    inputs = torch.randn(3, 2, 4, 4)

    torch.testing.assert_close(block(inputs), (block.body(inputs) + inputs).clamp(min=0))


def test_padding_does_not_count_in_the_mean() -> None:
    layer = MeanEmbedding(6, 3)
    weight = layer.embedding.weight

    means = layer(torch.tensor([[1, 2, 2, 0], [4, 0, 0, 0], [0, 0, 0, 0]]))

    torch.testing.assert_close(means[0], (weight[1] + 2 * weight[2]) / 3)
    torch.testing.assert_close(means[1], weight[4])
    assert not means[2].any()


def test_padding_row_has_no_say_whatever_it_holds() -> None:
    layer = MeanEmbedding(6, 3)
    ids = torch.tensor([[1, 2, 0, 0]])
    before = layer(ids)

    with torch.no_grad():
        layer.embedding.weight[0] = 7.0

    assert torch.equal(layer(ids), before)


@pytest.mark.parametrize("name", ["text", "lstm", "transformer"])
def test_padding_at_the_end_has_no_influence(name: str) -> None:
    model = NetworkSpec(name, (6,), 3, vocabulary=9).build(seed=0).eval().double()
    ids = torch.tensor([[3, 1, 4, 1, 0, 0]])
    with torch.no_grad():
        padded = model(ids)
        for p in (m for m in model.modules() if isinstance(m, nn.Embedding) and m.padding_idx == 0):
            p.weight[0] = 7.0  # whatever padding looks like
        torch.testing.assert_close(model(ids), padded)
        assert model(torch.zeros(1, 6, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_order_of_words_matters(name: str) -> None:
    model = NetworkSpec(name, (4,), 3, vocabulary=9).build(seed=0).eval()
    with torch.no_grad():
        one, other = model(torch.tensor([[1, 2, 3, 0], [3, 2, 1, 0]]))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_fisher_information_of_text_networks_is_that_of_single_samples(name: str) -> None:
    model = NetworkSpec(name, (5,), 3, vocabulary=9).build(seed=0).eval().double()
    ids = torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 1])
    found = fisher_diagonal(model, [(ids, targets)], scope="all").values
    sums = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for i in range(4):
        model.zero_grad()
        nn.functional.cross_entropy(model(ids[i : i + 1]), targets[i : i + 1]).backward()
        for n, p in model.named_parameters():
            assert p.grad is not None
            sums[n] += p.grad**2 / 4
    for n, value in found.items():
        torch.testing.assert_close(value, sums[n])


def test_spec_for_a_dataset() -> None:
    digits = load_dataset("digits")

    assert NetworkSpec.for_dataset("cnn", digits) == NetworkSpec("cnn", (1, 8, 8), 10)
    assert NetworkSpec.for_dataset("mlp", digits, classes=4).classes == 4
    with pytest.raises(InputError, match="input shape"):
        NetworkSpec.for_dataset("text", digits)


@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_a_network_can_be_a_number_of_times_as_wide(name: str) -> None:
    plain, wide = (
        NetworkSpec(one, (1, 8, 8), 10).build(seed=0).state_dict() for one in (name, f"{name}-3")
    )

    assert list(plain) == list(wide)
    for key in plain:
        if key.endswith("bias"):
            assert wide[key].numel() == (1 if key == "head.bias" else 3) * plain[key].numel()
    assert wide["head.weight"].shape == (10, 3 * plain["head.weight"].shape[1])


@pytest.mark.parametrize("name", ["mlp-1", "mlp-65", "cnn-02", "mlp-", "resnet18-2", "mlp-2x"])
def test_other_widths_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"mlp-N \(N times as wide, 2 to 64\)"):
        NetworkSpec(name, (1, 8, 8), 10)


def test_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        NetworkSpec("vgg", (1, 8, 8), 10)

    assert all(name in str(caught.value) for name in [*known_networks(), "'vgg'"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("cnn", (8, 8), 10), "input shape"),
        (("cnn", (1, 0, 8), 10), "input shape"),
        (("cnn", (1, 3, 8), 10), "4 x 4"),
        (("mlp", (64,), 10), "input shape"),
        (("text", (1, 8, 8), 10, 9), "input shape"),
        (("text", (), 10, 9), "input shape"),
        (("text", (8,), 10), "vocabulary"),
        (("mlp", (1, 8, 8), 10, 9), "no vocabulary"),
        (("mlp", (1, 8, 8), 0), "1 class"),
    ],
)
def test_spec_that_does_not_fit_is_refused(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkSpec(*values)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        SPECS[0].build(seed)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"input_shape": 8},
        {"input_shape": [1, 8.0, 8]},
        {"classes": "10"},
        {"classes": True},
        {"surplus": 1},
    ],
)
def test_malformed_dict_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="network spec"):
        NetworkSpec.from_dict({**SPECS[0].to_dict(), **changes})


@pytest.mark.parametrize("key", ["name", "input_shape", "classes", "vocabulary"])
def test_incomplete_dict_is_refused(key: str) -> None:
    values = SPECS[0].to_dict()
    del values[key]

    with pytest.raises(InputError, match="network spec"):
        NetworkSpec.from_dict(values)
