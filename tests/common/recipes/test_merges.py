"""Merges, computed again bit for bit as the real mergekit made them."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from disinherit.common.errors import CheckpointError, InputError
from disinherit.common.graph.recipes import Recipe, as_recipe
from disinherit.common.recipes.computing import Parent, compute
from tests.support.head_census import shim_torchvision

# mergekit's imports warn.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Weights = dict[str, Tensor]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 16,
    "torch_dtype": "float32",
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two models that descend from it, as folders."""
    shim_torchvision()
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("family")
    config = transformers.LlamaConfig(**CONFIG)
    torch.manual_seed(0)
    network = transformers.LlamaForCausalLM(config).to(getattr(torch, request.param))
    for name in ("base", "chat", "code"):
        folder = root / name
        network.save_pretrained(folder)
        for value in network.state_dict().values():
            value += 0.05 * torch.randn_like(value)
    return root


def merged(root: Path, name: str, config: dict[str, Any]) -> Weights:
    """The merge that mergekit itself makes."""
    kit: Any = importlib.import_module("mergekit.config")
    merge: Any = importlib.import_module("mergekit.merge")
    options: Any = importlib.import_module("mergekit.options")
    merge.run_merge(
        kit.MergeConfiguration.model_validate(yaml.safe_load(yaml.safe_dump(config))),
        str(root / name),
        options.MergeOptions(copy_tokenizer=False, quiet=True),
    )
    return weights(root / name)


def weights(folder: Path) -> Weights:
    found: Weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


MERGES = [
    ("linear", {"weight": [0.3, 0.6]}, {}, "linear weights=0.3,0.6"),
    (
        "linear",
        {"weight": [0.3, 0.6]},
        {"normalize": False},
        "linear normalize=false weights=0.3,0.6",
    ),
    ("task_arithmetic", {"weight": [0.3, 0.6]}, {}, "task_arithmetic weights=0.3,0.6"),
    (
        "task_arithmetic",
        {"weight": [1, 0.5]},
        {"normalize": True, "lambda": 0.7},
        "task_arithmetic lambda=0.7 normalize=true weights=1,0.5",
    ),
    (
        "ties",
        {"weight": [1, 0.5], "density": [0.4, 0.7]},
        {},
        "ties density=0.4,0.7 weights=1,0.5",
    ),
    (
        "ties",
        {"weight": [1, 1], "density": [0.2, 0.2]},
        {"normalize": False, "lambda": 1.3},
        "ties density=0.2 lambda=1.3 normalize=false weights=1",
    ),
]


@pytest.mark.parametrize(("method", "each", "common", "text"), MERGES, ids=[m[3] for m in MERGES])
def test_merges_of_mergekit_are_computed_again_bit_for_bit(
    family: Path, method: str, each: dict[str, list[float]], common: dict[str, Any], text: str
) -> None:
    pytest.importorskip("mergekit")
    dtype = json.loads((family / "base" / "config.json").read_text())["dtype"]
    config: dict[str, Any] = {
        "merge_method": method,
        "dtype": dtype,
        "parameters": common,
        "models": [
            {
                "model": str(family / name),
                "parameters": {key: values[index] for key, values in each.items()},
            }
            for index, name in enumerate(("chat", "code"))
        ],
    }
    parents = ["chat", "code"]
    if method != "linear":
        config["base_model"] = str(family / "base")
        parents.insert(0, "base")
    expected = merged(family, "merge", config)
    loads = [Parent(lambda name=name: weights(family / name), 0.5) for name in parents]  # type: ignore[misc]
    found = compute(as_recipe(text), loads, expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def parents_of(*given: Weights) -> list[Parent]:
    return [Parent(lambda one=one: one, 1.0) for one in given]  # type: ignore[misc]


def test_ties_by_hand() -> None:
    base = {"w": torch.tensor([1.0, 1.0, 1.0, 1.0])}
    one = {"w": torch.tensor([3.0, 1.5, 0.0, 1.0])}  # task vector 2, 0.5, -1, 0
    other = {"w": torch.tensor([2.0, 0.0, 3.0, 1.0])}  # task vector 1, -1, 2, 0
    recipe = Recipe("ties", {"weights": "1", "density": "0.75"})
    found = compute(recipe, parents_of(base, one, other), base)
    # Signs elected: +, -, +, +. Agreeing: both; the other's -1; the other's 2; none.
    assert torch.equal(found["w"], torch.tensor([2.5, 0.0, 3.0, 1.0]))


@pytest.mark.parametrize(
    ("recipe", "count", "error", "match"),
    [
        ("ties weights=1", 1, CheckpointError, "a base and models"),
        ("ties", 2, InputError, "weights of recipe 'ties' as 1 numbers"),
        ("ties weights=1 dtype=int8", 2, InputError, "dtype of recipe 'ties' among float32"),
        ("linear weights=1", 0, (InputError, CheckpointError), "Expected"),
    ],
)
def test_merges_that_cannot_be_are_refused(
    recipe: str, count: int, error: type[Exception], match: str
) -> None:
    one = {"w": torch.ones(2)}
    with pytest.raises(error, match=match):
        compute(as_recipe(recipe), parents_of(*[one] * count), one)


def test_parents_with_other_tensors_are_refused() -> None:
    one, other = {"w": torch.ones(2)}, {"w": torch.ones(3)}
    for text in ("linear weights=1", "ties weights=1", "task_arithmetic weights=1"):
        with pytest.raises(CheckpointError, match=r"'w' as torch.float32 \[2\], but got"):
            compute(as_recipe(text), parents_of(one, other), one)
