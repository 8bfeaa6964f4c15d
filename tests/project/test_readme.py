"""The examples of the pages run as they stand there, on the reader's own modules and loaders."""

import contextlib
import copy
import importlib.util
import io
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import disinherit
from disinherit.client.store.store import ModelStore
from disinherit.server.flower.owner_keys import read_owner_keys
from disinherit.server.recording.recorder import node_name
from tests import ROOT
from tests.support.blobs import accuracy, blobs, trained
from tests.support.fake_grid import FakeGrid
from tests.support.federation import SERVER, Federation
from tests.support.owner import make_network
from tests.support.owner_nodes import make_owner_grid
from tests.support.pages import blocks, name_of, pages, texts

from flwr.app import ArrayRecord, Context, RecordDict  # isort: skip  # what it imports may warn
from flwr.serverapp import ServerApp  # isort: skip
from flwr.serverapp.strategy import FedAvg  # isort: skip

EXAMPLE = ROOT / "examples" / "own_owner.py"
RUN_HERE = {
    "README.md": 4,
    "docs/families.md": 2,  # tests/acceptance/test_imported_family.py
    "docs/federation.md": 7,
    "docs/flower.md": 1,  # tests/flower/test_forgetting.py
    "docs/huggingface.md": 4,  # tests/acceptance/test_huggingface_page.py
    "docs/method.md": 1,
    "docs/privacy.md": 2,
    "docs/service.md": 1,  # tests/server/service/test_webhooks.py
    "docs/tutorial-agent.md": 1,  # tests/acceptance/test_tutorials.py
    "docs/tutorial-erasure.md": 1,  # tests/acceptance/test_tutorials.py
    "docs/tutorial-family.md": 2,  # tests/acceptance/test_tutorials.py
    "docs/tutorial-federation.md": 3,  # tests/acceptance/test_tutorials.py
    "docs/tutorial-first.md": 3,  # tests/acceptance/test_tutorials.py
}
"""Page -> blocks of Python that a test runs, below if it is not said where."""

# Flower imports typer, which uses what click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click:DeprecationWarning")


def test_every_block_of_python_is_run() -> None:
    made_from_code = "docs/api.md"  # its examples are doctests
    found = {name_of(page): len(texts(page, "python")) for page in pages()}
    found.pop(made_from_code)
    assert {name: count for name, count in found.items() if count} == RUN_HERE


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The names of the example, in a folder where `north` has trained `base`."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("own_owner", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.DigitsOwner(tmp_path, "north") as north:
        base = north.train("base")
    return {**vars(module), "base": base}


def test_the_five_lines_make_a_network_of_models_forget() -> None:
    found = blocks("README.md")
    place, example = next(
        (place, text) for place, (_, text) in enumerate(found) if text.startswith("import disin")
    )
    base = trained(blobs([0, 1, 2], seed=1))
    child = trained(blobs([0, 1, 2], seed=2), base)
    assert all(accuracy(model, [0]) > 0.85 for model in (base, child))
    assert len(example.splitlines()) == 6, "an import, an empty line, and four that do it"
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(
            example,
            {
                "base": base,
                "child": child,
                "base_loader": DataLoader(blobs([0, 1, 2], seed=1), 32, shuffle=True),
                "child_loader": DataLoader(blobs([0, 1, 2], seed=2), 32),
                "test_loader": DataLoader(blobs([0, 1, 2], seed=99), 32),
            },
        )

    for model in (base, child):
        assert accuracy(model, [0]) < 0.05
        assert accuracy(model, [1, 2]) > 0.85
    shown = found[place + 1][1]
    assert re.sub(r"[\d.]+%", "#", printed.getvalue()) == re.sub(r"[\d.]+%", "#", shown)


def test_a_root_that_can_be_trained_again_is_replayed_without_samples() -> None:
    _, example, *_ = texts("README.md", "python")

    def make_model() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))

    def train(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(8):
            for inputs, targets in batches:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
        return model

    torch.manual_seed(0)
    loader = DataLoader(blobs([0, 1, 2], seed=1), 32)
    base = train(make_model(), loader)
    before = copy.deepcopy(base.state_dict())
    used: dict[str, Any] = {
        "disinherit": disinherit,
        "make_model": make_model,
        "train": train,
        "base": base,
        "base_loader": loader,
        "child": trained(blobs([0, 1, 2], seed=2), base),
        "child_loader": DataLoader(blobs([0, 1, 2], seed=2), 32),
        "test_loader": DataLoader(blobs([0, 1, 2], seed=99), 32),
    }
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(example, used)

    assert f"# {printed.getvalue().strip()}" in example
    left = [
        (inputs[3:] if at == 0 else inputs, targets[3:] if at == 0 else targets)
        for at, (inputs, targets) in enumerate(loader)
    ]
    torch.manual_seed(0)
    alone = train(make_model(), left).state_dict()
    assert all(value.equal(alone[name]) for name, value in base.state_dict().items())
    assert not all(value.equal(before[name]) for name, value in base.state_dict().items())


def test_the_method_by_hand_makes_models_forget() -> None:
    (example,) = texts("docs/method.md", "python")
    base = trained(blobs([0, 1, 2], seed=1))
    models = {"base": base, "child": trained(blobs([0, 1, 2], seed=2), base)}
    assert all(accuracy(model, [0]) > 0.85 for model in models.values())

    exec(
        example,
        {
            "models": models,
            "classes": ["cat", "dog", "owl"],
            "forget_loader": DataLoader(blobs([0], seed=1), 32),
            "retain_loader": DataLoader(blobs([1, 2], seed=2), 32),
        },
    )

    for model in models.values():
        assert accuracy(model, [0]) < 0.05
        assert accuracy(model, [1, 2]) > 0.85


def test_a_federation_of_the_readme_serves_a_request(
    example: dict[str, Any], tmp_path: Path
) -> None:
    *_, client_app, coordinator = texts("README.md", "python")
    given = {"open_owner": example["open_owner"]}
    exec(client_app, given)
    grid = make_owner_grid(given["app"], ["north", "south"], tmp_path)
    used: dict[str, Any] = {"grid": grid}

    exec(coordinator, used)

    tasks = used["coordinator"].store.tasks(used["request"].id)
    used["coordinator"].store.close()
    assert {model: str(task.state) for model, task in tasks.items()} == {"base": "verified"}


def test_the_blocks_about_a_federation_serve_a_request(
    example: dict[str, Any], tmp_path: Path
) -> None:
    app, description, registration, summaries, request, _calibration, server = texts(
        "docs/federation.md", "python"
    )
    front_door = {name: getattr(disinherit, name) for name in disinherit.__all__}
    used: dict[str, Any] = {
        **front_door,
        **{name: example[name] for name in ("Context", "DigitsOwner", "Path", "base")},
    }
    exec(app, used)
    with example["DigitsOwner"](tmp_path, "south") as owner:
        used |= {
            "owner": owner,
            "model": owner.network(used["base"]),
            "classes": example["LABELS"],
            "batch": torch.zeros(2, 64),
        }
        exec(description, used)
    used["child"] = used["record"]
    exec(registration, used)
    grid = make_owner_grid(used["app"], ["north", "south"], tmp_path)
    owners = disinherit.NamedOwners(grid, expected=2)
    transport = disinherit.FlowerTransport(grid, owners)
    used["coordinator"] = disinherit.Coordinator(used["store"], transport)
    exec(summaries, used)
    assert used["errors"] == {}
    exec(request, used)
    assert used["plan"].affected == ("base", "child")
    assert used["result"].tasks["base"].state == "verified"
    again = disinherit.Request(id="again", forget={"base": ["5"]})
    used["coordinator"].submit(again)
    used["store"].close()

    exec(server, used)
    run_the_app(used["app"], grid, tmp_path)

    store = disinherit.CoordinatorStore(tmp_path / "coordinator.db")
    states = {task.state for task in store.tasks("again").values()}
    store.close()
    assert disinherit.TaskState.VERIFIED in states
    assert states <= {disinherit.TaskState.VERIFIED, disinherit.TaskState.EXEMPT}


def test_the_block_about_calibration_trains_without_the_client(tmp_path: Path) -> None:
    block = next(text for text in texts("docs/federation.md", "python") if "calibrate(" in text)
    federation = Federation(tmp_path, rounds=1)
    with ModelStore(tmp_path / SERVER, SERVER) as models:
        used = {name: getattr(disinherit, name) for name in disinherit.__all__} | {
            "FedAvg": FedAvg,
            "ArrayRecord": ArrayRecord,
            "Net": make_network,
            "coordinator": federation.coordinator,
            "store": federation.store,
            "grid": federation.grid(),
            "keep": None,
            "owner_of": node_name,
            "model_store": models,
        }
        asked = block.replace('"north"', '"node-3"').replace('"ward"', '"p"')
        federation.asked.clear()
        exec(asked, used)
    assert set(federation.asked) == {1, 2}
    assert len(federation.asked) == 2 * 3
    assert "p.r4" in {record.id for record in federation.store.graph().models()}


class Asked(dict[str, Any]):
    """A configuration that knows which of its keys were looked up."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.keys_asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.keys_asked.add(key)
        return super().get(key, default)


def run_the_app(app: ServerApp, grid: FakeGrid, folder: Path) -> None:
    """Run a ServerApp with the configuration of docs/federation.md, in this folder."""
    flower_app, keys = texts("docs/federation.md", "toml")
    shown = tomllib.loads(keys)["owners"]
    registered = read_owner_keys(folder / "owners.toml")
    assert shown.keys() == registered.keys()
    (folder / shown["north"]).write_bytes(grid.keys[7])
    (folder / "owners.toml").write_text(keys.replace(shown["south"], grid.keys[8].decode()))
    assert read_owner_keys(folder / "owners.toml") == registered
    table = tomllib.loads(flower_app)["tool"]["flwr"]["app"]
    assert table["components"] == {"serverapp": "server:app", "clientapp": "own_owner:app"}
    config = Asked(
        {
            key: value.replace("/srv/disinherit", str(folder)) if isinstance(value, str) else value
            for key, value in table["config"].items()
        }
    )
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    app(grid, context)
    assert config.keys_asked == config.keys()


def test_the_policy_of_an_owner_is_found() -> None:
    release, acceptance = texts("docs/privacy.md", "python")
    used: dict[str, Any] = {}
    exec(release, used)
    assert used["Clinic"]().release_policy == disinherit.ReleasePolicy(min_forget_samples=20)
    exec(acceptance, used)
    assert used["Clinic"]().acceptance_policy.refuse_deltas_of == ("mallory",)
