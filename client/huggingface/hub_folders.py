"""Folders of models: plain ones, and those in the local cache of the hub; nothing is downloaded.

The libraries are given absolute folders, never ids: what they do not find in the files of an id, or
of a relative path, which looks like one, they look up in the network.
"""

import re
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants

from disinherit.common.errors import InputError
from disinherit.common.exports.model_cards import cached_name

BASE = "base"
"""Folder of the base model in that of a saved adapter."""

_SNAPSHOTS, _CACHED = "snapshots", "models--"
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_COMMIT_START = re.compile(r"[0-9a-f]{7,39}")
_MAIN = "main"


def find_folder(source: str | Path, revision: str = "") -> Path:
    """Return the folder of a model: a folder, or that of an id in the local cache of the hub.

    Args:
        source: a folder, or an id.
        revision: a branch, a tag, or a commit, of which seven letters do; `""` for the main branch.
            Plain folders have none; one in a cache must be of that revision.

    Raises:
        InputError: if it is neither, or not here at that revision.
    """
    folder = Path(source)
    if not folder.is_dir():
        return _cached(str(source), revision, Path(constants.HF_HUB_CACHE))
    folder = folder.absolute()
    name = cached_name(folder)
    if name and revision and _cached(name, revision, folder.parents[2]).name != folder.name:
        raise InputError(
            f"Expected {name!r} at revision {revision!r}, but {folder} is another one of it. "
            "Name the right folder, or its id."
        )
    return folder


def _cached(name: str, revision: str, cache: Path) -> Path:
    """Return the folder of an id in a cache of the hub."""
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=revision or _MAIN, cache_dir=cache, local_files_only=True
            )
        )
    except (OSError, ValueError) as error:
        if _COMMIT_START.fullmatch(revision) and _REPOSITORY.fullmatch(name):
            commits = cache / f"{_CACHED}{name.replace('/', '--')}" / _SNAPSHOTS
            found = [*commits.glob(f"{revision}*")]
            if len(found) == 1:
                return found[0]
        at = f" at revision {revision!r}" if revision else ""
        raise InputError(
            f"Expected a folder, or an id in the local cache of the hub, but got {name!r}{at}. "
            "Download it first."
        ) from error


def hub_name(source: str | Path) -> str:
    """Return the id on the hub by which a model was named; `""` for other folders.

    Example:
        >>> hub_name("/home/ada/.cache/models--acme--base/snapshots/0123abc"), hub_name("acme/base")
        ('', 'acme/base')
    """
    folder = Path(source)
    if folder.is_dir():
        return cached_name(folder)
    return str(source) if is_id(str(source)) else ""


def is_id(name: str) -> bool:
    """Return whether a name may be an id on the hub: it is no path.

    Example:
        >>> [is_id(name) for name in ("acme/base", "gpt2", "/home/ada/base", "../base")]
        [True, True, False, False]
    """
    return _REPOSITORY.fullmatch(name) is not None and not name.startswith(".")


def base_folder(folder: Path, config: Any) -> Path:
    """Return the folder of an adapter's base: the one that it was trained on, or saved with.

    Args:
        folder: of the adapter; what its config names may be relative to it.
        config: of PEFT, with the name of the base and its revision.

    Raises:
        InputError: if none is named, or that is not here.
    """
    name, revision = config.base_model_name_or_path, getattr(config, "revision", None) or ""
    if not name:
        raise InputError(
            f"Expected {folder / 'adapter_config.json'} with base_model_name_or_path, but got none."
        )
    local = folder / name
    if local.is_dir():
        return find_folder(local, revision)
    try:
        return find_folder(name, revision)
    except InputError:
        if not revision and (folder / BASE / "config.json").is_file():  # saved, and then moved
            return (folder / BASE).absolute()
        raise
