"""A family that its libraries wrote to disk: imported, and a class forgotten in every member."""

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from disinherit import (
    CampaignResult,
    Coordinator,
    CoordinatorStore,
    DirectTransport,
    InheritanceGraph,
    ModelStore,
    Request,
)
from disinherit.cli.main import run
from tests.support.huggingface import Row, bert, fit_classifier, lora, require

require()
pytestmark = pytest.mark.filterwarnings("ignore")

from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402
from tests.support import zoo  # noqa: E402

MEMBERS = ("base", "news", "chat", "lora", "merge", "folded")


def rows(seed: int, count: int = 24) -> list[Row]:
    """Sequences of a class each: tokens of one kind are most of them."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for index in range(count):
        label = index % 3
        tokens = torch.randint(2 + 7 * label, 9 + 7 * label, [6], generator=generator)
        found.append({"input_ids": tokens.tolist(), "label": label})
    return found


def family(root: Path) -> None:
    base = fit_classifier(bert(), rows(0), 40)
    zoo.save(base, root / "acme/base", license="mit", library_name="transformers")
    for seed, name in ((1, "news"), (2, "chat")):
        tuned = fit_classifier(copy.deepcopy(base), rows(seed), 5)
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


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[InheritanceGraph, Any]]:
    """The graph after the import, and the result of the campaign."""
    folder = tmp_path_factory.mktemp("family")
    family(folder / "models")
    with HuggingFaceOwner(ModelStore(folder / "store", "lab")) as lab:
        store = CoordinatorStore(folder / "coordinator.db")
        coordinator = Coordinator(store, DirectTransport({"lab": lambda: nullcontext(lab)}))
        for seed, name in enumerate(MEMBERS):
            record = lab.add(
                f"acme--{name}", folder / "models/acme" / name, rows(seed), evaluation=rows(9)
            )
            store.add_model(record)
        command = ["graph", "import", str(folder / "models"), "--store", str(folder)]
        assert run([*command, "--owner", "lab"]) == 0
        graph = store.graph()
        coordinator.submit(Request(id="yes", forget={"acme--base": ["yes"]}))
        yield graph, coordinator.run("yes")
        store.close()


def test_every_member_is_in_the_graph_with_its_parents(
    done: tuple[InheritanceGraph, CampaignResult],
) -> None:
    graph, _ = done
    assert {(edge.parent[6:], edge.child[6:]) for edge in graph.edges()} == {
        *(("base", "news"), ("base", "chat"), ("base", "lora")),
        *(("base", "folded"), ("lora", "folded"), ("news", "merge"), ("chat", "merge")),
    }
    assert {edge.source for edge in graph.edges()} == {
        *("bases", "adapter config", "relation", "merge config"),
    }


def test_every_member_forgets(done: tuple[InheritanceGraph, CampaignResult]) -> None:
    _, result = done
    states = {model[6:]: task.state.value for model, task in result.tasks.items()}
    assert states == dict.fromkeys(MEMBERS, "verified"), {
        model: task.reason for model, task in result.tasks.items()
    }
