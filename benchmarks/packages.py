"""The package as users get it: wheel and sdist, in empty environments, for each extra and Python.

    python benchmarks/packages.py [--python PYTHON ...] [--extra EXTRA ...]
    python benchmarks/packages.py --render

`uv` builds an sdist, a wheel of that, and a wheel of the checkout: both must have the same files.
Then each environment gets the wheel with one extra, at the versions of `constraints.txt`.  In it
every module of Disinherit must import, or lack a package that another extra brings; what starts is
timed, and commands that lack an extra must say in one line what to install.  The sdist must install
by itself, and `uvx` and `pipx run` must start the command from the wheel.  The figures go to
`docs/figures/packages.json` and the table to `docs/packages.md`.  It takes half an hour, most of it
for downloads, and is not a part of `.ci/run`.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from tests.support.lowest_versions import BUILT_ON_PYTORCH, EXTRAS  # noqa: E402

STORED = ROOT / "docs" / "figures" / "packages.json"
PAGE = ROOT / "docs" / "packages.md"

_LACKING: Mapping[str, Sequence[str]] = {
    "agent": ("disinherit", "request", "list"),
    "server": ("disinherit", "serve", "--database", "a.db", "--tokens", "b.toml", "--plaintext"),
    "ui": ("disinherit", "ui"),
    "deploy": ("disinherit", "deploy", "up"),
    "simulation": ("disinherit", "demo"),
    "flower": ("python", "-c", "import disinherit; disinherit.build_client_app"),
    "huggingface": ("python", "-c", "import disinherit.huggingface"),
}
"""Extra -> what is called in an environment that has no extra at all."""

_MODULES = """
import importlib, json, pkgutil, sys
import disinherit
from disinherit.common.extras import EXTRAS
imported, lacking, broken = 0, {}, []
for one in pkgutil.walk_packages(disinherit.__path__, "disinherit.", onerror=lambda name: None):
    if one.name.endswith(("migrations.env", "open_unlearning.driver", "tensors.fused")):
        continue
    try:
        importlib.import_module(one.name)
        imported += 1
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            broken.append(f"{one.name}: {error}")
        else:
            lacking[extra] = lacking.get(extra, 0) + 1
    except Exception as error:
        broken.append(f"{one.name}: {type(error).__name__}: {error}")
print(json.dumps([imported, lacking, broken]))
"""
_SIZES = """
import importlib.metadata, json
from pathlib import Path
found = {}
for one in importlib.metadata.distributions():
    files = {Path(one.locate_file(file)) for file in one.files or ()}
    found[one.name] = sum(file.stat().st_size for file in files if file.is_file())
print(json.dumps(found))
"""
_STARTS = {
    "import": ("python", "-c", "import disinherit"),
    "help": ("disinherit", "--help"),
}
_TRIES = 4
"""The first brings the files into memory."""


def main() -> None:
    """Build, install, check, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", help="a Python; this one by default")
    parser.add_argument("--extra", action="append", help="an extra; all by default")
    parser.add_argument("--render", action="store_true", help="only write the page again")
    options = parser.parse_args()
    if not options.render:
        stored = json.loads(STORED.read_text()) if STORED.exists() else {"rows": []}
        with tempfile.TemporaryDirectory() as name:
            built = build(Path(name))
            start_in_other_ways(Path(name) / "env", built)
            stored |= built["facts"] | {"environment": environment()}
            for python in options.python or [sys.executable]:
                for extra in options.extra or extras():
                    row = measure(Path(name) / "env", python, built["wheel"], extra)
                    same = (row["python"], extra)
                    rest = [one for one in stored["rows"] if (one["python"], one["extra"]) != same]
                    stored["rows"] = [*rest, row]
                    STORED.write_text(json.dumps(stored, indent=1) + "\n")
                    print(json.dumps(row), flush=True)
    PAGE.write_text(page(json.loads(STORED.read_text())))


def extras() -> list[str]:
    """No extra, and all that users may ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return ["", *(one for one in project["optional-dependencies"] if one not in ("dev", "docs"))]


def environment() -> dict[str, str]:
    """Return where it was measured."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "uv": _run(["uv", "--version"]).split()[1],
    }


def build(folder: Path) -> dict[str, Any]:
    """Build sdist and wheels from a copy of the checkout, and compare the wheels."""
    copy = folder / "checkout"
    unwanted = shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "shared")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    _run(["uv", "build", "--quiet", "--out-dir", str(folder / "by-sdist"), str(copy)])
    direct = folder / "direct"
    _run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(direct), str(copy)])
    (wheel,), (other,) = folder.glob("by-sdist/*.whl"), direct.glob("*.whl")
    (sdist,) = folder.glob("by-sdist/*.tar.gz")
    names = [sorted(zipfile.ZipFile(one).namelist()) for one in (wheel, other)]
    if names[0] != names[1]:
        sys.exit(f"Expected the same files in both wheels, but {set(names[0]) ^ set(names[1])}.")
    facts = {
        "files": len(names[0]),
        "wheel_kb": round(wheel.stat().st_size / 1e3),
        "sdist_kb": round(sdist.stat().st_size / 1e3),
    }
    return {"wheel": wheel, "sdist": sdist, "facts": facts}


def start_in_other_ways(folder: Path, built: Mapping[str, Any]) -> None:
    """Start the command from an sdist that was installed by itself, and from the wheel alone."""
    constraints = str(ROOT / "constraints.txt")
    _run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder)])
    install = ["uv", "pip", "install", "--quiet", "--python", str(folder)]
    _run([*install, "--constraint", constraints, str(built["sdist"])])
    wheel = str(built["wheel"])
    pip = f"--constraint {constraints}"
    ways: dict[str, tuple[Sequence[str], Path | None]] = {
        "the sdist": (["disinherit"], folder),
        "uvx": (
            ["uvx", "--quiet", "--constraints", constraints, "--from", wheel, "disinherit"],
            None,
        ),
        "pipx run": (
            ["uvx", "--quiet", "pipx", "run", "--pip-args", pip, "--spec", wheel, "disinherit"],
            None,
        ),
    }
    for way, (words, where) in ways.items():
        said = _run([*words, "--version"], where).strip()
        if not re.search(r"\d+\.\d+", said):
            sys.exit(f"Expected {way} to print the version of the command, but: {said!r}")
        print(f"{way}: {said}", flush=True)


def measure(folder: Path, python: str, wheel: Path, extra: str) -> dict[str, Any]:
    """Install one extra into an empty environment, check and measure it."""
    shutil.rmtree(folder, ignore_errors=True)
    _run(["uv", "venv", "--quiet", "--python", python, str(folder)])
    words = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(folder)]
    what = f"disinherit[{extra}] @ file://{wheel}" if extra else f"disinherit @ file://{wheel}"
    _run([*words, "--constraint", str(ROOT / "constraints.txt"), what])
    sizes = json.loads(_run(["python", "-c", _SIZES], folder))
    imported, lacking, broken = json.loads(
        _run(["python", "-c", _MODULES], folder).splitlines()[-1]
    )
    if broken:
        sys.exit(f"Expected every module to import or to lack an extra, but: {broken}")
    torch = sum(
        size for name, size in sizes.items() if re.match(r"torch$|nvidia|triton|cuda", name)
    )
    return {
        "python": _run(
            ["python", "-c", "import platform; print(platform.python_version())"], folder
        ).strip(),
        "torch": _run(["python", "-c", "import torch; print(torch.__version__)"], folder).strip(),
        "extra": extra,
        "packages": len(sizes) - 1,
        "mb_torch": round(torch / 1e6),
        "mb_rest": round((sum(sizes.values()) - torch) / 1e6),
        "modules": imported,
        "lacking": lacking,
        "starts": {name: _seconds(command, folder) for name, command in _STARTS.items()},
        "says": dict(_says(folder)) if not extra else {},
    }


def _says(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what commands say that lack an extra: one line with the command that installs it."""
    for extra, words in _LACKING.items():
        done = _call(words, folder)
        line = done.stderr.strip().splitlines()[-1]
        if done.returncode == 0 or f"[{extra}]" not in line:
            sys.exit(f"Expected {words} to name the extra {extra!r}, but: {done.stderr}")
        if words[0] == "disinherit" and done.stderr.count("\n") != 1:
            sys.exit(f"Expected one line of {words}, but: {done.stderr}")
        yield extra, line


def _seconds(words: Sequence[str], folder: Path) -> float:
    """Return the least CPU seconds of a command."""
    found = []
    for _ in range(_TRIES):
        before = os.times()
        _run(words, folder)
        after = os.times()
        used = after.children_user + after.children_system
        found.append(used - before.children_user - before.children_system)
    return round(min(found[1:]), 2)


def _call(words: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    program, *rest = words
    found = str(folder / "bin" / program) if folder is not None else program
    home = folder or ROOT
    clean = {
        name: one for name, one in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    return subprocess.run([found, *rest], capture_output=True, text=True, cwd=home, env=clean)


def _run(words: Sequence[str], folder: Path | None = None) -> str:
    done = _call(words, folder)
    if done.returncode:
        sys.exit(f"Expected {list(words)[:6]} to end well, but: {done.stderr[-3000:]}")
    return done.stdout


_FOR: Mapping[str, str] = {
    "": "a network of models in one process, graphs, and the commands for files",
    "agent": "a device that owns models; calls to a coordinator (`status`, `request`, ...); "
    "`audit verify`",
    "flower": "an owner in a Flower federation",
    "server": "a coordinator (`serve`, `token`, `config`); Flower apps that forget "
    "(`disinherit.flower`)",
    "postgresql": "a coordinator whose database is PostgreSQL, beside `server`",
    "ui": "the dashboard (`ui`)",
    "deploy": "a whole fleet on one machine, kept running (`deploy up`)",
    "simulation": "data sets, networks and Flower's simulation engine (`demo`, `run`, `bench`)",
    "hub": "data sets of the Hugging Face hub, and folders of Parquet files or images",
    "huggingface": "an owner's models of transformers and PEFT",
    "mlflow": "requests as runs of MLflow (`request export --as mlflow`)",
    "family": "the benchmark of a family of language models (`bench family`)",
    "vision": "image networks of torchvision and timm",
    "pretrained": "a network that starts from weights of ImageNet, which its package holds",
}
"""Extra -> what it is for."""

_HEAD = """# Packages

What an installation brings, by extra and Python, measured in empty environments. Disinherit is not
on a package index yet: install a checkout of it, or a wheel of one. The command also runs from a
wheel with nothing installed: `uvx --from WHEEL disinherit`, or `pipx run --spec WHEEL disinherit`.

"""
_SYSTEMS = """
## Which Python, which system

All tests run on Linux with Python 3.11. On 3.12 and 3.13 an installation without an extra and one
with `server` were made and imported, and no other: for them only PyTorch's build with CUDA was to
be had, of nearly 5 GB. Python 3.14 was never tried: nothing here forbids it, and packages that an
extra brings may.

Lowest versions: `make floors` runs tests on those of the direct dependencies, without an extra and
of {lowered}. Those of PyTorch,
{built} and the other extras were never tried; of Flower one minor version is allowed.

macOS has what the code needs of a system, and nobody has tried it. Windows has not: files are
locked with `fcntl`, and limits of a process are read with `resource`, so that commands and public
names say in one line that they need another system. WSL is Linux; nobody has tried it either.
"""


def page(stored: Mapping[str, Any]) -> str:
    """Return the page of the stored figures."""
    where = stored["environment"]
    parts = [
        _HEAD,
        f"Wheel {stored['wheel_kb']:,} kB, sdist {stored['sdist_kb']:,} kB; a wheel made of the "
        f"sdist has the same {stored['files']} files as one made of the checkout. Measured "
        f"{where['date']} on {where['machine']}, with the versions of `constraints.txt`. "
        "*MB of PyTorch* are with the libraries of CUDA where only such a build was to be had; "
        "*modules* are those of Disinherit that import without another extra; seconds are of "
        "CPU, the least of three.\n",
    ]
    brought = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts.append("\n## What each extra is for\n\n| extra | for | has |\n| --- | --- | --- |\n")
    for extra in extras():
        lines = brought["optional-dependencies"].get(extra, ())
        has = ", ".join(f"`{one}`" for line in lines for one in _included(line))
        parts.append(f"| {_shown(extra)} | {_FOR[extra]} | {has} |\n")
    parts.append(_SYSTEMS.format(lowered=_listed(EXTRAS), built=", ".join(BUILT_ON_PYTORCH)))
    rows = sorted(stored["rows"], key=lambda row: [int(n) for n in row["python"].split(".")])
    for version in dict.fromkeys(row["python"] for row in rows):
        of = [row for row in rows if row["python"] == version]
        parts.append(f"\n## Python {version}, PyTorch {of[0]['torch']}\n\n")
        parts.append(
            "| extra | packages | MB of PyTorch | MB of all others | modules "
            "| `import disinherit`, s | `disinherit --help`, s |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        )
        order = {extra: place for place, extra in enumerate(extras())}
        for row in sorted(of, key=lambda row: order.get(row["extra"], 99)):
            cells = (
                _shown(row["extra"]),
                f"{row['packages']}",
                f"{row['mb_torch']:,}",
                f"{row['mb_rest']:,}",
                f"{row['modules']}",
                *(f"{row['starts'][name]:.2f}" for name in _STARTS),
            )
            parts.append(f"| {' | '.join(cells)} |\n")
    said: dict[str, str] = next((row["says"] for row in rows if row["says"]), {})
    parts.append(
        "\n## What a missing extra says\n\n| called without an extra | says |\n| --- | --- |\n"
    )
    for extra, line in said.items():
        shown = line.removeprefix("error: ").removeprefix("ModuleNotFoundError: ")
        parts.append(f"| {_called(extra)} | {shown} |\n")
    return "".join(parts)


def _shown(extra: str) -> str:
    return f"`{extra}`" if extra else "none"


def _included(line: str) -> list[str]:
    """Return the extras of Disinherit that a dependency names."""
    found = re.match(r"disinherit\[([\w,]+)\]", line)
    return found[1].split(",") if found else []


def _listed(names: Sequence[str]) -> str:
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def _called(extra: str) -> str:
    program, *words = _LACKING[extra]
    return f"`disinherit {words[0]}`" if program == "disinherit" else f"`{words[1]}`"


if __name__ == "__main__":
    main()
