"""Files of weights in a folder: which of them are one model, and whether they are complete."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from disinherit.common.errors import DataError
from disinherit.families.evidence import Evidence, Kind, Weights
from disinherit.families.reading import read_json, table_of
from disinherit.families.weights import NO_WEIGHTS, files_weights, tensors_weights

_SHARD = re.compile(r"(.+?)-(\d{5})-of-(\d{5})")
_PICKLES = re.compile(r"(pytorch_model|adapter_model)(-\d{5}-of-\d{5})?\.bin|model\.(pt|pth|ckpt)")
_ORDER = ("model", "diffusion_pytorch_model", "pytorch_model")
_ADAPTER = "adapter_model"
_INDEX = ".index.json"
_MOST_INDEX = 64 * 2**20
"""Bytes of an index of shards, which has a line for each tensor."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Files that are one model.

    Attributes:
        stem: their name without numbers and ending.
        ending: `safetensors`, `gguf`, or that of pickles.
        paths: the files, in order.
        missing: number of shards that an index names, or their names count, and that are not there.
    """

    stem: str
    ending: str
    paths: tuple[Path, ...]
    missing: int


def is_weights(name: str) -> bool:
    """Whether a file may hold weights of a model; optimizers and the like do not."""
    return name.endswith((".safetensors", ".gguf")) or _PICKLES.fullmatch(name) is not None


def is_index(name: str) -> bool:
    """Whether a file may say which shards are one model."""
    return name.endswith((f".safetensors{_INDEX}", f".bin{_INDEX}"))


def groups(
    files: Mapping[str, Path], adapter: bool, key: str, evidence: Evidence
) -> tuple[WeightFiles | None, list[WeightFiles]]:
    """Return the weights of the model that a folder is, and its GGUF files.

    Args:
        files: name -> path of the files of interest in the folder.
        adapter: whether it has the config of an adapter.
        key: key of the model, for findings.
        evidence: gets findings.

    Returns:
        The group that loading the folder would take, `None` if there is none; and a group for each
        GGUF model.
    """
    indexes, faults = read_indexes(files)
    for path, text in faults:
        evidence.note(Kind.UNREADABLE, str(path), text)
    found = grouped({name: path for name, path in files.items() if is_weights(name)}, indexes)
    ggufs = [group for group in found if group.ending == "gguf"]
    rest = [group for group in found if group.ending != "gguf"]
    own = [group for group in rest if group.stem == _ADAPTER]
    if adapter and own:
        if others := [group for group in rest if group.stem != _ADAPTER]:
            names = ", ".join(group.stem for group in others)
            text = f"An adapter and whole weights ({names}) in one folder: the adapter is taken."
            evidence.note(Kind.CONFLICT, key, text)
        return _first(own), ggufs
    rest = [group for group in rest if group.stem != _ADAPTER]
    known = [group for group in rest if group.stem in _ORDER]
    if not known and len(rest) > 1:
        names = ", ".join(group.stem for group in rest)
        text = f"Weights under several names ({names}), none of them the usual one: none is taken."
        evidence.note(Kind.WEIGHTS, key, text)
        return None, ggufs
    return _first(known or rest), ggufs


def weights_of(group: WeightFiles, key: str, evidence: Evidence) -> Weights:
    """Return the identity of a model's weights; none, with a finding, if it cannot be had.

    Args:
        group: the files.
        key: key of the model, for findings.
        evidence: gets findings.
    """
    if group.missing:
        text = f"{group.missing} of its shards are missing: it is not pinned to weights."
        evidence.note(Kind.WEIGHTS, key, text)
        return NO_WEIGHTS
    try:
        if group.ending == "safetensors":
            return tensors_weights(group.paths)
        return files_weights(group.paths)
    except DataError as error:
        evidence.note(Kind.WEIGHTS, key, f"{error} It is not pinned to weights.")
        return NO_WEIGHTS


def _first(found: list[WeightFiles]) -> WeightFiles | None:
    """Return what loading takes: safetensors before pickles, the usual names, whole files first."""

    def place(group: WeightFiles) -> tuple[bool, int, int]:
        usual = _ORDER.index(group.stem) if group.stem in _ORDER else len(_ORDER)
        return group.ending != "safetensors", usual, len(group.paths) + group.missing

    return min(found, key=place, default=None)


def read_indexes(
    files: Mapping[str, Path],
) -> tuple[dict[str, frozenset[str]], list[tuple[Path, str]]]:
    """Return what the indexes among files say, where the whole file is not there.

    Args:
        files: name -> path.

    Returns:
        Name of a whole file, such as `model.safetensors` -> names of its shards; and path and text
            of what cannot be read.
    """
    found, faults = {}, []
    for name, path in files.items():
        whole = name.removesuffix(_INDEX)
        if not is_index(name) or whole in files:
            continue
        try:
            shards = table_of(read_json(path, _MOST_INDEX).get("weight_map")).values()
            found[whole] = frozenset(one for one in shards if isinstance(one, str))
        except DataError as error:
            faults.append((path, str(error)))
    return {whole: shards for whole, shards in found.items() if shards}, faults


def grouped(
    files: Mapping[str, Path], indexes: Mapping[str, Collection[str]] = MappingProxyType({})
) -> list[WeightFiles]:
    """Return files of weights by the model that they belong to, with its shards together.

    Args:
        files: name -> path.
        indexes: of `read_indexes`; other shards of the same name are of before, and left out.
    """
    found = []
    rest = dict(files)
    for whole, names in indexes.items():
        stem, _, ending = whole.rpartition(".")
        present = tuple(files[name] for name in sorted(names) if name in files)
        found.append(WeightFiles(stem, ending, present, len(names) - len(present)))
        rest = {
            name: path
            for name, path in rest.items()
            if name not in names and not (_is_shard(name) and name.startswith(f"{stem}-"))
        }
    shards: dict[tuple[str, str, int], list[Path]] = {}
    for name, path in sorted(rest.items()):
        stem, _, ending = name.rpartition(".")
        shard = _SHARD.fullmatch(stem)
        parts = int(shard[3]) if shard else 1
        shards.setdefault((shard[1] if shard else stem, ending, parts), []).append(path)
    return [*found, *(_group(*one, paths) for one, paths in shards.items())]


def _is_shard(name: str) -> bool:
    return _SHARD.fullmatch(name.rpartition(".")[0]) is not None


def _group(stem: str, ending: str, parts: int, paths: Iterable[Path]) -> WeightFiles:
    listed = tuple(paths)
    return WeightFiles(stem, ending, listed, max(0, parts - len(listed)))
