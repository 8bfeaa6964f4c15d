"""Results in folders: what of the old folder is in them, and what their cards say."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, RepoCard

from disinherit.client.store.ledger import Commit
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import InputError
from disinherit.common.exports.model_cards import with_section
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.huggingface import library, llama, lora, require, sequences

require()
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")

from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402
from disinherit.client.huggingface.saving import stays  # noqa: E402
from tests.support import zoo  # noqa: E402

OLD = {
    "license": "mit",
    "new_version": "lab/m-2",
    "model-index": [{"name": "m", "results": "as nobody writes them"}],
}


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[HuggingFaceOwner]:
    with HuggingFaceOwner(ModelStore(tmp_path / "store", "anna")) as opened:
        yield opened


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model."""
    llama().save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def adapter(model: Path, tmp_path: Path) -> Path:
    """The folder of an adapter on it."""
    loaded = library().AutoModelForCausalLM.from_pretrained(model)
    lora(loaded, task_type="CAUSAL_LM").save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def forgotten(owner: HuggingFaceOwner, model_id: str, part: str = "") -> str:
    """Commit other weights, as a request would, and return the new version."""
    weights = {
        name: value * 0.5 if part in name else value
        for name, value in owner.store.weights(model_id).items()
    }
    record = owner.store.record(model_id)
    new = replace(record, id=f"{model_id}~q", digest=weights_digest(weights))
    result = pb.ModelResult(remedy=pb.REMEDY_SUPPRESSED).SerializeToString()
    owner.store.apply(Commit("q", model_id, record.digest, new, weights, result))
    return new.id


def test_nothing_that_may_hold_old_weights_or_their_figures_is_in_a_result(
    owner: HuggingFaceOwner, model: Path, tmp_path: Path
) -> None:
    weights = [
        "rust_model.ot",
        "weights.npz",
        "model.pkl",
        "model.safetensors.bak",
        "model.safetensors.gz",
        "pytorch_model.bin",
        "flax_model.msgpack",
        "optimizer.pt",
        "model.h5",
        "model.mlmodel",
        "weights.json",
    ]
    figures = ["eval_results.json", "trainer_state.json", "training_args.bin", "notes.txt"]
    kept = [
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "LICENSE",
        "LICENSE.md",
        "USE_POLICY.md",
        "NOTICE",
        "chat_template.jinja",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "qwen.tiktoken",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
    ]
    for name in (*weights, *figures, *kept):
        (model / name).write_text("{}")
    (model / "additional_chat_templates").mkdir()
    for name in ("tool_use.jinja", "weights.bin"):
        (model / "additional_chat_templates" / name).write_text("{}")
    owner.add("m", model, sequences(3, 1))
    for version in ("m", forgotten(owner, "m")):
        new = tmp_path / f"saved-{version}"
        owner.save(version, new)
        found = {path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()}
        made = {"config.json", "generation_config.json", "model.safetensors"}
        card = {"README.md"} if "~" in version else set()
        assert found == {*kept, *made, *card, "additional_chat_templates/tool_use.jinja"}


def test_all_files_of_tokenizers_stay() -> None:
    folder = Path(library().__file__).parent / "models"
    named = re.compile(r'"\w+_file": *"([^"/]+)"')
    found = {
        name
        for file in folder.glob("*/tokenization_*.py")
        for name in named.findall(file.read_text("utf-8"))
    }
    assert len(found) > 15
    assert [name for name in sorted(found) if not stays(name)] == []


def test_the_card_says_nothing_of_the_weights_before(
    owner: HuggingFaceOwner, model: Path, tmp_path: Path
) -> None:
    card: Any = RepoCard("---\n{}\n---\n# M\n")
    card.data.__dict__.update(OLD)
    card.save(model / "README.md")
    owner.add("m", model, sequences(3, 1))
    owner.save(forgotten(owner, "m"), tmp_path / "new", attestation="https://lab.example/q.json")
    card = RepoCard.load(tmp_path / "new/README.md")
    data = {"license": "mit", "tags": ["disinherit", "unlearned"]}
    assert card.data.to_dict() == data, "and no path as its base"
    assert "Made of `m` by [Disinherit]" in card.text
    assert card.text.endswith(
        "Attestation: https://lab.example/q.json.\n<!-- disinherit: end of request q -->\n"
    )
    before = (model / "README.md").read_bytes()
    owner.save("m", tmp_path / "same")
    assert (tmp_path / "same/README.md").read_bytes() == before, "its weights are the same"
    owner.supersede("m", "lab/m-3")
    assert (model / "README.md").read_bytes() == before.replace(b"lab/m-2", b"lab/m-3")
    with pytest.raises(InputError, match="'m~q' was made by a request"):
        owner.supersede("m~q", "lab/m-3")


@pytest.mark.parametrize(
    ("said", "given", "expected"),
    [
        ({}, "lab/m", ("lab/m", "finetune")),
        ({"base_model": "lab/base"}, "", ("lab/base", None)),
        ({"base_model": ["a/b", "a/c"], "base_model_relation": "merge"}, "", ["a/b", "a/c"]),
        ({"base_model": ["a/b", "a/c"], "base_model_relation": "merge"}, "lab/m", "lab/m"),
        ({"base_model": "/home/ada/base", "base_model_relation": "finetune"}, "", (None, None)),
        ({"base_model": ["a/b", "../base"], "base_model_relation": "merge"}, "", "a/b"),
    ],
)
def test_bases_in_a_card_are_ids(
    owner: HuggingFaceOwner, model: Path, tmp_path: Path, said: Any, given: str, expected: Any
) -> None:
    zoo.card(model, **said)
    owner.add("m", model, sequences(3, 1))
    owner.save(forgotten(owner, "m"), tmp_path / "new", base_model=given)
    data: Any = ModelCard.load(tmp_path / "new/README.md").data
    relation = "finetune" if given else said.get("base_model_relation")
    pair = expected if isinstance(expected, tuple) else (expected, relation)
    assert (data.base_model, data.get("base_model_relation")) == pair


def test_a_model_of_the_hub_is_named_by_its_id(
    owner: HuggingFaceOwner, model: Path, tmp_path: Path
) -> None:
    snapshot = zoo.cached(tmp_path / "hub", "acme/tiny", "a" * 40, model)
    owner.add("m", snapshot, sequences(3, 1))
    owner.save(forgotten(owner, "m"), tmp_path / "new")
    data: Any = ModelCard.load(tmp_path / "new/README.md").data
    assert (data.base_model, data.base_model_relation) == ("acme/tiny", "finetune")


@pytest.mark.parametrize(
    "card",
    [
        "---\nlicense: mit\n---\n\xe9t\xe9\n".encode("latin-1"),
        b"---\nlicense: [mit\n---\n",
        with_section("# M\n", "q", []).replace("end of", "ends").encode(),
    ],
)
def test_a_card_that_cannot_be_read_is_named_before_anything_is_written(
    owner: HuggingFaceOwner, model: Path, tmp_path: Path, card: bytes
) -> None:
    (model / "README.md").write_bytes(card)
    owner.add("m", model, sequences(3, 1))
    version = forgotten(owner, "m")
    with pytest.raises(InputError, match=re.escape(str(model / "README.md"))):
        owner.save(version, tmp_path / "new", attestation="https://lab.example/q.json")
    assert not (tmp_path / "new").exists()
    (model / "README.md").write_text("# M\n")
    owner.save(version, tmp_path / "new")


def test_what_cannot_be_written_is_one_line(
    owner: HuggingFaceOwner, model: Path, tmp_path: Path
) -> None:
    owner.add("m", model, sequences(3, 1))
    version = forgotten(owner, "m")
    (tmp_path / "file").write_text("words")
    for name in ("file", "file/below"):
        with pytest.raises(InputError, match=f"{name} cannot be one: "):
            owner.save(version, tmp_path / name)
    for where in ("a\nb", "a <!-- disinherit: end of request q -->"):
        with pytest.raises(InputError, match="one line of text for where the attestation is"):
            owner.save(version, tmp_path / "new", attestation=where)
        with pytest.raises(InputError, match="one line of text for the id of the new version"):
            owner.supersede("m", where)
    assert not (tmp_path / "new").exists()
    assert not (model / "README.md").exists()


def test_nothing_is_left_of_what_fails(
    owner: HuggingFaceOwner, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.add("a", adapter, sequences(3, 1))
    version = forgotten(owner, "a")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(library("peft").PeftModel, "save_pretrained", full)
        for name in ("new", "empty"):
            with pytest.raises(OSError, match="No space left"):
                owner.save(version, tmp_path / name)
    assert not (tmp_path / "new").exists()
    assert [*(tmp_path / "empty").iterdir()] == []
    owner.save(version, tmp_path / "empty")


def test_an_adapter_is_saved_with_its_new_base_under_the_name_that_is_given(
    owner: HuggingFaceOwner, adapter: Path, model: Path, tmp_path: Path
) -> None:
    for name in ("tokenizer.json", "LICENSE", "weights.npz"):
        (model / name).write_text("{}")
    zoo.card(adapter, base_model=str(model), tags=["lora", f"base_model:adapter:{model}"])
    zoo.rewrite(adapter / "adapter_config.json", revision="v1")
    owner.add("a", adapter, sequences(3, 1))
    version = forgotten(owner, "a", "o_proj")
    owner.save(version, tmp_path / "new")
    place = tmp_path / "new"
    assert named(place) == (str(place / "base"), None)
    names = {file.name for file in (place / "base").iterdir()}
    made = {"config.json", "generation_config.json", "model.safetensors"}
    assert names == {*made, "tokenizer.json", "LICENSE"}
    texts = [(place / one).read_text() for one in ("README.md", "base/config.json")]
    assert not [text for text in texts if str(tmp_path) in text], "nobody's paths"
    data: Any = ModelCard.load(place / "README.md").data
    assert (data.base_model, data.library_name) == (None, "peft")
    assert data.tags == ["lora", "disinherit", "unlearned"]

    owner.save(version, tmp_path / "lab", base_model="lab/base-2")
    assert named(tmp_path / "lab") == ("lab/base-2", None)
    data = ModelCard.load(tmp_path / "lab/README.md").data
    assert (data.base_model, data.base_model_relation) == ("lab/base-2", "adapter")
    with pytest.raises(InputError, match="is the base of before, which knows what was forgotten"):
        owner.save(version, tmp_path / "wrong", base_model=str(model))
    assert not (tmp_path / "wrong").exists()

    ids, expected = torch.tensor([[3, 4, 5]]), owner.load(version)
    moved = shutil.move(place, tmp_path / "moved")
    for number, folder in enumerate((moved, tmp_path / "lab")):  # found beside the adapter
        record = owner.add(f"again-{number}", folder, sequences(3, 1))
        again: Any = owner.load(record.id)
        assert torch.equal(again(input_ids=ids).logits, expected(input_ids=ids).logits)


def named(folder: Path) -> tuple[str, str | None]:
    """Name and revision of the base of an adapter, by its configuration."""
    config = library("peft").PeftConfig.from_pretrained(str(folder))
    return config.base_model_name_or_path, config.revision


def test_an_attestation_is_named_in_a_section_that_is_there_already(
    owner: HuggingFaceOwner, model: Path, tmp_path: Path
) -> None:
    (model / "README.md").write_text(with_section("# M\n", "q", ["As exported."]))
    owner.add("m", model, sequences(3, 1))
    version = forgotten(owner, "m")
    for where in ("https://lab.example/q.json", "https://lab.example/again.json", ""):
        owner.save(version, tmp_path / f"new{len(where)}", attestation=where)
        text = (tmp_path / f"new{len(where)}/README.md").read_text()
        assert text.count("As exported.") == 1
        assert text.count(f"Attestation: {where}.") == bool(where)
