"""The examples of the pages run as they stand there, on the reader's own modules and loaders."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import disinherit
from tests import ROOT
from tests.support.blobs import accuracy, blobs, trained
from tests.support.owner_nodes import make_owner_grid

BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
EXAMPLE = ROOT / "examples" / "own_owner.py"
RUN_HERE = {
    "README.md": 3,
    "docs/federation.md": 6,
    "docs/method.md": 1,
    "docs/privacy.md": 1,
}
"""Page -> blocks of Python that a test below runs."""

# Flower imports typer, which uses what click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click:DeprecationWarning")


def python_blocks(page: str) -> list[str]:
    found = BLOCK.findall((ROOT / page).read_text())
    return [text for language, text in found if language == "python"]


def test_every_block_of_python_is_run() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    names = [page.relative_to(ROOT).as_posix() for page in pages]
    made_from_code = "docs/api.md"  # its examples are doctests
    found = {name: len(python_blocks(name)) for name in names if name != made_from_code}
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
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    place, example = next(
        (place, text) for place, (_, text) in enumerate(blocks) if text.startswith("import disin")
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
    shown = blocks[place + 1][1]
    assert re.sub(r"[\d.]+%", "#", printed.getvalue()) == re.sub(r"[\d.]+%", "#", shown)


def test_the_method_by_hand_makes_models_forget() -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "method.md").read_text())
    example = next(text for _, text in blocks if text.startswith("from disinherit import"))
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
    _, client_app, coordinator = python_blocks("README.md")
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
    app, description, registration, summaries, request, server = python_blocks("docs/federation.md")
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
    used["store"].close()
    assert used["plan"].affected == ("base", "child")
    assert used["result"].tasks["base"].state == "verified"
    exec(server, used)
    assert used["app"] is not None


def test_the_policy_of_an_owner_is_found() -> None:
    (block,) = python_blocks("docs/privacy.md")
    used: dict[str, Any] = {}
    exec(block, used)
    assert used["Clinic"]().release_policy == disinherit.ReleasePolicy(min_forget_samples=20)
