"""Projects of Flower apps: their names, and that two of one package never share models."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.flower_app import APP, NAME, AppGrid, context_of, example_app

from disinherit.common.errors import InputError  # isort: skip
from disinherit.flower.projects import (  # isort: skip
    dependencies,
    project_name,
    project_of,
    read_project,
)

PROJECT = """
[project]
name = {name!r}
[tool.flwr.app]
publisher = {publisher!r}
[tool.flwr.app.components]
clientapp = "{package}.client_app:app"
"""
PACKAGE = "sharedexample"


def write(folder: Path, name: str = "one", publisher: str = "me", package: str = PACKAGE) -> Path:
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    text = PROJECT.format(name=name, publisher=publisher, package=package)
    (folder / "pyproject.toml").write_text(text)
    return folder


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Modules that a test imports are forgotten after it."""
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if name.startswith(PACKAGE):
            del sys.modules[name]


def test_a_project_is_named_by_its_publisher_and_name(tmp_path: Path) -> None:
    assert project_name(read_project(APP)) == NAME
    assert dependencies(read_project(APP))[1] == "torch>=2.6,<3"
    named = [("a.b", "c"), ("a", "b.c"), ("a", "../c"), ("a/..", "c")]
    names = []
    for place, (publisher, name) in enumerate(named):
        names.append(project_name(read_project(write(tmp_path / str(place), name, publisher))))
    assert names == ["a%2Eb.c", "a.b.c", "a...%2Fc", "a%2F%2E%2E.c"]
    assert dependencies(read_project(tmp_path / "0")) == []


def test_a_project_without_a_name_is_refused_in_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "pyproject.toml"
    text = path.read_text()
    for line in ("publisher = 'me'", "name = 'one'"):
        path.write_text(text.replace(line, ""))
        with pytest.raises(InputError, match="by which its models are found, but got none. Add"):
            read_project(tmp_path)


def test_a_module_is_of_the_project_that_it_is_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    monkeypatch.syspath_prepend(str(write(tmp_path)))
    __import__(PACKAGE)
    assert project_of(["torch.nn", f"{PACKAGE}.task"]) == "me.one"
    assert project_of(["torch.nn", "builtins", "not_imported", __name__]) is None


def test_two_projects_of_one_package_do_not_share_models(tmp_path: Path) -> None:
    """As two apps from one template are, of which only the name was changed."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "flower_app").symlink_to(APP / "flower_app")
    text = (APP / "pyproject.toml").read_text()
    (other / "pyproject.toml").write_text(text.replace('"flower-app"', '"other"'))
    models = tmp_path / "models"
    assert trained(models, other) == ["disinherit.other"]
    assert trained(models, APP) == [NAME, "disinherit.other"]
    assert (models / "disinherit.other/node-0").is_dir()


def test_models_of_the_first_release_are_no_projects(tmp_path: Path) -> None:
    """Their folder is named by the package, so that nobody can tell whose they are."""
    models = tmp_path / "models"
    (models / "flower_app" / "server").mkdir(parents=True)
    with pytest.raises(InputError, match=f"rename the folder to {NAME}; if not, make") as raised:
        trained(models, APP)
    assert "\n" not in str(raised.value)
    assert [path.name for path in models.iterdir()] == ["flower_app"]
    (models / "flower_app").rename(models / NAME)
    assert trained(models, APP) == [NAME]


def trained(models: Path, app: Path) -> list[str]:
    """Train an app for a round; return the folders of models."""
    config: dict[str, Any] = {**context_of().run_config, "num-server-rounds": 1}
    with example_app(models, app) as load:
        grid = AppGrid(load("flower_app.client_app").app, 2, config=config)
        load("flower_app.server_app").app(grid, context_of(config))
    return sorted(path.name for path in models.iterdir() if path.is_dir())


def test_an_app_of_others_functions_is_of_the_project_that_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    """Its model and its data may be of a library that several projects have."""
    text = (
        "from flwr.clientapp import ClientApp\nfrom torch.nn import Identity\n"
        "from disinherit.flower import owner_app\n"
        "app = owner_app(ClientApp(), model=Identity, data=Identity)\n"
    )
    (write(tmp_path) / PACKAGE / "client_app.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    functions = importlib.import_module(f"{PACKAGE}.client_app").app.functions
    assert (functions.name, functions.package) == ("me.one", "torch")
