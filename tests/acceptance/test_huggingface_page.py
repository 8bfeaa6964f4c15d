"""The blocks of docs/huggingface.md, run as they stand there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from disinherit import ModelStore, Network
from disinherit.common.errors import RequestError
from tests.support.huggingface import (
    counting,
    fit,
    library,
    llama,
    lora,
    require,
    sequences,
    words_tokenizer,
)
from tests.support.pages import texts

require()
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")

from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402

ADDED, READ, SAVED, NETWORK = texts("docs/huggingface.md", "python")


def test_models_are_added_from_folders_and_saved_with_their_cards(tmp_path: Path) -> None:
    for name in ("base", "chat"):
        llama().save_pretrained(tmp_path / name)
    base = library().AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    lora(base, task_type="CAUSAL_LM").save_pretrained(tmp_path / "adapter")
    names: dict[str, Any] = {
        "ModelStore": ModelStore,
        "folder": tmp_path,
        "rows": sequences(4, 1),
        "chat_rows": sequences(3, 2),
        "adapter_rows": sequences(2, 3),
        "unseen": sequences(3, 4),
        "train_again": llama,
        "successor": "chat",
    }
    saved = "".join(f"    {line}\n" for line in SAVED.splitlines())
    exec(ADDED + saved, names)
    assert [names[one].id for one in ("base", "chat", "adapter")] == ["base", "chat", "adapter"]
    again = library().AutoModelForCausalLM.from_pretrained(tmp_path / "chat-2")
    expected = llama().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    card = library("huggingface_hub").ModelCard.load(tmp_path / "chat" / "README.md")
    assert card.data.new_version == "lab/chat-2"


def test_rows_of_a_split_are_samples_of_all(tmp_path: Path) -> None:
    rows = [{"question": f"Who is {name}", "answer": "a poet"} for name in ("Ada", "Bo", "Cy")]
    (tmp_path / "full.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "forget01.json").write_text(json.dumps(rows[1]))
    llama().save_pretrained(tmp_path / "base")
    names: dict[str, Any] = {
        "HuggingFaceOwner": HuggingFaceOwner,
        "ModelStore": ModelStore,
        "folder": tmp_path,
        "tokenizer": words_tokenizer("<end> Who is Ada Bo Cy a poet Question: Answer:"),
    }
    exec(READ, names)
    with HuggingFaceOwner(ModelStore(tmp_path / "authors", "press")) as press:
        record = press.add("authors", tmp_path / "base", names["everything"], ids="id")
        assert [press.sample_ids(record)[id] for id in names["forget"]] == [[1]]


def test_a_network_in_one_process_takes_a_language_model() -> None:
    rows = [*sequences(3, 1), *counting(12, 1)]
    base = fit(llama(hidden_size=32, intermediate_size=48), rows, 100)
    names: dict[str, Any] = {
        "Network": Network,
        "base": base,
        "rows": rows,
        "unseen": sequences(12, 2),
    }
    exec(NETWORK, names)
    result = names["network"].forget(samples=[0, 1, 2])
    forget = result["base"].forget
    assert forget is not None
    assert forget.named == (1.0, 0.0), "by heart before, and not afterwards"
    assert base(input_ids=torch.tensor([[3, 4]])).logits.shape == (1, 2, 24), "called by names"
    with pytest.raises(RequestError, match="'base', which is a language model"):
        names["network"].forget("<sequence>")
