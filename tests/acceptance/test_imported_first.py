"""Versions that were imported before their owner registered them."""

from pathlib import Path

import pytest

from disinherit import CoordinatorStore, ModelStore
from disinherit.cli.main import run
from disinherit.common.errors import GraphError
from tests.support.huggingface import bert, gpt2, library, llama, lora, require, sequences

require()
pytestmark = pytest.mark.filterwarnings("ignore")

from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402


def test_all_but_adapters_are_registered_after_their_import(tmp_path: Path) -> None:
    for name, model in (("llama", llama()), ("gpt", gpt2()), ("bert", bert())):
        model.save_pretrained(tmp_path / "models" / name)
    base = library().AutoModelForCausalLM.from_pretrained(tmp_path / "models/llama")
    lora(base, task_type="CAUSAL_LM").save_pretrained(tmp_path / "models/lora")
    command = ["graph", "import", str(tmp_path / "models"), "--owner", "lab"]
    assert run([*command, "--store", str(tmp_path)]) == 0
    store = CoordinatorStore(tmp_path / "coordinator.db")
    with HuggingFaceOwner(ModelStore(tmp_path / "store", "lab")) as lab:
        classes = [{"input_ids": [2, 3, 4], "label": 1}]
        for name, rows in (("llama", sequences(2, 1)), ("gpt", sequences(2, 1)), ("bert", classes)):
            record = lab.add(name, tmp_path / "models" / name, evaluation=rows)
            _, new = store.register(record, (), actor="owner lab")
            assert not new, "the version that was imported, tied tensors or not"
        adapter = lab.add("lora", tmp_path / "models/lora", evaluation=sequences(2, 1))
        with pytest.raises(GraphError, match="model 'lora'.*withdraw what was imported"):
            store.register(adapter, (), actor="owner lab")
    assert [edge.parent for edge in store.graph().parents("lora")] == ["llama"]
    store.close()
