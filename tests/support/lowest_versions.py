"""The tests on the lowest versions that `pyproject.toml` allows.

    python -m tests.support.lowest_versions [PYTEST ARGUMENT ...]

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

from packaging.requirements import Requirement

from tests import ROOT

BUILT_ON_PYTORCH = ("torchvision", "timm")
_NOT_LOWERED = {"torch", *BUILT_ON_PYTORCH, "disinherit", "flwr"}
"""PyTorch and what is built against it; Flower has one minor version, and Ray comes with it."""

EXTRAS = ("agent", "server", "postgresql", "simulation", "hub")
_DEFAULT_TESTS = (
    "tests/common/test_settings.py",
    "tests/common/audit/test_dsse.py",
    "tests/common/wire/test_packets.py",
    "tests/common/graph/test_formats.py",
    "tests/common/graph/test_drawing.py",
    "tests/server/store/test_schema.py",
    "tests/server/agents/test_authority.py",
    "tests/simulations/data/test_hugging_face.py",
    "tests/simulations/data/test_datasets.py",
    "tests/simulations/data/test_glyphs.py",
    "tests/simulations/report/test_html.py",
    "tests/cli/test_main.py",
)


def lowest_versions() -> Iterator[str]:
    """Yield a pin for the lowest version of every dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
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
