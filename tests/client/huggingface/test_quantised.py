"""Quantised copies by bitsandbytes as an owner's models, measured in torch alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from disinherit.common.errors import CheckpointError, InputError
from disinherit.common.recipes.quantised import unquantised
from disinherit.common.tensors.checkpoints import weights_digest
from tests.support.huggingface import bert, gpt2, library, llama, require

require()
pytest.importorskip("bitsandbytes")

from disinherit import ModelStore  # noqa: E402
from disinherit.client.huggingface.models import load_model  # noqa: E402
from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

HOW: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}
IDS = torch.tensor([[3, 9, 4, 12], [7, 2, 20, 5]])


def quantise(model: Any, folder: Path, how: str) -> Any:
    """A copy of a model by bitsandbytes, also saved in the folder `copy`."""
    model.save_pretrained(folder / "model")
    settings = library().BitsAndBytesConfig(**HOW[how])
    copy = type(model).from_pretrained(
        folder / "model", quantization_config=settings, device_map="cpu"
    )
    copy.save_pretrained(folder / "copy")
    return copy


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("make", [bert, llama])
def test_a_copy_is_measured_with_the_values_of_its_integers(
    make: Any, how: str, tmp_path: Path
) -> None:
    model = make()
    quantise(model, tmp_path, how)
    files = load_file(tmp_path / "copy/model.safetensors")
    rows = [{"input_ids": ids.tolist(), "label": 1} for ids in IDS]
    with HuggingFaceOwner(ModelStore(tmp_path / "store", "lab")) as lab:
        record = lab.add("copy", tmp_path / "copy", evaluation=rows)
        assert record.digest == weights_digest(files), "that of its files"
        network = lab.network(record)
        network.load_state_dict(lab.store.weights("copy"))
        plain = make()
        with torch.no_grad():
            for name, value in plain.named_parameters():
                if files[name].dtype in (torch.int8, torch.uint8):
                    value.copy_(unquantised(files, name, value.shape))
        inner = network(input_ids=IDS).logits
        assert torch.equal(inner, plain(input_ids=IDS).logits)
        assert not torch.equal(inner, model(input_ids=IDS).logits), "as something was rounded"
        assert torch.allclose(inner, model(input_ids=IDS).logits, atol=0.1)
        lab.save("copy", tmp_path / "new")
    assert weights_digest(load_file(tmp_path / "new/model.safetensors")) == record.digest
    configs = [json.loads((tmp_path / one / "config.json").read_text()) for one in ("copy", "new")]
    assert configs[0]["quantization_config"] == configs[1]["quantization_config"]


def test_int8_is_what_bitsandbytes_computes(tmp_path: Path) -> None:
    copy = quantise(bert(), tmp_path, "int8")
    ours = load_model(tmp_path / "copy")
    assert torch.allclose(ours(input_ids=IDS).logits, copy(input_ids=IDS).logits, atol=0.01)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    quantise(gpt2(), tmp_path, "int8")
    with pytest.raises(CheckpointError, match=r"linear layers alone, but .* is of Conv1D"):
        load_model(tmp_path / "copy")
    copy = quantise(bert(), tmp_path / "bert", "int8")
    with (
        HuggingFaceOwner(ModelStore(tmp_path / "store", "lab")) as lab,
        pytest.raises(InputError, match="the folder of quantised model 'copy'"),
    ):
        lab.add("copy", copy, evaluation=[{"input_ids": [1], "label": 1}])
    (tmp_path / "bert/copy/model.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(tmp_path / "bert/copy")
