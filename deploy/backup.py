"""Backup of a running deployment, which can be started elsewhere.

Each database is copied consistently, even during writes.  Fisher packets are copied after the
database that refers to them: they are written before it and never change.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from disinherit.common.errors import InputError, StoreError
from disinherit.common.files import TEMPORARY_GLOB, sync_folder
from disinherit.deploy.files import FleetFiles
from disinherit.server.service.settings import ServeSettings, read_settings

_NOT_KEPT = (
    "logs",
    "owners",
    "state-*",
    "proxy",
    "apps",
    TEMPORARY_GLOB,
    "*.sock",
    "*-wal",
    "*-shm",
)
"""Logs, files of owners, and files that are recreated."""


def back_up(files: FleetFiles, target: Path) -> list[str]:
    """Copy the data of the coordinator's machine: databases, packets, keys, configuration.

    Args:
        files: files of the deployment, which may be running.
        target: folder to create; only its user may read it, as it has all keys.

    Returns:
        Data stored elsewhere, which needs a backup by other means.

    Raises:
        InputError: if the folder exists or is in the deployment, or the service's configuration
            cannot be used.
        StoreError: if something cannot be copied; the folder is then removed.
    """
    settings = read_settings(files.service, {}, {})
    if target.resolve().is_relative_to(files.root.resolve()):
        raise InputError(
            f"Expected a folder for the copy that is not in the deployment, but {str(target)!r} is "
            f"in {str(files.root)!r}: each copy would have all former ones. Name another."
        )
    try:
        target.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise InputError(
            f"Expected a new folder for the copy, but {str(target)!r} exists."
        ) from None
    except OSError as error:
        raise StoreError(f"Expected a folder for the copy, but: {error}.") from error
    try:
        databases = sorted(files.root.glob("*.db"))
        for database in databases:
            _copy_database(database, target / database.name)
        _copy_rest(files.root, target, {database.name for database in databases})
        sync_folder(target)
    except (OSError, sqlite3.Error, shutil.Error) as error:
        shutil.rmtree(target, ignore_errors=True)
        raise StoreError(
            f"Expected to copy the deployment in {files.root} to {target}, but: {error}."
        ) from error
    return _elsewhere(files, settings)


def _copy_database(source: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as running,
        closing(sqlite3.connect(target)) as copy,
    ):
        running.backup(copy)
    target.chmod(source.stat().st_mode & 0o777)


def _copy_rest(source: Path, target: Path, done: set[str]) -> None:
    unwanted = shutil.ignore_patterns(*_NOT_KEPT)

    def ignored(folder: str, names: list[str]) -> set[str]:
        here = done if Path(folder) == source else set()
        return unwanted(folder, names) | (here & set(names))

    shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
    target.chmod(0o700)


def _elsewhere(files: FleetFiles, settings: ServeSettings) -> list[str]:
    found = []
    if isinstance(settings.database, str):
        found.append("the coordinator's database, which is on a server: use its tools (pg_dump)")
    places = [("the Fisher packets", settings.packets), ("the signing key", settings.signing_key)]
    for what, place in places:
        outside = isinstance(place, Path) and not place.is_relative_to(files.root)
        if outside or (isinstance(place, str) and place):
            found.append(f"{what} at {place}")
    return found
