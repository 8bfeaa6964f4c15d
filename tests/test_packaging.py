"""What is installed is what is in the folders."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("common", "client", "server", "deploy", "simulations", "cli")


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
        *(f"disinherit.{path.replace('/', '.')}" for path in found),
    }
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    code = next(line for line in makefile.splitlines() if line.startswith("CODE := "))
    assert set(code.split()[2:]) == found | {"protos/disinherit/v1"}
