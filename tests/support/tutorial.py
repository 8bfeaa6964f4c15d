"""Tutorials, run as a reader does: files are saved and commands typed in the order of a page."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.pages import blocks

NAMED = re.compile(r"# ([\w/.-]+\.(?:py|toml|txt))\n")
"""The first line of a block that is a file of the reader's."""

_INSTALLING = re.compile(r"(python3 -m venv|pip install|git clone|cd disinherit$).*")
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
            lines += [line for line in text.splitlines() if not _INSTALLING.fullmatch(line)]
            lines.append(f"echo '{_END.format(place)}'")
            last = place
        elif not language and last >= 0:
            printed[last] = text
            last = -1
    return "\n".join(lines) + "\n", printed


def run(page: str, folder: Path, seconds: float = 120) -> dict[int, str]:
    """Run a page in a folder, and compare what it prints; place of a block -> what it printed."""
    script, expected = script_of(page)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DISINHERIT_")
    } | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONWARNINGS": "ignore",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found, rest = {}, done.stdout
    for place, (language, text) in enumerate(blocks(page)):
        if language == "sh" and not NAMED.match(text):
            found[place], _, rest = rest.partition(f"{_END.format(place)}\n")
    for place, text in expected.items():
        assert re.fullmatch(pattern(text), found[place]), (
            f"{page} says\n{text}\nand the command printed\n{found[place]}"
        )
    return found


def pattern(text: str) -> str:
    """What a printed text must match: any numbers and spaces for its own, anything for `...`."""
    escaped = re.escape(text).replace(re.escape("..."), ".*")
    return re.sub(r"(?:\\ )+", " +", re.sub(r"\d+(?:\\\.\d+)?", r"[\\d.]+", escaped))
