"""The Flower app of `examples/flower_app`: three lines differ from the app as it was before."""

import difflib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest
import torch

from tests.support.flower_app import APP, CONFIG, STOCK, AppGrid, context_of, example_app
from tests.support.pages import texts

from disinherit.flower import forget  # isort: skip

IMPORT = "from disinherit.flower import owner_app\n"
APP_LINE = 'app = owner_app(ClientApp(), model=Net, data=load_data, server_data="{}")\n'
STRATEGY = "from disinherit.flower import FedAvg\n"
LOADER = "load_centralized_dataset"

TEMPLATES = Path(__file__).parent / "flwr_new"
"""Files of `flwr new` of 1.24.0, the last release that has them: later ones download an app."""

PACKAGE = "pytorchexample"
FROM_THE_HUB = "DISINHERIT_STOCK_APP"
"""Folder of `flwr new @flwrlabs/quickstart-pytorch`, which comes from the network."""


def changes(before: Path, after: Path) -> Iterator[tuple[list[str], list[str]]]:
    """The lines that were taken out and put in, place by place."""
    old, new = (path.read_text().splitlines(keepends=True) for path in (before, after))
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            yield old[a:b], new[c:d]


def test_exactly_three_lines_differ_from_the_app_as_it_was() -> None:
    before, after = (folder / "flower_app" for folder in (STOCK, APP))
    names = sorted(path.name for path in before.glob("*.py"))
    assert names == sorted(path.name for path in after.glob("*.py"))
    assert names == ["__init__.py", "client_app.py", "server_app.py", "task.py"]
    found = {name: list(changes(before / name, after / name)) for name in names}
    assert found == {
        "__init__.py": [],
        "client_app.py": [
            ([], [IMPORT]),
            (["app = ClientApp()\n"], [APP_LINE.format(LOADER)]),
        ],
        "server_app.py": [(["from flwr.serverapp.strategy import FedAvg\n"], [STRATEGY])],
        "task.py": [],
    }
    text = "".join((before / name).read_text() for name in names)
    assert "disinherit" not in text


@pytest.fixture(params=["1.24", "hub"])
def stock_app(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The app of `flwr new` of 1.24, and that of a later release, where it was downloaded."""
    folder = tmp_path / "quickstart-pytorch"
    if request.param == "1.24":
        package = folder / PACKAGE
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        for path in TEMPLATES.glob("*.tpl"):
            name = {"task": "task"}.get(kind := path.name.partition(".")[0], f"{kind}_app")
            text = Template(path.read_text()).safe_substitute(
                import_name=PACKAGE, project_name=folder.name, framework_str="PyTorch"
            )
            (package / f"{name}.py").write_text(text)
        return folder
    given = os.environ.get(FROM_THE_HUB)
    if given is None:
        pytest.skip(f"{FROM_THE_HUB} names no folder of flwr new @flwrlabs/quickstart-pytorch")
    shutil.copytree(given, folder)
    return folder


def test_the_same_three_lines_fit_the_app_of_flwr_new(stock_app: Path, tmp_path: Path) -> None:
    """With the digits in the place of its data, which it would download."""
    package = stock_app / PACKAGE
    stock = {path.name: path.read_text() for path in package.glob("*.py")}
    replace_once(package / "client_app.py", "app = ClientApp()\n", APP_LINE.format(LOADER))
    line = f"from {PACKAGE}.task import Net, load_data\n"
    replace_once(package / "client_app.py", line, IMPORT + line)
    line = "from flwr.serverapp.strategy import FedAvg\n"
    replace_once(package / "server_app.py", line, STRATEGY)
    changed = [
        one
        for name, text in stock.items()
        for one in difflib.ndiff(text.splitlines(), (package / name).read_text().splitlines())
        if one.startswith("+ ")
    ]
    assert len(changed) == 3
    assert "disinherit" not in "".join(stock.values())
    with_digits(package / "task.py")
    models = tmp_path / "models"
    with example_app(models, stock_app) as load:
        grid = AppGrid(load(f"{PACKAGE}.client_app").app, 2, config=STOCK_CONFIG)
        load(f"{PACKAGE}.server_app").app(grid, context_of(STOCK_CONFIG))
        result = forget(grid, context_of(STOCK_CONFIG), samples={"node-0": range(9)})
        assert result.outcome == "complete"
        assert forget(grid, context_of(STOCK_CONFIG), classes=["3"]).outcome == "complete"
        assert forget(grid, context_of(STOCK_CONFIG), client="node-1").outcome == "complete"
    state = torch.load(models / PACKAGE / "server" / "final_model.pt")
    assert {*state} >= {"conv1.weight", "fc3.bias"}


STOCK_CONFIG = {
    **CONFIG,
    "local-epochs": 4,
    "learning-rate": 0.05,
    "fraction-train": 1.0,  # this one and the next are named so in 1.24
    "lr": 0.002,
}


def replace_once(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def with_digits(path: Path) -> None:
    """Put scikit-learn's digits, as large pictures, in the place of what is downloaded."""
    text = path.read_text()
    gone = r"^(from (datasets|flwr_datasets|torchvision)\b|pytorch_transforms = ).*\n"
    text = re.sub(gone, "", text, flags=re.MULTILINE)
    for name in ("load_data", LOADER):
        text = re.sub(rf"^def {name}\(.*?(?=^def )", "", text, flags=re.MULTILINE | re.DOTALL)
    path.write_text(text + (Path(__file__).parent / "digits_of_stock_app.txt").read_text())


def test_the_page_shows_these_lines() -> None:
    shown = [
        line[1:] + "\n"
        for text in texts("docs/flower.md", "")
        for line in text.splitlines()
        if line.startswith("+")
    ]
    assert shown == [IMPORT, APP_LINE.format(LOADER), STRATEGY]
