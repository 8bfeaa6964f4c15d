"""The steps of the container image, without an engine: what an empty folder and a venv can show.

    python -m tests.support.image_steps [--extras server,postgresql] [--torch FOLDER_OF_WHEELS]

carries out the stage `installed` of `deploy/Dockerfile` in a temporary folder: `COPY` from the
files that `.dockerignore` leaves, `RUN` by a shell, with `/opt` and `/src` in that folder.  Then it
runs what `deploy/compose.yaml` starts first, with nothing but the image's folder on the path.  It
does not make the base image, users, volumes or networks.  With `--torch`, PyTorch comes from there
instead of its index.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
INSTALLED = "/opt/disinherit"


def steps(stage: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a stage of the image, each with its words."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    inside = False
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, words = line.partition(" ")
        if instruction == "FROM":
            inside = words.endswith(f" AS {stage}")
        elif inside:
            yield instruction, words


def context() -> list[Path]:
    """Return the files of the checkout that the engine gets: all that `.dockerignore` leaves."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = map(Path, listed.stdout.splitlines())
    return [one for one in paths if not _is_ignored(one, ignored) and (ROOT / one).exists()]


def _is_ignored(path: Path, patterns: Sequence[str]) -> bool:
    """Return whether a pattern names a file or a folder that it is in."""
    names = [path, *path.parents][:-1]  # without the root itself
    return any(fnmatch(str(one), pattern) for one in names for pattern in patterns)


def copy(source: str, folder: Path) -> int:
    """Carry out `COPY SOURCE .`; return how many files it copied."""
    found = [one for one in context() if source == "." or str(one) == source]
    for one in found:
        (folder / one).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / one, folder / one)
    return len(found)


def install(folder: Path, extras: str, torch: Path | None) -> None:
    """Carry out the stage that installs."""
    source = folder / "src"
    source.mkdir()
    variables = {"PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin", "HOME": str(folder)}
    variables |= {key: os.environ[key] for key in os.environ if key.startswith("PIP_")}
    for instruction, words in steps("installed"):
        print(f"{instruction} {words}", flush=True)
        if instruction in ("ARG", "ENV"):
            variables |= dict(one.split("=", 1) for one in words.split())
            variables["EXTRAS"] = extras
        elif instruction == "COPY":
            print(f"  {copy(words.split()[0], source)} files")
        elif instruction == "RUN":
            here = words.replace(INSTALLED, f"{folder}{INSTALLED}")
            if torch is not None:
                here = here.replace(
                    '--index-url "$TORCH_INDEX"', f"--no-index --find-links {torch}"
                )
            subprocess.run(here, shell=True, cwd=source, env=variables, check=True)


def start(folder: Path, extras: str) -> None:
    """Run the command for people, and on the coordinator's image what makes its folder."""
    shutil.rmtree(folder / "src")  # no stage after this one has it
    programs = f"{folder}{INSTALLED}/bin"
    variables = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder)}
    _run(["disinherit", "--version"], programs, variables)
    _run(["disinherit", "agent", "--help"], programs, variables)
    if "server" in extras.split(","):
        state = folder / "state"
        words = ["deploy", "prepare", f"--folder={state}", "--host=fleet.example.org"]
        _run(["disinherit", *words], programs, variables)
        _run(["disinherit", "config", "check", f"{state}/serve.toml"], programs, variables)
        _run(["python", "-m", "disinherit.deploy.run_keeper", "--help"], programs, variables)
        _run(["flower-superlink", "--help"], programs, variables)


def _run(words: Sequence[str], programs: str, variables: Mapping[str, str]) -> None:
    done = subprocess.run(
        [f"{programs}/{words[0]}", *words[1:]], env=dict(variables), capture_output=True, text=True
    )
    first = (done.stdout.strip().splitlines() or [""])[0]
    print(f"{' '.join(words)}: exit code {done.returncode}: {first}", flush=True)
    if done.returncode:
        sys.exit(done.stderr)


def main() -> None:
    """Install and start in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", default="server,postgresql")
    parser.add_argument("--torch", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        install(Path(name), options.extras, options.torch)
        start(Path(name), options.extras)


if __name__ == "__main__":
    main()
