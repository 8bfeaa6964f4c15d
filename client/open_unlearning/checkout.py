"""Where open-unlearning is, and how one of its trainers is run there.

Its `pip install` brings what it requires and none of its own modules, and pins a transformers that
cannot be where Disinherit's is.  So it is what its users have: a folder with its source, and a
Python of its own.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disinherit.common.errors import DataError
from disinherit.common.text import one_line

FOLDER_VARIABLE = "DISINHERIT_OPEN_UNLEARNING"
"""Environment variable: folder of the source of open-unlearning."""

PYTHON_VARIABLE = "DISINHERIT_OPEN_UNLEARNING_PYTHON"
"""Environment variable: the Python that has what it requires; by default that of `.venv` there."""

_CONFIGS = Path("configs") / "trainer"
_DRIVER = Path(__file__).with_name("driver.py")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with the source of open-unlearning.

    Attributes:
        folder: the folder.
        python: the Python that has what it requires.
    """

    folder: Path
    python: Path

    def run(
        self, work: Path, trainer: str, job: Mapping[str, Any], device: str, index: int | None
    ) -> int:
        """Run a trainer, and return the number of its steps.

        Args:
            work: folder with the model and the samples (`driver`).
            trainer: name of its configuration.
            job: what the driver has to know beyond that.
            device: `cpu`, or `cuda` for one GPU.
            index: of the GPU among those that are visible; `None` for the first.

        Raises:
            DataError: if it fails.
        """
        configs = str(self.folder / _CONFIGS)
        text = json.dumps({**job, "trainer": trainer, "configs": configs, "device": device})
        (work / "job.json").write_text(text, "utf-8")
        # Safe path: the modules beside the driver are not those that it imports.
        done = subprocess.run(
            [str(self.python), "-P", "-W", "ignore", str(_DRIVER), str(work)],
            cwd=work,
            env={
                **os.environ,
                "PYTHONPATH": str(self.folder / "src"),
                _VISIBLE: _only(index or 0) if device == "cuda" else "",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode or not (work / "done.json").exists():
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
            raise DataError(
                f"Expected trainer {trainer} of open-unlearning in {self.folder} to end, but got: "
                f"{one_line(said[-1], 300)}. Choose another root method."
            )
        steps: int = json.loads((work / "done.json").read_text("utf-8"))["steps"]
        return steps


def _only(index: int) -> str:
    """Return which GPU to let a process see, so that it does not spread over all."""
    visible = os.environ.get(_VISIBLE)
    return visible.split(",")[index] if visible else str(index)


def find(trainer: str) -> Checkout | str:
    """Return where open-unlearning is, or why it is not there, as one sentence.

    Args:
        trainer: the trainer that is needed.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        return (
            f"open-unlearning is not installed: set {FOLDER_VARIABLE} to the folder of its source."
        )
    folder = Path(named).absolute()
    config = folder / _CONFIGS / f"{trainer}.yaml"
    if not config.is_file():
        return f"The folder of {FOLDER_VARIABLE} has no trainer {trainer}: {config} is not there."
    python = Path(os.environ.get(PYTHON_VARIABLE) or folder / ".venv" / "bin" / "python").absolute()
    if not os.access(python, os.X_OK):
        return (
            f"The Python of open-unlearning, {python}, is not there: install its requirements.txt "
            f"into an environment, and set {PYTHON_VARIABLE} to its Python."
        )
    return Checkout(folder, python)
