"""DVC lock files: which outputs a stage made of which dependencies, checked by their MD5.

A model among the outputs of a stage descends from the models among its dependencies.  A model is
its weights, or a folder that has them: a tokenizer or metrics beside them are none.  Files that
have changed since are listed: then the lock is about other weights.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from disinherit.common.errors import DataError
from disinherit.families.evidence import Claim, Evidence, Found, Kind, Source
from disinherit.families.reading import is_inside, read_yaml, table_of

LOCK = "dvc.lock"
_FOLDER = ".dir"
_MOST_FILES = 10_000


def read_lock(path: Path, evidence: Evidence) -> None:
    """Add what a lock file says of models that were found before.

    Args:
        path: the `dvc.lock`.
        evidence: has the models; gets claims and findings.
    """
    try:
        stages = table_of(read_yaml(path).get("stages"))
    except DataError as error:
        evidence.note(Kind.UNREADABLE, str(path), str(error))
        return
    folder = path.parent.resolve()
    models = [found for found in evidence.models.values() if found.path is not None]
    hashed = cache(_hash)  # a base is a dependency of many stages
    for name, stage in stages.items():
        made = list(_models(table_of(stage).get("outs"), folder, models))
        used = list(_models(table_of(stage).get("deps"), folder, models))
        if not made or not used:
            continue
        stale = [entry for _, entry in made + used if not _is_current(entry, folder, hashed)]
        for entry in stale:
            text = f"{entry.get('path')!r} is not what stage {name!r} recorded: no edge is taken."
            evidence.note(Kind.STALE, str(path), text)
        if not stale:
            evidence.claims += [
                Claim(child.key, parent.key, Source.DVC)
                for child, _ in made
                for parent, _ in used
                if child.key != parent.key
            ]


def _models(
    entries: object, folder: Path, models: list[Found]
) -> Iterator[tuple[Found, Mapping[str, Any]]]:
    for entry in entries if isinstance(entries, list) else []:
        table = table_of(entry)
        given = table.get("path")
        if not isinstance(given, str) or "\0" in given:
            continue
        path = Path(os.path.normpath(folder / given))
        for found in models:
            if any(place.is_relative_to(path) for place in found.files or (found.path or folder,)):
                yield found, table


def _is_current(
    entry: Mapping[str, Any], folder: Path, hashed: Callable[[Path], str | None]
) -> bool:
    """Whether an output or a dependency is still what the lock recorded."""
    recorded, path = entry.get("md5"), folder / str(entry.get("path"))
    return isinstance(recorded, str) and is_inside(path, folder) and recorded == hashed(path)


def _hash(path: Path) -> str | None:
    """Return the MD5 of a file or folder as DVC makes it; `None` if it cannot be read."""
    if not path.is_dir() and not path.is_file():  # a named pipe would be waited for
        return None
    try:
        return _of_folder(path) if path.is_dir() else _of_file(path)
    except OSError:
        return None


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _of_folder(path: Path) -> str:
    """Return the MD5 of a folder as DVC makes it: of the JSON list of its files and their MD5."""
    files = [file for file in path.rglob("*") if file.is_file()][:_MOST_FILES]
    listed = [
        {"md5": _of_file(file), "relpath": file.relative_to(path).as_posix()}
        for file in sorted(files, key=lambda file: file.relative_to(path).as_posix())
    ]
    text = json.dumps(listed, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + _FOLDER
