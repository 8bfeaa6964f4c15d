"""The folder of a simulated run: what may be in it, and what its files mean.

::

    run.json                the settings; marks the folder as a run's
    owners/, coordinator.db what the run made
    report.html
    report.json             written last: marks the run as finished
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disinherit.common.errors import CheckpointError, DisinheritError, InputError
from disinherit.common.files import write_atomic
from disinherit.common.text import load_json
from disinherit.deploy.files import PACKETS
from disinherit.server.store.database import Database
from disinherit.server.store.log_mark import mark_file
from disinherit.server.store.signed_log import SignedLog
from disinherit.server.store.signing import open_signer
from disinherit.server.store.store import CoordinatorStore
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import RunReport
from disinherit.simulations.report.html import render_html
from disinherit.simulations.scenario.settings import Settings

DATABASE = "coordinator.db"

_SETTINGS = "run.json"
_REPORT = "report.json"
_DATABASE_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm")


def prepare_folder(folder: Path, settings: Settings) -> bool:
    """Make a folder ready for a run, unless it holds the finished run of these settings.

    A run that did not come to its end, or whose campaign did not reach every affected model, is
    removed, to be started again.

    Args:
        folder: the run's folder; created if it does not exist.
        settings: of the run.

    Returns:
        Whether the folder holds the finished run; nothing is changed then.

    Raises:
        InputError: if the folder holds something else, or a run of other settings.
        CheckpointError: if what it holds is damaged, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _SETTINGS).exists():
            if load_settings(folder) != settings:
                raise InputError(
                    f"Expected an empty folder or a run of the same settings in {str(folder)!r}, "
                    "but it holds a run of other settings. Choose another --out, or remove it."
                )
            if (folder / _REPORT).exists() and _complete(load_report(folder)):
                return True
            _remove_made(folder)
        elif any(folder.iterdir()):
            raise InputError(
                f"Expected an empty folder for the run, but {str(folder)!r} holds other files. "
                "Choose another --out."
            )
        write_atomic(folder / _SETTINGS, json.dumps(settings.to_dict(), indent=2).encode())
    except OSError as error:
        raise CheckpointError(
            f"Expected to be able to write to {str(folder)!r}, but: {error}. Choose another --out."
        ) from error
    return False


def discard_run(folder: Path) -> None:
    """Remove a run that comes to no report, so that one of other settings may take its place."""
    _remove_made(folder)
    _remove(folder / _SETTINGS)


def load_settings(folder: Path) -> Settings:
    """Return the settings of the run in a folder.

    Raises:
        CheckpointError: if they are missing or damaged.
    """
    path = folder / _SETTINGS
    try:
        return Settings.from_dict(_read_json(path))
    except InputError as error:
        raise _damaged(path, "the settings of a run", error) from error


def load_report(folder: Path) -> RunReport:
    """Return the report of the finished run in a folder.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    path = folder / _REPORT
    try:
        return check_report(_read_json(path))
    except InputError as error:
        raise _damaged(path, "the report of a run", error) from error


def save_report(folder: Path, report: RunReport) -> None:
    """Write `report.html` and `report.json`, which marks the run as finished.

    Raises:
        CheckpointError: if they cannot be written.
    """
    write_atomic(folder / "report.html", render_html(report).encode())
    write_atomic(folder / _REPORT, json.dumps(report, indent=2).encode())


def copy_database(folder: Path, target: Path) -> Path:
    """Copy the coordinator's database of a finished run, to ask questions without changing it.

    Raises:
        CheckpointError: if it is missing or cannot be read.
    """
    if not (folder / DATABASE).is_file():
        raise CheckpointError(
            f"Expected the coordinator's database {folder / DATABASE}, but it is missing. Restore "
            f"it, or remove {folder} to start again."
        )
    try:
        for name in _DATABASE_FILES:
            if (folder / name).exists():
                shutil.copyfile(folder / name, target / name)
    except OSError as error:
        raise CheckpointError(
            f"Expected to be able to read {folder / DATABASE}, but: {error}."
        ) from error
    return target / DATABASE


def _complete(report: RunReport) -> bool:
    return report["campaign"]["outcome"] in ("complete", "unchanged")


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = load_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"Expected a readable JSON file {path}, but: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"Expected an object in {path}, but got {type(value).__name__}.")
    return value


def _damaged(path: Path, what: str, error: DisinheritError) -> CheckpointError:
    return CheckpointError(
        f"Expected {what} in {path}, but it is damaged: {error} Restore it, or remove its folder."
    )


def _remove_made(folder: Path) -> None:
    for name in (_REPORT, "report.html", "owners", *_DATABASE_FILES):
        _remove(folder / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def open_store(
    folder: Path, database: str | None = None, key: Path | None = None
) -> Iterator[CoordinatorStore]:
    """Open the store for the length of a block.

    Args:
        folder: of the run.
        database: URL of the coordinator's; `None` for the SQLite file in the folder.
        key: file of the key that signs the log, made if there is none; `None` for no signatures.

    Raises:
        StoreError: if it cannot be opened.
    """
    packets = folder / (PACKETS if database else f"{DATABASE}.packets")
    opened = Database(database or folder / DATABASE)
    store = CoordinatorStore(opened, packets)
    try:
        if key is not None:
            store.signed_log = SignedLog(opened, open_signer(key), mark_file(key))
        yield store
    finally:
        store.close()
