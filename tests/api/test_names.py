"""The public names: what they are, where they are written down, and what importing them costs."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

import disinherit
from tests import ROOT
from tests.support.api_page import PAGE, groups, page

INIT = ROOT / "api" / "__init__.py"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", disinherit.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(disinherit, name) is not None
    assert name in dir(disinherit)


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Netwrok'"):
        disinherit.Netwrok  # type: ignore[attr-defined]  # noqa: B018


def test_what_type_checkers_see_is_what_is_loaded() -> None:
    """The imports under `TYPE_CHECKING` name the modules from which `__getattr__` loads."""
    block = next(node for node in ast.parse(INIT.read_text()).body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == disinherit._HOMES
    assert sorted(disinherit.__all__) == sorted([*seen, "__version__"])


def test_the_reference_is_made_from_the_code() -> None:
    assert PAGE.read_text() == page(), "run `make reference`"


def test_the_reference_has_every_name_once() -> None:
    named = re.findall(r"^### `(\w+)`$", PAGE.read_text(), re.MULTILINE)
    assert sorted([*named, "__version__"]) == sorted(disinherit.__all__)
    assert [name for names in groups().values() for name in names] == disinherit.__all__


@pytest.mark.parametrize("page", ["README.md", "docs/federation.md"])
def test_what_pages_import_from_the_front_door_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"\bdisinherit\.([A-Z]\w+|__\w+__)", text))
    for block in re.findall(r"^from disinherit import (.*)$", text, re.MULTILINE):
        named |= set(block.replace(" ", "").split(","))
    assert named
    assert named <= set(disinherit.__all__)


def test_all_errors_are_among_them() -> None:
    from disinherit.common import errors

    tree = re.findall(r"[├└]── (\w+Error)", errors.__doc__ or "")
    assert {"DisinheritError", *tree} <= set(disinherit.__all__)


def test_importing_loads_next_to_nothing() -> None:
    heavy = "{'torch', 'numpy', 'networkx', 'sqlalchemy', 'grpc', 'google.protobuf'}"
    code = f"import sys, disinherit; print(sorted({heavy} & sys.modules.keys()))"
    assert run(code) == "[]"


def test_importing_takes_less_than_a_tenth_of_a_second() -> None:
    code = "import time; t = time.process_time(); import disinherit; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.1


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert disinherit.__version__ == project["version"]


def test_a_missing_package_is_named_with_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "import disinherit\n"
        "try: disinherit.CoordinatorStore\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    assert run(code) == (
        "Expected the package sqlalchemy for disinherit.CoordinatorStore: `pip install '.[server]'`"
        " in a checkout of Disinherit."
    )
