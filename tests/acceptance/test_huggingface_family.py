"""A family of language models forgets some sequences: a base, a fine-tune, and an adapter on it.

The request goes from coordinator to two owners.  Every member is compared with its twin, made in
the same way from a base that never saw the sequences, and is saved and loaded again.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from disinherit import (
    CampaignResult,
    Coordinator,
    CoordinatorStore,
    DirectTransport,
    Inheritance,
    InheritanceKind,
    Method,
    ModelStore,
    Owner,
    Request,
)
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.common.errors import RequestError
from disinherit.common.wire.samples import digest_samples
from tests.support.huggingface import (
    Row,
    counting,
    fit,
    library,
    llama,
    lora,
    loss_of,
    require,
    sequences,
)

require()
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")

from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402

FORGOTTEN, WITHOUT = sequences(4, 1), counting(16, 1)
BASE = FORGOTTEN + WITHOUT
CHAT, ADAPTED = ([*counting(8, 1), *counting(6, step)] for step in (2, 3))
UNSEEN = sequences(16, 2)
FORGET = [row["id"] for row in FORGOTTEN]
MEMBERS = ("base", "chat", "adapter")


def start() -> Any:
    return llama(hidden_size=32, intermediate_size=48)


def opened(owner: HuggingFaceOwner) -> Callable[[], AbstractContextManager[Owner]]:
    return lambda: nullcontext(owner)


def family(rows: list[Row]) -> dict[str, Any]:
    base = fit(start(), rows, 120)
    chat = fit(copy.deepcopy(base), CHAT, 30, 0.002)
    adapter = lora(copy.deepcopy(chat), ["q_proj", "v_proj"], spread=0, task_type="CAUSAL_LM")
    return {"base": base, "chat": chat, "adapter": fit(adapter, ADAPTED, 20)}


@torch.no_grad()
def loss(model: Any, rows: list[Row]) -> float:
    return float(torch.stack([loss_of(model, row) for row in rows]).mean())


@dataclass
class Outcome:
    """What became of a family.

    Attributes:
        folder: of everything.
        owners: those of the models.
        result: of the campaign.
        before: the models as they were.
        after: the unlearned models.
        twins: models that never saw what was forgotten.
    """

    folder: Path
    owners: dict[str, HuggingFaceOwner]
    result: CampaignResult
    before: dict[str, Any]
    after: dict[str, Any]
    twins: dict[str, Any]

    def holder(self, model: str) -> HuggingFaceOwner:
        return self.owners["lab" if model == "base" else "shop"]

    def successor(self, model: str) -> str:
        result = self.result.tasks[model].result
        assert result is not None
        return result.successor.id


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp("family")
    models = family(BASE)
    for name, model in models.items():
        model.save_pretrained(folder / name)
    card = "---\nlicense: mit\ntags:\n- tiny\n---\n# Tiny\n\nWords.\n"
    (folder / "chat" / "README.md").write_text(card)
    (folder / "chat" / "tokenizer.json").write_text("{}")

    def again(rows: Any) -> Any:
        # A model, or its state_dict.
        return start() if rows is None else fit(start(), rows, 120).state_dict()

    with (
        HuggingFaceOwner(ModelStore(folder / "lab", "lab")) as lab,
        HuggingFaceOwner(ModelStore(folder / "shop", "shop")) as shop,
    ):
        owners = {"lab": lab, "shop": shop}
        coordinator = Coordinator(
            CoordinatorStore(folder / "coordinator.db"),
            DirectTransport({name: opened(one) for name, one in owners.items()}),
        )
        records = [
            lab.add("base", folder / "base", BASE, evaluation=UNSEEN, ids="id", retrain=again),
            shop.add("chat", folder / "chat", CHAT, evaluation=UNSEEN, ids="id"),
            shop.add("adapter", models["adapter"], ADAPTED, evaluation=UNSEEN, ids="id"),
        ]
        for record, parent in zip(records, (None, *MEMBERS), strict=False):
            edges = [Inheritance(parent, record.id, InheritanceKind.TRANSFER)] if parent else []
            coordinator.store.add_model(record, edges)
        listed = digest_samples(sample_key(lab.store.root), "00" * 16, FORGET)
        request = Request(id="forget-four", samples={"base": listed}, method=Method(scope="all"))
        coordinator.submit(request)
        result = coordinator.run(request.id)
        found = Outcome(folder, owners, result, models, {}, family(WITHOUT))
        for name in MEMBERS:
            assert result.tasks[name].result is not None, result.tasks[name].reason
            found.after[name] = found.holder(name).load(found.successor(name))
        yield found
        with pytest.raises(RequestError, match="'base', which is a language model"):
            coordinator.submit(Request(id="classes", forget={"base": ["<sequence>"]}))
        coordinator.store.close()


def test_the_root_is_its_twin(outcome: Outcome) -> None:
    result = outcome.result.tasks["base"].result
    assert result is not None
    assert result.deltas[0].root_method == "replay"
    twin = outcome.twins["base"].state_dict()
    for name, value in outcome.after["base"].state_dict().items():
        assert torch.equal(value, twin[name]), name


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_forgets_as_its_twin_never_knew(outcome: Outcome, name: str) -> None:
    before, after, twin = (
        loss(models[name], FORGOTTEN) for models in (outcome.before, outcome.after, outcome.twins)
    )
    own = {"base": WITHOUT, "chat": CHAT, "adapter": ADAPTED}[name]
    kept, expected = (loss(models[name], own) for models in (outcome.after, outcome.twins))
    assert outcome.result.tasks[name].state == "verified", outcome.result.tasks[name].reason
    assert twin - before > 2, "it knew them"
    assert after - before > 0.7 * (twin - before)
    # Of an adapter's model only the adapter is repaired, which has 256 values.
    assert kept < expected + (1 if name == "adapter" else 0.3)


@pytest.mark.parametrize("name", MEMBERS)
def test_results_are_saved_and_loaded_with_equal_logits(outcome: Outcome, name: str) -> None:
    owner, folder = outcome.holder(name), outcome.folder / f"{name}-unlearned"
    owner.save(outcome.successor(name), folder, attestation="https://lab.example/forget-four.json")
    kind = library("peft").AutoPeftModelForCausalLM
    if name != "adapter":
        kind = library().AutoModelForCausalLM
    loaded = kind.from_pretrained(str(folder)).eval()
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        got, expected = (one(input_ids=ids).logits for one in (loaded, outcome.after[name]))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert not torch.equal(got, outcome.before[name](input_ids=ids).logits)


def test_the_card_stays_and_gets_what_it_was_made_of(outcome: Outcome) -> None:
    owner, folder = outcome.holder("chat"), outcome.folder / "with-card"
    owner.save(
        outcome.successor("chat"),
        folder,
        base_model="lab/chat",
        attestation="https://lab.example/forget-four.json",
    )
    card: Any = library("huggingface_hub").ModelCard.load(folder / "README.md")
    assert (card.data.base_model, card.data.base_model_relation) == ("lab/chat", "finetune")
    assert card.data.license == "mit"
    assert card.data.tags == ["tiny", "disinherit", "unlearned"]
    assert "Words." in card.text
    assert "| `forget-four` | approximated |" in card.text
    assert "Attestation: https://lab.example/forget-four.json." in card.text
    assert "Made of `chat` by [Disinherit]" in card.text
    assert (folder / "tokenizer.json").read_text() == "{}"
    owner.supersede("chat", "lab/chat-2")
    old: Any = library("huggingface_hub").ModelCard.load(outcome.folder / "chat" / "README.md")
    assert old.data.new_version == "lab/chat-2"


def test_the_card_of_an_adapter_names_its_base(outcome: Outcome) -> None:
    folder = outcome.folder / "adapter-with-card"
    outcome.holder("adapter").save(outcome.successor("adapter"), folder)
    card: Any = library("huggingface_hub").ModelCard.load(folder / "README.md")
    assert card.data.base_model is None, "a path is nobody else's"
    assert card.data.tags == ["disinherit", "unlearned"]
    again = outcome.folder / "adapter-with-name"
    outcome.holder("adapter").save(outcome.successor("adapter"), again, base_model="lab/chat-2")
    card = library("huggingface_hub").ModelCard.load(again / "README.md")
    assert (card.data.base_model, card.data.base_model_relation) == ("lab/chat-2", "adapter")


def test_an_owner_that_is_opened_again_has_its_versions(outcome: Outcome) -> None:
    with HuggingFaceOwner(ModelStore(outcome.folder / "lab", "lab")) as again:
        record = again.add("base", outcome.folder / "base", BASE, ids="id")
        assert record == outcome.owners["lab"].store.record("base")
        loaded = again.load(outcome.successor("base")).state_dict()
    for name, value in outcome.after["base"].state_dict().items():
        assert torch.equal(value, loaded[name])


def test_samples_are_named_by_a_column(outcome: Outcome) -> None:
    lab = outcome.owners["lab"]
    record = lab.store.record("base")
    assert [*lab.sample_ids(record)] == [row["id"] for row in BASE]
    forget, kept = lab.split_training_data(record, FORGET)
    assert [len(targets) for _, targets in forget] == [4]
    assert sum(len(targets) for _, targets in kept) == len(WITHOUT)


def test_models_of_one_owner_share_the_samples_that_both_were_trained_on(tmp_path: Path) -> None:
    """No column names samples: those at the same places of other data are other samples."""
    base = fit(start(), BASE, 120)
    late = [*CHAT, *FORGOTTEN[:2]]

    def again(rows: Any) -> Any:
        return start() if rows is None else fit(start(), rows, 120)

    with HuggingFaceOwner(ModelStore(tmp_path / "lab", "lab")) as lab:
        coordinator = Coordinator(
            CoordinatorStore(tmp_path / "coordinator.db"), DirectTransport({"lab": opened(lab)})
        )
        record = lab.add("base", base, BASE, evaluation=UNSEEN, retrain=again)
        coordinator.store.add_model(record, [])
        for name, rows in (("chat", CHAT), ("late", late)):
            model = fit(copy.deepcopy(base), rows, 30, 0.002)
            edges = [Inheritance("base", name, InheritanceKind.TRANSFER)]
            coordinator.store.add_model(lab.add(name, model, rows, evaluation=UNSEEN), edges)
        key = sample_key(lab.store.root)
        listed = digest_samples(key, "00" * 16, lab.ids_of(record, range(len(FORGOTTEN))))
        coordinator.submit(Request(id="q", samples={"base": listed}, method=Method(scope="all")))
        result = coordinator.run("q")
        coordinator.store.close()
    assert result.tasks["chat"].state == "verified"
    said = {name: "was itself trained on" in task.reason for name, task in result.tasks.items()}
    assert said == {"base": False, "chat": False, "late": True}, result.tasks
    assert "itself trained on 2 of the samples" in result.tasks["late"].reason
