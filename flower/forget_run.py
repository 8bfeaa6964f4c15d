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

from disinherit.common.errors import CampaignError, InputError
from disinherit.common.text import load_toml, one_line
from disinherit.deploy.flower_cli import flwr_command
from disinherit.flower.asked_for import KEY, PREFIX, VALUE

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
    folder: Path, connection: str, asked: str, say: Callable[[str], object], run_config: str = ""
) -> Forgot:
    """Run the request, and hand on each line of it.

    Args:
        folder: of the app.
        connection: name of the connection to the SuperLink; empty for Flower's default.
        asked: JSON of what is to be forgotten.
        say: gets what the run prints of the request, line by line.
        run_config: as of `flwr run --run-config`.

    Returns:
        What became of the models.

    Raises:
        InputError: if the folder is no Flower app.
        CampaignError: if the run fails, with the reason if it said one.
    """
    with _bundle(folder, asked) as bundle:
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
def _bundle(folder: Path, asked: str) -> Iterator[Path]:
    """Copy an app with another ServerApp to a folder that is removed after the block."""
    content = _read(folder)
    app = content["tool"]["flwr"]["app"]
    app["components"]["serverapp"] = SERVER_APP
    app.setdefault("config", {})[KEY] = asked
    with tempfile.TemporaryDirectory(prefix="disinherit-flower-") as place:
        copy = Path(place) / folder.resolve().name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        (copy / "pyproject.toml").write_text(tomli_w.dumps(content), encoding="utf-8")
        yield copy


def _read(folder: Path) -> dict[str, Any]:
    """Return the configuration of an app.

    Raises:
        InputError: if the folder is no Flower app.
    """
    path = folder / "pyproject.toml"
    try:
        content = load_toml(path.read_text("utf-8"))
        clientapp = content["tool"]["flwr"]["app"]["components"]["clientapp"]
    except (OSError, ValueError, KeyError, TypeError):
        clientapp = None
    if not isinstance(clientapp, str):
        raise InputError(
            f"Expected the folder of a Flower app, whose pyproject.toml names a clientapp, but got "
            f"{str(folder)!r}."
        )
    return content
