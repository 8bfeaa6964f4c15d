"""Folders of models: those of the Hugging Face hub's cache, and plain ones.

A folder is a model if it has weights, a config of transformers, timm, PEFT or mergekit, or the card
of a model.  In the hub's cache its name is that of the repository; elsewhere it is the path below
the imported folder.  A GGUF file is a model of its own.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from disinherit.common.errors import DataError
from disinherit.families.adapters import ADAPTER_CONFIG, claims_of_adapter, fold_recipe
from disinherit.families.configs import (
    CONFIG,
    claims_of_config,
    class_names,
    configures_model,
    quantisation,
)
from disinherit.families.evidence import Claim, Evidence, Found, Kind, Relation, Said
from disinherit.families.gguf import claims_of_gguf, may_be_gguf, read_metadata
from disinherit.families.merges import MERGE_CONFIG, claims_of_merge
from disinherit.families.model_cards import CARD, claims_of_card, describes_model, read_card
from disinherit.families.reading import is_inside, read_json, read_text, read_yaml
from disinherit.families.weight_files import WeightFiles, groups, is_index, is_weights, weights_of
from disinherit.families.weights import NO_WEIGHTS

_READERS: Mapping[str, Callable[[Path], Mapping[str, Any]]] = {
    CARD: read_card,
    CONFIG: read_json,
    ADAPTER_CONFIG: read_json,
    MERGE_CONFIG: read_yaml,
}
_CLAIMS: Mapping[str, Callable[[str, Mapping[str, Any]], Said]] = {
    MERGE_CONFIG: claims_of_merge,
    ADAPTER_CONFIG: claims_of_adapter,
    CARD: claims_of_card,
    CONFIG: claims_of_config,
}
_CACHED = re.compile(r"models--(.+)")
_SKIPPED = {
    "mlruns",
    "mlartifacts",
    ".git",
    ".dvc",
    ".cache",
    ".venv",
    "node_modules",
    "__pycache__",
}
_MOST_REF = 1000
"""Bytes of a file that has the commit of a branch or a tag."""

_CACHE_SKIPPED = {"blobs", "refs"}
"""Folders of a repository in the hub's cache; elsewhere they are named like any other."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder with files that may make it a model.

    Attributes:
        path: the folder.
        name: name by which sources refer to the model.
        revision: commit of the hub, if known.
        refs: branches and tags that mean this commit.
        current: whether the name without a revision means this one.
        files: name -> path of the files of interest in it.
    """

    path: Path
    name: str
    revision: str
    refs: tuple[str, ...]
    current: bool
    files: Mapping[str, Path]


def read_folders(root: Path, evidence: Evidence) -> None:
    """Add the models in a folder and below it.

    Links that lead out of the folder are listed and not followed.

    Args:
        root: the folder.
        evidence: gets the models, claims and findings.
    """
    for folder in model_folders(root, evidence):
        _read_folder(folder, evidence)


def model_folders(root: Path, evidence: Evidence) -> Iterator[ModelFolder]:
    """Yield the folders in a folder and below it that may be models, under their names.

    Args:
        root: the folder.
        evidence: gets findings about what is not followed or readable.
    """
    top = root.resolve()
    boundary = _cache_of(top) or top

    def note(error: OSError) -> None:
        evidence.note(Kind.UNREADABLE, str(error.filename), f"Not readable: {error.strerror}.")

    for place, folders, names in os.walk(top, onerror=note):
        path = Path(place)
        for name in sorted(name for name in folders if (path / name).is_symlink()):
            evidence.note(Kind.LINK, str(path / name), "A link to a folder; it is not followed.")
        skipped = _SKIPPED | (_CACHE_SKIPPED if _cache_of(path) == path else set())
        folders[:] = sorted(
            name for name in folders if name not in skipped and not (path / name).is_symlink()
        )
        files = {}
        for name in sorted(
            name for name in names if name in _READERS or is_weights(name) or is_index(name)
        ):
            if is_inside(path / name, boundary):
                if (path / name).is_file():
                    files[name] = path / name
                else:  # a named pipe would be waited for
                    evidence.note(Kind.UNREADABLE, str(path / name), "No regular file.")
            else:
                text = "A link that is broken or leads out of the folder; it is not followed."
                evidence.note(Kind.LINK, str(path / name), text)
        if files:
            yield _named(path, top, files)


def _named(path: Path, top: Path, files: Mapping[str, Path]) -> ModelFolder:
    cache = _cache_of(path)
    if cache is None or path.parent.name != "snapshots":
        relative = path.relative_to(top).as_posix()
        return ModelFolder(path, top.name if relative == "." else relative, "", (), True, files)
    name = "/".join(cache.name.split("--")[1:])
    refs = _refs(cache / "refs")
    current = refs.get("main", path.name) == path.name  # without it: downloaded by its commit only
    named = tuple(ref for ref, commit in refs.items() if commit == path.name)
    return ModelFolder(path, name, path.name, named, current, files)


def _refs(folder: Path) -> dict[str, str]:
    """Return the commits that branches and tags meant when they were downloaded."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place) / name
            with suppress(DataError):
                found[path.relative_to(folder).as_posix()] = read_text(path, _MOST_REF).strip()
    return found


def _cache_of(path: Path) -> Path | None:
    """Return the folder of a repository in the hub's cache that a path is in."""
    for place in (path, *path.parents):
        if _CACHED.fullmatch(place.name) and (place / "snapshots").is_dir():
            return place
    return None


def _read_folder(folder: ModelFolder, evidence: Evidence) -> None:
    key, files = str(folder.path), folder.files
    told: dict[str, Mapping[str, Any]] = {}
    for name, reader in _READERS.items():
        if name in files:
            try:
                told[name] = reader(files[name])
            except DataError as error:
                evidence.note(Kind.UNREADABLE, str(files[name]), str(error))
    adapter = ADAPTER_CONFIG in files
    main, ggufs = groups(files, adapter, key, evidence)
    of_model = {ADAPTER_CONFIG, MERGE_CONFIG} & told.keys()
    configured = bool(of_model) or configures_model(told.get(CONFIG, {}))
    if main is None and not configured and (ggufs or not _is_card(folder, told)):
        for group in ggufs:  # the card of such a folder is about its GGUF files
            _read_gguf(folder, group, len(ggufs) == 1, told.get(CARD, {}), evidence)
        return
    config = told.get(CONFIG, {})
    labels, meant = class_names(config)
    if not meant:
        text = "Its class names are placeholders (LABEL_0 and so on), which other models have, too."
        evidence.note(Kind.LABELS, key, text)
    found = Found(
        key,
        folder.name,
        folder.revision,
        folder.refs,
        folder.current,
        path=folder.path,
        files=() if main is None else main.paths,
        weights=NO_WEIGHTS if main is None else weights_of(main, key, evidence),
        labels=labels,
        adapter=adapter,
        fold=fold_recipe(told.get(ADAPTER_CONFIG, {})),
    )
    evidence.add(found)
    recipe = quantisation(config)
    for name, table in told.items():
        for claim in _said(_CLAIMS[name], key, files[name], table, evidence):
            quantised = claim.relation is Relation.QUANTIZED
            evidence.claims.append(replace(claim, recipe=recipe) if quantised else claim)
    for group in ggufs:
        _read_gguf(folder, group, False, {}, evidence)


def _is_card(folder: ModelFolder, told: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a folder without weights and configs has the card of a model."""
    return CARD in folder.files and (folder.revision != "" or describes_model(told.get(CARD, {})))


def _read_gguf(
    folder: ModelFolder,
    group: WeightFiles,
    alone: bool,
    card: Mapping[str, Any],
    evidence: Evidence,
) -> None:
    """Add the model in a GGUF file, or in its parts."""
    first = group.paths[0]
    key = str(first)
    real = may_be_gguf(first)
    if not real and not card:
        text = f"Expected a GGUF file, but {first.name} does not start as one does: it is no model."
        evidence.note(Kind.UNREADABLE, key, text)
        return
    found = Found(
        key,
        folder.name if alone else f"{folder.name}/{group.stem}",
        folder.revision,
        folder.refs,
        folder.current,
        path=first,
        files=group.paths,
        weights=weights_of(group, key, evidence) if real else NO_WEIGHTS,
    )
    evidence.add(found)
    evidence.claims += _said(claims_of_card, key, folder.path / CARD, card, evidence)
    try:
        metadata = read_metadata(first)
    except DataError as error:
        evidence.note(Kind.UNREADABLE, key, str(error))
        return
    evidence.claims += _said(claims_of_gguf, key, first, metadata, evidence)


def _said(
    parse: Callable[[str, Mapping[str, Any]], Said],
    key: str,
    file: Path,
    table: Mapping[str, Any],
    evidence: Evidence,
) -> list[Claim]:
    """Return the claims of one file; its findings and faults are noted."""
    try:
        claims, findings = parse(key, table)
    except DataError as error:
        evidence.note(Kind.UNREADABLE, str(file), str(error))
        return []
    evidence.findings += findings
    return claims
