"""The owner of models of transformers and PEFT: folders, names, adapters, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from disinherit.client.roots import training
from disinherit.client.roots.distillation import RootDistillation
from disinherit.client.roots.ekfac import EkfacStep
from disinherit.client.roots.fine_tuning import RootFineTuning
from disinherit.client.roots.neg_grad import NegGrad
from disinherit.client.roots.problems import root_problem
from disinherit.client.roots.replay import Replay
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CheckpointError, DataError, InputError, ScopeError
from disinherit.common.method import Method
from disinherit.common.tensors.checkpoints import weights_digest
from tests.support.huggingface import bert, library, llama, lora, require, sequences, texts

require()
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")

from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402
from tests.support import zoo  # noqa: E402


@pytest.fixture
def owner(tmp_path: Path) -> Any:
    with HuggingFaceOwner(ModelStore(tmp_path / "store", "anna")) as opened:
        yield opened


def test_a_sharded_folder_of_bfloat16_is_what_it_was(
    owner: HuggingFaceOwner, tmp_path: Path
) -> None:
    model: Any = llama().bfloat16()
    model.save_pretrained(tmp_path / "old", max_shard_size="2KB")
    assert len([*(tmp_path / "old").glob("*.safetensors")]) > 1
    record = owner.add("m", tmp_path / "old", sequences(3, 1))
    assert record.provenance is not None
    assert record.provenance.samples_per_class == {"<sequence>": 3}
    assert owner.add("m", tmp_path / "old", sequences(3, 1)) == record, "opened again"
    weights = owner.network(record).state_dict()
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    files = [load_file(path) for path in (tmp_path / "old").glob("*.safetensors")]
    stored = {name: value for one in files for name, value in one.items()}
    assert weights.keys() == stored.keys() == model.state_dict().keys() - {"lm_head.weight"}
    assert record.digest == weights_digest(stored), "that of the files"
    owner.save("m", tmp_path / "new", max_shard_size="2KB")
    assert len([*(tmp_path / "new").glob("*.safetensors")]) > 1
    again = library().AutoModelForCausalLM.from_pretrained(tmp_path / "new", dtype="auto")
    for name, value in again.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    with pytest.raises(InputError, match="new or empty folder"):
        owner.save("m", tmp_path / "new")


def test_an_adapter_has_the_names_of_its_base(owner: HuggingFaceOwner) -> None:
    base = bert()
    names = [*base.state_dict()]
    record = owner.add(
        "adapter", lora(base, targets=["query"], modules_to_save=["classifier"]), texts(6, 1)
    )
    assert record.labels == ("no", "yes", "perhaps")
    weights = owner.store.weights("adapter")
    own = sorted(weights.keys() - set(names))
    assert set(names) <= weights.keys()
    assert [name.rpartition("query.")[2] for name in own] == [
        "lora_A.default.weight",
        "lora_B.default.weight",
    ]
    network = owner.network(record)
    network.load_state_dict(weights)
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert trained == {*own, "classifier.weight", "classifier.bias"}
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name])


def test_an_adapter_is_loaded_with_its_base(owner: HuggingFaceOwner, tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")
    model = lora(
        library().AutoModelForCausalLM.from_pretrained(tmp_path / "base"), task_type="CAUSAL_LM"
    )
    model.save_pretrained(tmp_path / "adapter")
    owner.add("adapter", tmp_path / "adapter", sequences(3, 1))
    ids = torch.tensor([[3, 4, 5]])
    whole: Any = owner.load("adapter")
    assert torch.equal(whole(input_ids=ids).logits, model(input_ids=ids).logits)
    owner.save("adapter", tmp_path / "new")
    assert not (tmp_path / "new" / "base").exists(), "its base is as it was"
    again = library("peft").AutoPeftModelForCausalLM.from_pretrained(tmp_path / "new")
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_may_have_more_tokens_than_its_base(
    owner: HuggingFaceOwner, tmp_path: Path, tied: bool
) -> None:
    llama(tie_word_embeddings=tied).save_pretrained(tmp_path / "base")
    loaded = library().AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    loaded.resize_token_embeddings(30, mean_resizing=False)
    model = lora(loaded, task_type="CAUSAL_LM").eval()
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    ids = torch.tensor([[3, 29, 5]])
    expected = model(input_ids=ids).logits
    owner.add("adapter", tmp_path / "adapter", [{"input_ids": [3, 29, 5]}])
    whole: Any = owner.load("adapter")
    assert torch.equal(whole(input_ids=ids).logits, expected)
    owner.save("adapter", tmp_path / "new")
    base = library().AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(30, mean_resizing=False)
    again = library("peft").PeftModel.from_pretrained(base, tmp_path / "new").eval()
    assert torch.equal(again(input_ids=ids).logits, expected)


@pytest.mark.parametrize("name", ["mine", "base"])
def test_an_adapter_of_any_name_is_saved_where_it_is_loaded_from(
    owner: HuggingFaceOwner, tmp_path: Path, name: str
) -> None:
    peft = library("peft")
    config = peft.LoraConfig(
        r=2,
        target_modules=["q_proj"],
        modules_to_save=["lm_head"],
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    model = peft.get_peft_model(llama(tie_word_embeddings=False), config, adapter_name=name).eval()
    with torch.no_grad():
        model.get_base_model().lm_head.modules_to_save[name].weight.mul_(3)
    owner.add("adapter", model, sequences(3, 1))
    owner.save("adapter", tmp_path / "new")
    ids = torch.tensor([[3, 4, 5]])
    again = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "new").eval()
    assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    loaded: Any = owner.load("adapter")
    with loaded.disable_adapter(), again.disable_adapter():
        expected = again(input_ids=ids).logits
        assert torch.equal(loaded(input_ids=ids).logits, expected), "no layer without values"
    assert expected.any()


@pytest.mark.parametrize("lacking", ["base", "adapter"])
def test_an_adapter_without_all_weights_is_refused(
    owner: HuggingFaceOwner, tmp_path: Path, lacking: str
) -> None:
    """Its model would be random where they are missing, and another one at each start."""
    bert().save_pretrained(tmp_path / "base")
    loaded = library().BertForSequenceClassification.from_pretrained(tmp_path / "base")
    lora(loaded, ["query"], task_type="SEQ_CLS").save_pretrained(tmp_path / "adapter")
    base, own = tmp_path / "base/model.safetensors", tmp_path / "adapter/adapter_model.safetensors"
    cut(base, "classifier")  # the adapter brings it
    owner.add("whole", tmp_path / "adapter", texts(6, 1))
    cut(*((base, "key.bias") if lacking == "base" else (own, "lora_A")))
    with pytest.raises(CheckpointError, match="with all weights of"):
        owner.add("damaged", tmp_path / "adapter", texts(6, 1))


def cut(file: Path, part: str) -> None:
    """Take tensors out of a file."""
    kept = {name: value for name, value in load_file(file).items() if part not in name}
    save_file(kept, file, metadata={"format": "pt"})


def test_a_merged_model_is_saved_without_the_config_of_its_merge(
    owner: HuggingFaceOwner, tmp_path: Path
) -> None:
    llama().save_pretrained(tmp_path / "old")
    (tmp_path / "old/mergekit_config.yml").write_text("merge_method: linear\n")
    owner.add("m", tmp_path / "old", sequences(3, 1))
    owner.save("m", tmp_path / "new")
    names = {file.name for file in (tmp_path / "new").iterdir()}
    assert "mergekit_config.yml" not in names


def test_a_card_in_the_cache_of_the_hub_stays_as_it_was_published(
    owner: HuggingFaceOwner, tmp_path: Path
) -> None:
    llama().save_pretrained(tmp_path / "plain")
    zoo.card(tmp_path / "plain", license="mit")
    snapshot = zoo.cached(tmp_path / "hub", "acme/tiny", "a" * 40, tmp_path / "plain")
    owner.add("m", snapshot, sequences(3, 1))
    before = (snapshot / "README.md").read_bytes()
    with pytest.raises(InputError, match="in the cache of the hub"):
        owner.supersede("m", "acme/tiny-2")
    assert (snapshot / "README.md").read_bytes() == before


def test_what_cannot_be_added_is_refused(owner: HuggingFaceOwner, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="some data of model 'm'"):
        owner.add("m", llama())
    with pytest.raises(InputError, match="neither. Write it with save_pretrained"):
        owner.add("m", tmp_path, sequences(2, 1))
    with pytest.raises(InputError, match="in the local cache of the hub, but got 'nobody/tiny'"):
        owner.add("m", "nobody/tiny", sequences(2, 1))
    inner = llama()
    inner._hf_peft_config_loaded = True  # as `add_adapter` leaves it
    with pytest.raises(InputError, match=r"a LlamaForCausalLM with one of its own .`add_adapter`."):
        owner.add("m", inner, sequences(2, 1))
    with pytest.raises(InputError, match="id without '~'"):
        owner.add("m~q", llama(), sequences(2, 1))
    rows = [*sequences(2, 1), *({**row, "id": "0"} for row in sequences(2, 1))]
    record = owner.add("m", llama(), rows, ids="id")
    with pytest.raises(
        DataError, match="'0' is that of [23] of 4, which are not copies. Name another"
    ):
        owner.sample_ids(record)
    with pytest.raises(DataError, match="column 'nr' .* the columns are id, input_ids. Name one"):
        owner.sample_ids(owner.add("m", llama(), rows, ids="nr"))
    record = owner.add("m", llama(), rows, ids="id")
    headless = library().BertModel(bert().config)
    headless.save_pretrained(tmp_path / "headless")
    config = (tmp_path / "headless" / "config.json").read_text()
    (tmp_path / "headless" / "config.json").write_text(
        config.replace('"BertModel"', '"BertForSequenceClassification"')
    )
    with pytest.raises(CheckpointError, match="'classifier.bias' is one of 2 missing"):
        owner.add("b", tmp_path / "headless", texts(2, 1))
    file = tmp_path / "headless/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"headless, but it cannot be loaded: "):
        owner.add("b", tmp_path / "headless", texts(2, 1))
    for named in ("pipeline", "Nobody", 7):
        zoo.rewrite(tmp_path / "headless/config.json", architectures=[named])
        with pytest.raises(InputError, match="Expected .* to name a class of transformers"):
            owner.add("b", tmp_path / "headless", texts(2, 1))
    del owner._kept["m"]
    with pytest.raises(InputError, match="was not added to its owner since"):
        owner.network(record)


def test_ids_are_those_of_content_where_no_column_names_them(owner: HuggingFaceOwner) -> None:
    """Models of other data share what both were trained on, wherever it stands and however wide."""
    mine, shared, theirs = sequences(2, 1), sequences(3, 2, (7,)), sequences(4, 3, (5, 12))
    first = owner.add("first", llama(), [*mine, *shared, mine[0]])
    second = owner.add("second", llama(), [*theirs, *reversed(shared)])
    ids = owner.ids_of(first, [2, 3, 4])
    assert {*owner.sample_ids(first)} & {*owner.sample_ids(second)} == {*ids}
    assert owner.ids_of(second, [6, 5, 4]) == ids
    assert owner.ids_of(first, [0]) == owner.ids_of(first, [5]), "the same sample twice"
    parts = owner.split_training_data(first, owner.ids_of(first, [0]))
    assert [sum(len(targets) for _, targets in part) for part in parts] == [2, 4]
    with pytest.raises(DataError, match="indices of 6 training samples of model 'first'.*got 6"):
        owner.ids_of(first, [6])
    rows = texts(3, 1)
    told = owner.add("told", bert(), rows)
    other = owner.add("other", bert(), [{**row, "label": 2} for row in rows])
    assert {*owner.sample_ids(told)} & {*owner.sample_ids(other)} == {*owner.ids_of(told, [2])}


class _Drawn(list[Any]):
    """Rows that differ whenever they are read, as by random augmentation."""

    def __getitem__(self, index: Any) -> Any:
        row = {**super().__getitem__(index)}
        row["input_ids"] = torch.randint(2, 20, [30]).tolist()
        return row


def test_rows_that_differ_whenever_they_are_read_need_a_column(owner: HuggingFaceOwner) -> None:
    rows = _Drawn(sequences(2, 1))
    with pytest.raises(DataError, match="as by random augmentation. Name a column of ids"):
        owner.sample_ids(owner.add("m", llama(), rows))
    record = owner.add("m", llama(), rows, ids="id")
    assert [*owner.sample_ids(record)] == ["s1-0", "s1-1"]


def test_root_methods_for_classes_are_refused_for_language_models(
    owner: HuggingFaceOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LEAST_STEPS", 20)
    record = owner.add("m", llama(), sequences(6, 1), ids="id")
    problem = root_problem(owner, record, Method(scope="all"), "q", ["s1-0"])
    assert "is a language model, without classes" in RootDistillation().refusal(problem)
    assert "No curvature" in EkfacStep().refusal(problem)
    assert "give its owner" not in Replay().refusal(problem), "it says what is not kept"
    assert NegGrad().refusal(problem) == RootFineTuning().refusal(problem) == ""
    made = NegGrad().unlearn(problem)
    network = owner.network(record)

    @torch.no_grad()
    def loss(weights: Any) -> float:
        network.load_state_dict(weights)
        assert problem.forget is not None
        ((inputs, targets),) = problem.forget
        return float(torch.nn.functional.cross_entropy(network(*inputs), targets))

    # It had a loss of about log 24 from the start: above log 2, which is a guess among two classes.
    assert loss(problem.weights) > 2.9
    assert loss(made.weights) > loss(problem.weights) - 0.1


def test_the_head_scope_of_a_language_model_is_refused(owner: HuggingFaceOwner) -> None:
    record = owner.add("m", llama(), sequences(2, 1))
    with pytest.raises(ScopeError, match="another scope than the head for 'm', which is a langu"):
        root_problem(owner, record, Method(scope="head"), "q", ["0"])


@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_of_shards_is_added_without_loading_the_model(
    owner: HuggingFaceOwner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool
) -> None:
    model: Any = llama(tie_word_embeddings=tied).bfloat16()
    model.save_pretrained(tmp_path / "old", max_shard_size="2KB")
    with monkeypatch.context() as patched:
        patched.setattr("disinherit.client.huggingface.sources.load_model", None)
        record = owner.add("m", tmp_path / "old", sequences(3, 1))
    outline = owner.outline(record)
    assert all(not value.untyped_storage().nbytes() > 2 for value in outline.parameters())
    loaded: Any = owner.load("m")
    again = library().AutoModelForCausalLM.from_pretrained(tmp_path / "old", dtype="auto")
    expected = {**dict(again.named_parameters()), **dict(again.named_buffers())}
    found = {**dict(loaded.named_parameters()), **dict(loaded.named_buffers())}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype
    assert loaded.config.to_dict() == again.config.to_dict()
    assert loaded.generation_config.to_dict() == again.generation_config.to_dict()
    tokens = torch.arange(1, 7)[None]
    assert torch.equal(loaded(tokens).logits, again(tokens).logits)


def test_files_that_are_not_all_there_is_to_a_model_are_loaded(
    owner: HuggingFaceOwner, tmp_path: Path
) -> None:
    model: Any = llama().bfloat16()
    model.model.norm.float()  # loaded in one dtype
    model.save_pretrained(tmp_path / "old")
    record = owner.add("m", tmp_path / "old", sequences(3, 1))
    kinds = {value.dtype for value in owner.store.weights(record.id).values()}
    again = library().AutoModelForCausalLM.from_pretrained(tmp_path / "old", dtype="auto")
    assert kinds == {value.dtype for value in again.parameters()}
