"""Tutorials, run as a reader does: files are saved and commands typed in the order of a page."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.pages import blocks

NAMED = re.compile(r"# ([\w/.-]+\.(?:py|toml|txt))\n")
"""The first line of a block that is a file of the reader's."""

_INSTALLING = re.compile(r"(python3 -m venv|pip install|git clone|cd disinherit$).*")
_SECONDS = 240.0
_END = "--- end of block {} ---"


def script_of(page: str) -> tuple[str, dict[int, str]]:
    """A page as a script for bash, and what its blocks print: place -> text."""
    lines, printed = ["set -eu -o pipefail"], {}
    last = -1
    for place, (language, text) in enumerate(blocks(page)):
        named = NAMED.match(text)
        if named is not None:
            lines.append(f"cat > {named[1]} <<'END OF FILE'\n{text}END OF FILE")
        elif language == "sh":
            for line in text.splitlines():
                if not _INSTALLING.fullmatch(line):
                    lines.append(line)
            lines.append(f"echo '{_END.format(place)}'")
            last = place
        elif not language and last >= 0:
            printed[last] = text
            last = -1
    return "\n".join(lines) + "\n", printed


def run(
    page: str,
    folder: Path,
    other: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    seconds: float = _SECONDS,
) -> None:
    """Run a page in a folder, and compare what it prints.

    `other`: words that differ here; `variables`: of the environment; `seconds`: at most.
    """
    script, expected = script_of(page)
    for word, instead in (other or {}).items():
        script = script.replace(word, instead)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DISINHERIT_")
    } | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONWARNINGS": "ignore",
        "NO_COLOR": "1",
        "COLUMNS": "200",
        **(variables or {}),
    }
    printed, errors = folder / "printed.log", folder / "errors.log"
    with (
        printed.open("w") as out,
        errors.open("w") as err,
        subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=err,
            start_new_session=True,
        ) as process,
    ):
        try:
            code = process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever runs in the background
    assert code == 0, f"{printed.read_text()}\n{errors.read_text()}"
    found, rest = {}, re.sub(r" +$", "", printed.read_text(), flags=re.MULTILINE)
    for place, (language, text) in enumerate(blocks(page)):
        if language == "sh" and not NAMED.match(text):
            found[place], _, rest = rest.partition(f"{_END.format(place)}\n")
    for place, text in expected.items():
        assert re.fullmatch(pattern(text), found[place]), (
            f"{page} says\n{text}\nand the command printed\n{found[place]}"
        )


def pattern(text: str) -> str:
    """What a printed text must match: any numbers and spaces for its own, anything for `...`."""
    escaped = re.escape(text).replace(re.escape("..."), ".*")
    return re.sub(r"(?:\\ )+", " +", re.sub(r"\d+(?:\\\.\d+)?", r"[\\d.]+", escaped))
