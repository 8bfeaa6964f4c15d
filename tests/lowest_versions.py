"""The tests on the lowest versions that `pyproject.toml` allows.

    python tests/lowest_versions.py [PYTEST ARGUMENT ...]

The lowest version of every direct dependency is installed into a folder that stands before the
installed ones.  PyTorch is left out: its lowest version and the installed one are builds of several
gigabytes.  What those need is resolved by pip.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
_NOT_LOWERED = {"torch", "torchvision", "timm", "disinherit", "flwr"}
"""PyTorch and what is built against it; Flower has one minor version, and Ray comes with it."""

_EXTRAS = ("agent", "server", "postgresql", "simulation", "hub")
_DEFAULT_TESTS = (
    "tests/test_common_packets.py",
    "tests/test_common_graph_formats.py",
    "tests/test_common_graph_drawing.py",
    "tests/test_server_schema.py",
    "tests/test_server_agents_authority.py",
    "tests/test_simulations_hub.py",
    "tests/test_simulations_datasets.py",
    "tests/test_simulations_report_html.py",
    "tests/test_cli_main.py",
)


def lowest_versions() -> Iterator[str]:
    """Yield a pin for the lowest version of every dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in _EXTRAS for line in extras[extra])]
    for line in lines:
        one = Requirement(line)
        if one.name not in _NOT_LOWERED:
            (lowest,) = (spec.version for spec in one.specifier if spec.operator == ">=")
            extra = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
            yield f"{one.name}{extra}=={lowest}"


def main(arguments: list[str]) -> int:
    """Install the lowest versions, run tests on them, and return pytest's exit code."""
    pins = sorted(set(lowest_versions()))
    print("\n".join(pins), flush=True)
    with tempfile.TemporaryDirectory(prefix="disinherit-lowest-") as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
        subprocess.run([*pip, "--disable-pip-version-check", *pins], check=True)
        environment = {**os.environ, "PYTHONPATH": folder}
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "default::DeprecationWarning",
            *(arguments or _DEFAULT_TESTS),
        ]
        return subprocess.run(words, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
