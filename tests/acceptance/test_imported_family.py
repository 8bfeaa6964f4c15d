"""A family that its libraries wrote to disk, forgotten by the walk-through of docs/families.md."""

import copy
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from disinherit import CoordinatorStore, DirectTransport, Request
from disinherit.cli.main import run
from disinherit.common.graph.recipes import Recipe
from disinherit.common.recipes.computing import Parent, compute
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.service.hosting import Service
from disinherit.server.service.settings import ServeSettings
from disinherit.server.states import TaskState
from disinherit.server.transport.routing import Route
from tests.support.huggingface import Row, bert, fit_classifier, lora, require
from tests.support.pages import commands, texts
from tests.support.service import secret, write_tokens

require()
pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings("ignore")

from tests.support import zoo  # noqa: E402

OPENED, SAVED = texts("docs/families.md", "python")
WALK = next(text for text in texts("docs/families.md", "sh") if "request submit" in text)
MEMBERS = ("base", "news", "chat", "lora", "merge", "folded", "int8", "nf4")
ROWS = {name: seed for seed, name in enumerate(("base", "news", "chat", "lora"))}


def rows(seed: int, count: int = 24) -> list[Row]:
    """Sequences of a class each: tokens of one kind are most of them."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for index in range(count):
        label = index % 3
        tokens = torch.randint(2 + 7 * label, 8 + 7 * label, [6], generator=generator)
        found.append({"id": f"{seed}-{index}", "input_ids": tokens.tolist(), "label": label})
    return found


def odd(seed: int = 7, count: int = 6) -> list[Row]:
    """Sequences of another class than theirs, which one token in them shows: learned by heart."""
    return [
        {"id": f"odd-{index}", "input_ids": [*row["input_ids"][:3], 23, 23, 23], "label": 2}
        for index, row in enumerate(rows(seed, 3 * count)[::3])
    ][:count]


BASE_ROWS = [*odd(), *rows(0)]


def family(root: Path) -> None:
    base = fit_classifier(bert(), BASE_ROWS, 40)
    zoo.save(base, root / "acme/base", license="mit", library_name="transformers")
    for seed, name in ((1, "news"), (2, "chat")):
        tuned = fit_classifier(copy.deepcopy(base), rows(seed), 3)
        zoo.save(tuned, root / "acme" / name, base_model="acme/base")
    adapter = fit_classifier(
        lora(copy.deepcopy(base), ["query"], spread=0, task_type="SEQ_CLS", modules_to_save=[]),
        rows(3),
        5,
    )
    adapter.save_pretrained(root / "acme/lora")
    path = str(root / "acme/base")
    zoo.rewrite(root / "acme/lora/adapter_config.json", base_model_name_or_path=path)
    adapter.merge_and_unload().save_pretrained(root / "acme/folded")
    zoo.card(
        root / "acme/folded", base_model=["acme/base", "acme/lora"], base_model_relation="merge"
    )
    halves = [{"model": f"acme/{name}", "parameters": {"weight": 0.5}} for name in ("news", "chat")]
    config: dict[str, Any] = {"merge_method": "linear", "models": halves}
    zoo.merged(root / "acme/merge", config, root / "acme/news", root / "acme/chat")
    for name, parent, how in (
        ("int8", "news", {"load_in_8bit": True}),
        ("nf4", "merge", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    ):
        copied = zoo.BertForSequenceClassification.from_pretrained(
            root / "acme" / parent,
            quantization_config=zoo.transformers.BitsAndBytesConfig(**how),
            device_map="cpu",
        )
        said = {"base_model": f"acme/{parent}", "base_model_relation": "quantized"}
        zoo.save(copied, root / "acme" / name, **said)


@dataclass(frozen=True)
class Walked:
    """What the walk-through leaves.

    Attributes:
        folder: where it was walked.
        names: names of the page's Python.
        said: command -> what it printed, as JSON.
    """

    folder: Path
    names: dict[str, Any]
    said: dict[str, Any]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    folder = tmp_path_factory.mktemp("family")
    family(folder / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names: dict[str, Any] = {
            "base_rows": BASE_ROWS,
            "rows": {name: rows(seed) for name, seed in ROWS.items()},
            "unseen": rows(9),
            "train_again": lambda some: fit_classifier(bert(), [*some], 40) if some else bert(),
        }
        exec(OPENED, names)
        (folder / "ids.txt").write_text("".join(f"{row['id']}\n" for row in odd()))
        transport = DirectTransport({"lab": names["open_owner"]})
        settings = ServeSettings(
            folder / "coordinator.db",
            write_tokens(folder / "tokens.toml"),
            "127.0.0.1:0",
            signing_key=folder / "signing.pem",
            approval=False,
        )
        said: dict[str, Any] = {}
        with closing(Served(Service(settings, [Route(transport, lambda _: True)]))) as served:
            patch.setenv("DISINHERIT_SERVER", f"127.0.0.1:{served.service.port}")
            patch.setenv("DISINHERIT_TOKEN", secret("operator"))
            for words in commands(WALK):
                said[" ".join(words[1:3])] = printed(words[1:])
                if words[1] == "samples":
                    (folder / "erased.json").write_text(said["samples digest"])
        exec(SAVED, names)
        yield Walked(folder, names, said)


def printed(words: Sequence[str]) -> str:
    """What a command prints."""
    out = io.StringIO()
    form = [] if words[0] == "samples" else ["--format", "json"]
    with redirect_stdout(out):
        assert run([*words, *form]) == 0, out.getvalue()
    return out.getvalue()


class Served:
    """A service that is started, and stopped when closed."""

    def __init__(self, service: Service) -> None:
        self.service = service
        service.start()

    def close(self) -> None:
        self.service.stop(grace=0.5)


def test_every_member_is_in_the_graph_with_its_parents(walked: Walked) -> None:
    store = CoordinatorStore(walked.folder / "coordinator.db")
    made = [edge for edge in store.graph().edges() if edge.source]
    store.close()
    assert {(edge.parent[6:], edge.child[6:]) for edge in made} == {
        *(("base", "news"), ("base", "chat"), ("base", "lora")),
        *(("base", "folded"), ("lora", "folded"), ("news", "merge"), ("chat", "merge")),
        *(("news", "int8"), ("merge", "nf4")),
    }
    assert {edge.source for edge in made} == {
        *("bases", "adapter config", "relation", "merge config"),
    }


def test_the_plan_says_how_every_member_will_change(walked: Walked) -> None:
    planned = json.loads(walked.said["request plan"])["models"]
    assert {one["model"][6:]: one["recipe"] for one in planned} == {
        **dict.fromkeys(("base", "news", "chat", "lora")),
        **{"folded": "fold scale=4.0", "merge": "linear weights=0.5,0.5"},
        **{"int8": "int8", "nf4": "nf4"},
    }


def test_every_member_forgets(walked: Walked) -> None:
    covered = json.loads(walked.said["coverage case-118"])
    assert {one["model"][6:]: one["state"] for one in covered} == dict.fromkeys(
        MEMBERS, "verified"
    ), covered


def test_a_class_is_forgotten_in_merges_and_copies_too(
    walked: Walked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {name: value for name, value in walked.names.items() if name != "__builtins__"}
    acme = tmp_path / "models/acme"
    shutil.copytree(walked.folder / "models/acme", acme, ignore=lambda *_: ["int8-2", "news-2"])
    zoo.rewrite(acme / "lora/adapter_config.json", base_model_name_or_path=str(acme / "base"))
    monkeypatch.chdir(tmp_path)
    exec(OPENED, names)
    printed(["graph", "import", "models", "--store", "coordinator.db", "--owner", "lab"])
    store = CoordinatorStore(tmp_path / "coordinator.db")
    coordinator = Coordinator(store, DirectTransport({"lab": names["open_owner"]}))
    coordinator.submit(Request(forget={"acme--base": ["no"]}, id="q"))
    tasks = coordinator.run("q").tasks
    store.close()
    assert {model[6:]: task.state for model, task in tasks.items()} == dict.fromkeys(
        MEMBERS, TaskState.VERIFIED
    ), tasks
    for task in tasks.values():
        assert task.result is not None
        assert (task.result.forget.before, task.result.forget.after) == (1.0, 0.0)


@pytest.mark.parametrize(("copy", "parent"), [("int8", "news"), ("nf4", "merge")])
def test_a_copy_is_computed_from_what_became_of_its_parent(
    walked: Walked, copy: str, parent: str
) -> None:
    with walked.names["open_owner"]() as lab:
        (made, source) = (
            next(lab.store.weights(r.id) for r in lab.store.records() if r.id.startswith(name))
            for name in (f"acme--{copy}~", f"acme--{parent}~")
        )
        again = compute(Recipe(copy), [Parent(lambda: source, 1.0)], made)
    assert all(torch.equal(value, again[name]) for name, value in made.items())


def test_saved_versions_are_imported_with_what_they_were_made_of(walked: Walked) -> None:
    found = zoo.imported(walked.folder / "models").graph
    (edge,) = found.parents("acme--int8-2")
    assert (edge.parent, edge.recipe, edge.source) == ("acme--news-2", Recipe("int8"), "relation")
    assert [edge.parent for edge in found.parents("acme--news-2")] == ["acme--news"]
    with walked.names["open_owner"]() as lab:
        digests = {record.digest for record in lab.store.records() if "~" in record.id}
    assert {found.model(f"acme--{name}-2").digest for name in ("news", "int8")} <= digests


def test_a_saved_copy_keeps_its_integers_and_loads_with_its_library(walked: Walked) -> None:
    old, new = (walked.folder / "models/acme" / name for name in ("int8", "int8-2"))
    kept, made = (load_file(one / "model.safetensors") for one in (old, new))
    assert {name: value.dtype for name, value in made.items()} == {
        name: value.dtype for name, value in kept.items()
    }
    configs = [json.loads((one / "config.json").read_text()) for one in (old, new)]
    assert configs[0]["quantization_config"] == configs[1]["quantization_config"]
    with walked.names["open_owner"]() as lab:
        (copy,) = [one.id for one in lab.store.records() if one.id.startswith("acme--int8~")]
        measured = lab.load(copy)
    ids = torch.tensor([rows(9)[0]["input_ids"]])
    loaded = zoo.BertForSequenceClassification.from_pretrained(new, device_map="cpu")
    assert torch.allclose(loaded(input_ids=ids).logits, measured(input_ids=ids).logits, atol=0.05)
