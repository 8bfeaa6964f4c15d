"""Models with weights in a folder, under the names that `graph import` gives them.

The import takes one file of weights in a folder, or its shards together.  Others are compared as
well, but it knows no name for them, and an edge list cannot name them.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from disinherit.common.errors import DataError
from disinherit.families.adapters import ADAPTER_CONFIG
from disinherit.families.evidence import Evidence
from disinherit.families.model_cards import parent_name
from disinherit.families.model_folders import ModelFolder, model_folders
from disinherit.families.sampling import Sample, sample
from disinherit.families.weight_files import WeightFiles, grouped, groups, is_weights, read_indexes

_ADAPTER = "adapter_model"


@dataclass(frozen=True, slots=True)
class Listed:
    """How an edge list names a model.

    Attributes:
        name: its name.
        revision: its revision, if it has one.
        as_parent: why a list cannot name it as a parent; `""` if it can.
        as_child: why a list cannot name it as a child; `""` if it can.
    """

    name: str
    revision: str
    as_parent: str
    as_child: str


@dataclass(frozen=True, slots=True)
class FolderSamples:
    """What was read in a folder.

    Attributes:
        samples: a sample of each model, each with a name of its own.
        listed: name of a sample -> how an edge list names it.
        unread: file or model -> why it was not read.
    """

    samples: tuple[Sample, ...]
    listed: dict[str, Listed]
    unread: dict[str, str]


def read_samples(folder: Path) -> FolderSamples:
    """Look at the weights of all models in a folder and below it.

    Args:
        folder: the folder; links that lead out of it are not followed.

    Raises:
        DataError: if it is none, or there are no weights in safetensors.
    """
    if not folder.is_dir():
        raise DataError(f"Expected a folder with weights, but got {str(folder)!r}.")
    top, evidence = folder.resolve(), Evidence()
    places = list(model_folders(folder, evidence))
    current = Counter(place.name for place in places if place.current)
    revisions = Counter(place.name for place in places)
    samples: list[Sample] = []
    listed: dict[str, Listed] = {}
    unread: dict[str, str] = {}
    for place in places:
        for group, is_main in _groups(place, top, unread):
            alone = current[place.name] == 1, revisions[place.name] == 1
            names, how = _named(place, group, is_main, alone, top)
            name = next(one for one in names if one not in listed)
            listed[name] = how
            if group.missing:
                unread[name] = f"{group.missing} of its shards are missing"
                continue
            try:
                samples.append(sample(name, group.paths))
            except DataError as error:
                unread[name] = str(error)
    for finding in evidence.findings:
        unread.setdefault(finding.model.removeprefix(f"{top}/"), finding.text)
    if not samples and not unread:
        raise DataError(
            f"Expected weights in safetensors in {str(folder)!r} or below it, but got none. "
            "Pickles and GGUF are not compared: save such models as safetensors."
        )
    return FolderSamples(tuple(samples), listed, unread)


def _groups(
    place: ModelFolder, top: Path, unread: dict[str, str]
) -> Iterator[tuple[WeightFiles, bool]]:
    """Yield the whole weights in a folder, and whether the import takes them as its model."""
    indexes, faults = read_indexes(place.files)
    unread |= {path.relative_to(top).as_posix(): text for path, text in faults}
    main, _ = groups(place.files, ADAPTER_CONFIG in place.files, str(place.path), Evidence())
    weights = {name: path for name, path in place.files.items() if is_weights(name)}
    for group in grouped(weights, indexes):
        if group.ending == "safetensors" and group.stem != _ADAPTER:
            yield group, group == main


def _named(
    place: ModelFolder, group: WeightFiles, is_main: bool, alone: tuple[bool, bool], top: Path
) -> tuple[list[str], Listed]:
    """Return names that a model may have here, the best first, and how an edge list names it.

    Args:
        place: its folder.
        group: its files.
        is_main: whether the import takes it as the model of the folder.
        alone: whether no other current model, and no other revision, has its name.
        top: the folder that is looked at.
    """
    relative = place.path.relative_to(top)
    file = (relative / group.stem).as_posix()
    names = [f"{file}.{group.ending}", f"{place.path / group.stem}.{group.ending}"]
    if not is_main:
        why = "graph import takes another file of its folder, or none: give it a folder of its own"
        return [file, *names], Listed(place.name, place.revision, why, why)
    if place.revision:
        names.insert(0, f"{place.name}@{place.revision}")
    if place.current and alone[0]:
        names.insert(0, place.name)
    why = _unwritable(place.name)
    if not why and not place.revision and not alone[1]:
        why = "several models have its name: name one of their folders otherwise"
    other = "an edge list names the current revision of a child, and this is another"
    as_child = why or ("" if place.current and alone[0] else other)
    return names, Listed(place.name, place.revision, why, as_child)


def _unwritable(name: str) -> str:
    """Return why a list cannot hold a name; `""` if it can."""
    try:
        if parent_name(name) == name:
            return ""
    except DataError:
        pass
    return "an edge list cannot hold its name: name its folder otherwise"
