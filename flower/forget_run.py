"""A run of Flower that forgets: the app's own bundle, with another ServerApp and what to forget.

The bundle is a copy of the app's folder, so that nodes run the same ClientApp as in training.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from disinherit.common.errors import CampaignError
from disinherit.common.text import one_line
from disinherit.deploy.flower_cli import flwr_command
from disinherit.flower.asked_for import KEY, PREFIX, VALUE, read_asked
from disinherit.flower.projects import dependencies, project_name, read_project
from disinherit.flower.superlinks import is_started_by_flower, starting_line
from disinherit.flower.trained import check_request

SERVER_APP = "disinherit.flower.forget_app:app"
_OUTCOME = re.compile(r"request \S+: (\w+), ")
_REASON = re.compile(r"(\w+\.)*\w*(Error|Exception): (?!.*Ending simulation\.$)")
"""Last line of a traceback, which Flower's simulation engine wraps in another that says nothing."""

_FRAME = "╭╮╰╯│─ "
"""Around an error of the command `flwr` itself; its text is on several lines."""

_DONE = ("complete", "unchanged")
_LEFT_OUT = (".git", ".venv", "__pycache__", "node_modules")


@dataclass(frozen=True, slots=True)
class Forgot:
    """What a run made of a request.

    Attributes:
        done: whether every affected model has forgotten.
        values: the request, its outcome and its models, as JSON values.
    """

    done: bool
    values: dict[str, Any]


def run_forget(
    folder: Path,
    connection: str,
    asked: str,
    say: Callable[[str], object],
    warn: Callable[[str], object],
    run_config: str = "",
) -> Forgot:
    """Run the request, and hand on each line of it.

    Where the server's records are on this machine for sure, they are read first: a request that
    they show to be in vain starts nothing.

    Args:
        folder: of the app.
        connection: name of the connection to the SuperLink; empty for Flower's default.
        asked: JSON of what is to be forgotten.
        say: gets what the run prints of the request, line by line.
        warn: gets a line on what Flower does before.
        run_config: as of `flwr run --run-config`.

    Returns:
        What became of the models.

    Raises:
        InputError: if the folder is no Flower app.
        RequestError: if the records show that there is nothing to forget.
        CampaignError: if the run fails, with the reason if it said one.
    """
    project = read_project(folder)
    if is_started_by_flower(connection):
        packages = {path.stem for path in folder.iterdir()}
        check_request(project_name(project), packages, read_asked(asked))
    warn(starting_line(connection, dependencies(project)))
    with _bundle(folder, project, asked) as bundle:
        words = flwr_command("run", str(bundle), *filter(None, [connection]), "--stream")
        words += ["--run-config", run_config] if run_config else []
        return _follow(words, say)


def _follow(words: list[str], say: Callable[[str], object]) -> Forgot:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    outcome, error, reasons = "", "", []
    last: list[str] = []
    values: list[dict[str, Any]] = []
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            _, found, text = line.rstrip().rpartition(PREFIX)
            if not found:
                last = _last_words(last, line.strip())
                reasons += [line.strip()] if _REASON.match(line) else []
            elif text.startswith("error: "):
                error = text.removeprefix("error: ")
            elif text.startswith(VALUE):
                values.append(json.loads(text.removeprefix(VALUE)))
            else:
                say(text)
                outcome = match[1] if (match := _OUTCOME.match(text)) else outcome
    if error:
        raise CampaignError(error)
    if not outcome:
        reason = one_line(next(reversed(reasons), " ".join(last))).rstrip(".")
        raise CampaignError(
            "Expected a run of Flower that ends with the outcome of the request, but it ended "
            f"with: {reason or 'nothing'}. See flwr log."
        )
    first, models = (values[0], values[1:]) if values else ({}, [])
    return Forgot(outcome in _DONE, {**first, "models": models})


def _last_words(before: list[str], line: str) -> list[str]:
    """Return what was printed last: a line, or the lines inside of a frame."""
    if not line:
        return before
    if line[0] not in _FRAME:
        return [line]
    text = line.strip(_FRAME)
    return [] if line[0] == "╭" else [*before, text] if text else before


@contextmanager
def _bundle(folder: Path, content: dict[str, Any], asked: str) -> Iterator[Path]:
    """Copy an app with another ServerApp to a folder that is removed after the block."""
    app = content["tool"]["flwr"]["app"]
    app["components"]["serverapp"] = SERVER_APP
    app.setdefault("config", {})[KEY] = asked
    with tempfile.TemporaryDirectory(prefix="disinherit-flower-") as place:
        copy = Path(place) / folder.resolve().name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        (copy / "pyproject.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
        yield copy
