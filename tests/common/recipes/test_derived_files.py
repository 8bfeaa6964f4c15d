"""Folded adapters and quantised copies, computed again bit for bit as PEFT and bitsandbytes do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from disinherit.common.errors import CheckpointError
from disinherit.common.graph.recipes import Recipe, as_recipe
from disinherit.common.recipes.computing import Parent, compute
from tests.support.head_census import shim_torchvision

# PEFT uses what transformers is about to rename.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

Weights = dict[str, Tensor]


def parents_of(*given: Weights) -> list[Parent]:
    return [Parent(lambda one=one: one, 1.0) for one in given]  # type: ignore[misc]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapters_are_folded_as_peft_folds_them(
    tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    shim_torchvision()
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    network: Any
    if kind == "llama":
        config = transformers.LlamaConfig(
            hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, vocab_size=16,
        )  # fmt: skip
        network = transformers.LlamaForCausalLM(config).to(dtype)
        targets, saved, text = ["q_proj", "v_proj"], ["lm_head"], "fold scale=2.0"
    else:  # its matrices are [inputs, outputs]
        config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=16)
        network = transformers.GPT2LMHeadModel(config).to(dtype)
        targets, saved, text = ["c_attn"], None, "fold fan_in_fan_out=true scale=2.0"
    base = {name: value.clone() for name, value in network.state_dict().items()}
    lora = peft.LoraConfig(
        r=2, lora_alpha=4, target_modules=targets, modules_to_save=saved,
        fan_in_fan_out=kind == "gpt2",
    )  # fmt: skip
    adapted = peft.get_peft_model(network, lora)
    for name, value in adapted.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            value.data += 0.1 * torch.randn_like(value)
    adapted.save_pretrained(tmp_path)
    adapter = load_file(tmp_path / "adapter_model.safetensors")
    folded = adapted.merge_and_unload().state_dict()
    assert any(not torch.equal(folded[name], base[name]) for name in base)
    found = compute(as_recipe(text), parents_of(base, adapter), folded)
    for name, value in folded.items():
        assert torch.equal(found[name], value), name


def test_an_adapter_of_convolutions_is_refused_in_one_line() -> None:
    base = {"w.weight": torch.ones(2, 2, 3, 3)}
    adapter = {
        "base_model.model.w.lora_A.weight": torch.ones(1, 2, 3, 3),
        "base_model.model.w.lora_B.weight": torch.ones(2, 1, 1, 1),
    }
    with pytest.raises(CheckpointError, match="parents that fit recipe 'fold'") as error:
        compute(Recipe("fold"), parents_of(base, adapter), base)
    assert "\n" not in str(error.value)


def test_an_adapter_of_another_base_is_refused() -> None:
    base = {"w.weight": torch.ones(2, 2)}
    adapter = {"base_model.model.v.lora_B.weight": torch.ones(2, 1)}
    with pytest.raises(CheckpointError, match="have a place in its base"):
        compute(Recipe("fold"), parents_of(base, adapter), base)


@pytest.fixture(scope="module")
def quantised() -> Any:
    return pytest.importorskip("bitsandbytes").functional


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_matrices_are_rounded_as_bitsandbytes_does(quantised: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    source = {"m.weight": torch.randn(6, 8).to(dtype), "norm.weight": torch.randn(8).to(dtype)}
    source["m.weight"][2] = 0  # a row without any value
    values, rows, _ = quantised.int8_vectorwise_quant(source["m.weight"].half())
    copy = {"m.weight": values, "m.SCB": rows, "norm.weight": source["norm.weight"]}
    copy["m.weight_format"] = torch.tensor(0, dtype=torch.uint8)
    found = compute(Recipe("int8"), parents_of(source), copy)
    for name, value in copy.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_blocks_are_rounded_as_bitsandbytes_does(quantised: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    source = {"m.weight": torch.randn(6, 64).to(dtype)}
    source["m.weight"][1] = 0  # a block without any value
    packed, state = quantised.quantize_4bit(source["m.weight"], blocksize=64, quant_type="nf4")
    parts = state.as_dict(packed=True)
    copy = {"m.weight": packed} | {f"m.weight.{name}": value for name, value in parts.items()}
    found = compute(Recipe("nf4"), parents_of(source), copy)
    for name, value in copy.items():
        assert torch.equal(found[name], value), name


def test_copies_that_quantise_twice_are_refused(quantised: Any) -> None:
    source = {"m.weight": torch.randn(64, 64)}
    packed, state = quantised.quantize_4bit(
        source["m.weight"], blocksize=64, quant_type="nf4", compress_statistics=True
    )
    parts = state.as_dict(packed=True)
    copy = {"m.weight": packed} | {f"m.weight.{name}": value for name, value in parts.items()}
    with pytest.raises(CheckpointError, match="not quantised twice"):
        compute(Recipe("nf4"), parents_of(source), copy)


@pytest.mark.parametrize("name", ["int8", "nf4"])
def test_a_copy_has_one_parent_with_its_tensors(name: str) -> None:
    copy = {"m.weight": torch.zeros(2, 2, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match="one parent"):
        compute(Recipe(name), parents_of({}, {}), copy)
    with pytest.raises(CheckpointError, match="a parent with 'm.weight'"):
        compute(Recipe(name), parents_of({}), copy)
