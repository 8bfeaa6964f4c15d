"""The public names: what they are, where they are written down, and what importing them costs."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import disinherit
from tests import ROOT
from tests.support.api_page import PAGE, groups, page, public_members
from tests.support.pages import name_of, pages

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


CALLS = [
    name for name in disinherit.__all__ if name != "__version__" and not name.endswith("Error")
]
"""Public names that are called, or whose methods are."""

SHARED = ("Database",)
"""What only the service passes: its parts share one open database."""


def signatures(name: str) -> Iterator[tuple[str, Any]]:
    """The functions of a public name: itself, or its constructor, methods and properties."""
    value = getattr(disinherit, name)
    if not isinstance(value, type):
        yield name, value
    elif not issubclass(value, Enum):
        fields = hasattr(value, "__dataclass_fields__")
        yield name, value if fields else value.__init__
        for member in public_members(value):
            found = inspect.getattr_static(value, member)
            function = found.fget if isinstance(found, property) else getattr(value, member)
            yield f"{name}.{member}", function


def types_in(hint: object) -> Iterator[type]:
    for inner in hint if isinstance(hint, list) else get_args(hint):
        yield from types_in(inner)
    if isinstance(hint, type) and get_origin(hint) is None:
        yield hint


@pytest.mark.parametrize("name", CALLS)
def test_what_calls_take_and_return_is_public_too(name: str) -> None:
    """Messages are not in it: `disinherit.v1` is the schema, and as public as that."""
    used = {
        found.__name__
        for _, function in signatures(name)
        for hint in get_type_hints(function).values()
        for found in types_in(hint)
        if found.__module__.startswith("disinherit.")
        and not found.__module__.startswith("disinherit.v1.")
    }
    assert used - {*disinherit.__all__, *SHARED} == set()


@pytest.mark.parametrize("name", CALLS)
def test_who_takes_a_path_takes_a_text(name: str) -> None:
    for where, function in signatures(name):
        for argument, hint in get_type_hints(function).items():
            taken = set(types_in(hint)) | {hint}
            if argument != "return" and Path in taken:
                assert str in taken, (where, argument)


def described(value: object) -> list[tuple[str, str]]:
    """Name and first line of what a docstring says of arguments, attributes and errors."""
    found = re.findall(r"^    ([\w.]+): (.+)$", inspect.getdoc(value) or "", re.MULTILINE)
    return [(name, " ".join(said.split())) for name, said in found]


@pytest.mark.parametrize("name", CALLS)
def test_the_reference_says_what_arguments_attributes_and_errors_are(name: str) -> None:
    value = getattr(disinherit, name)
    section = PAGE.read_text().partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
    for where, function in [(name, value), *signatures(name)]:
        for argument, said in described(function):
            assert re.search(rf"`\.?{argument}`: {re.escape(said)}", section), (where, argument)
        examples = (inspect.getdoc(function) or "").partition("Example:\n")[2].split("\n\n")[0]
        for line in examples.splitlines():
            assert line.strip() in section, (where, line)


AS_OF = {"record_lineage": ("strategy", "LineageRecorder")}
"""Shorthand -> its own argument, and the class that has the others."""


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_is_explained(name: str) -> None:
    """Of a method with one argument, its first line may be enough."""
    for where, function in signatures(name):
        if getattr(getattr(disinherit, name), "_is_protocol", False):
            continue
        source = getattr(disinherit, name) if where == name else function
        named = [one for one in inspect.signature(source).parameters if one not in ("self", "cls")]
        said = {argument for argument, _ in described(source)}
        if name in AS_OF:
            own, other = AS_OF[name]
            said |= {own, *inspect.signature(getattr(disinherit, other)).parameters}
        if where == name or len(named) > 1:
            assert set(named) <= said, where


def names_on_the_reference() -> set[str]:
    """Attributes and methods of public values, and arguments of public calls."""
    values = [getattr(disinherit, name) for name in disinherit.__all__]
    arguments = re.findall(r"^ *- `(\w+)`: ", PAGE.read_text(), re.MULTILINE)
    return {*disinherit.__all__, *arguments, *(one for value in values for one in dir(value))}


def test_the_reference_refers_to_public_names_only() -> None:
    inner = {
        node.name
        for house in ("api", "client", "common", "server")
        for path in (ROOT / house).glob("**/*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and "_" in node.name
    }
    named = set(re.findall(r"`([\w.]+)(?:\([^`]*\))?`", PAGE.read_text()))
    assert (named & inner) - names_on_the_reference() == set()
    assert {name for name in named if name.startswith("disinherit.")} == {"disinherit.v1"}


OF_BEFORE = ROOT / "CHANGELOG.md"


def pages_of_today() -> list[Path]:
    """What users read: pages, and examples."""
    return [path for path in pages() if path not in (PAGE, OF_BEFORE)]


def test_what_pages_import_from_the_front_door_is_there() -> None:
    named: set[str] = set()
    for path in pages_of_today():
        text = path.read_text()
        named |= set(re.findall(r"\bdisinherit\.([A-Z]\w+|__\w+__)", text))
        for block in re.findall(r"from disinherit import (\([^)]*\)|.*)", text):
            named |= set(re.findall(r"\w+", block))
    assert len(named) > 15
    assert named <= set(disinherit.__all__)


@pytest.mark.parametrize("path", pages_of_today(), ids=name_of)
def test_pages_name_no_module_behind_the_front_door(path: Path) -> None:
    """Where a name lives may change: import it from `disinherit`, or follow a link to its file.

    Programs, the schema and types of documents have names of their own.
    """
    deep = re.findall(r"(?<!python -m )(?<!vnd\.)\bdisinherit\.(?!v1\b)\w+\.\w+", path.read_text())
    top = {home for home in disinherit._HOMES.values() if home.count(".") == 1}
    assert [*deep, *(one for one in top if one in path.read_text())] == []


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("examples/**/*.py")),
    ids=name_of,
)
def test_examples_import_only_the_front_door(path: Path) -> None:
    tree = ast.walk(ast.parse(path.read_text()))
    modules = [
        *(node.module for node in tree if isinstance(node, ast.ImportFrom)),
        *re.findall(r"^import (disinherit\S*)", path.read_text(), re.MULTILINE),
    ]
    doors = {"disinherit", *(f"disinherit.{room}" for room in disinherit._ROOMS)}
    assert {one for one in modules if one and one.startswith("disinherit")} <= doors


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
        "Expected the package 'sqlalchemy' to be installed, but it is not. Run `pip install "
        "'.[server]'` in a checkout of Disinherit."
    )
