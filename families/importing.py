"""Import of families into an inheritance graph: read, weigh, and compare with what is recorded.

Importing the same again changes nothing.  What has changed since is updated, as far as an import
recorded it: edges that were observed or registered stay, and the difference is listed.
"""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from disinherit.common.errors import DataError, GraphError
from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.identifiers import check_owner
from disinherit.common.graph.records import ModelRecord
from disinherit.common.limits import shown
from disinherit.families.dvc import LOCK, read_lock
from disinherit.families.edge_lists import Row, read_edges, take_rows
from disinherit.families.evidence import OF_FOLDERS, Evidence, FamilyFinding, Found, Kind
from disinherit.families.listing import about_versions, twins
from disinherit.families.mlflow import DATABASE, FOLDER, read_database, read_store
from disinherit.families.model_folders import read_folders
from disinherit.families.naming import Names, assign_ids, version_id
from disinherit.families.reading import find_below
from disinherit.families.resolving import resolve
from disinherit.families.updating import merged, unsaid, updates


class Origin(StrEnum):
    """What to look for in a source."""

    AUTO = "auto"
    MODELS = "models"
    MLFLOW = "mlflow"
    DVC = "dvc"
    EDGES = "edges"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import would make of a graph.

    Attributes:
        graph: the whole graph afterwards.
        changed: ids of the versions that are new, or whose record or edges change, parents first.
        findings: what is listed and not decided, sorted.
        models: number of models in the sources.
    """

    graph: InheritanceGraph
    changed: tuple[str, ...]
    findings: tuple[FamilyFinding, ...]
    models: int


def import_families(
    sources: Sequence[Path],
    *,
    origin: Origin = Origin.AUTO,
    owner: str = "local",
    aliases: Mapping[str, str] | None = None,
    at_least: float = 0.0,
    known: InheritanceGraph | Callable[[], InheritanceGraph] | None = None,
    registered: bool = False,
    declare: bool = False,
    now_us: int | None = None,
) -> Imported:
    """Read families of models and return the graph with them.  Nothing is fetched or run.

    Args:
        sources: folders, and files: edge lists, DVC lock files, databases of MLflow.
        origin: what to look for in them.
        owner: owner of the versions that are new.
        aliases: name of a parent -> name of the model that it means.
        at_least: confidence below which an edge is listed and not recorded.
        known: the graph to add to, or what returns it once the sources are read; `None` for an
            empty one.
        registered: whether owners register versions of `known`, as in a store. Then versions keep
            their times, and a version with other tensors under the id of a model is that model.
            In a file, a version may become younger to follow a new parent.
        declare: whether names in edge lists that no other source has become versions without
            weights. They do so, too, where edge lists are the only sources, and no owner has
            registered versions that they could mean.
        now_us: microseconds since the epoch; `None` for now.

    Raises:
        InputError: if a source does not exist, or has nothing of the kind that is asked for; or if
            an alias is for a model that is not known.

    Example:
        >>> import_families([]).graph
        InheritanceGraph(0 models, 0 edges)
    """
    check_owner(owner, GraphError)
    evidence = Evidence()
    rows = [row for source in _outermost(sources) for row in _read(source, origin, evidence)]
    graph = InheritanceGraph() if known is None else known() if callable(known) else known
    records = {record.id: record for record in graph.models()}
    roots = [source if source.is_dir() else source.parent for source in sources]
    ids, findings = assign_ids(evidence.models.values(), records, registered)
    names = Names(evidence.models, ids, records, aliases or {}, roots)
    if rows:
        alone = not evidence.models and not evidence.findings and not (registered and records)
        take_rows(rows, names, evidence, declare or alone)
        ids, findings = assign_ids(evidence.models.values(), records, registered)
        names = Names(evidence.models, ids, records, aliases or {}, roots)
    named = {claim.parent for claim in evidence.claims} | {row.child for row in rows}
    _check_aliases(aliases or {}, names, named, evidence)
    fresh, more = _records(evidence, ids, records, owner)
    present = [(edge.parent, edge.child) for edge in graph.edges()]
    everyone = records | fresh
    edges, doubts = resolve(evidence, ids, names, everyone, present, at_least)
    findings += more + doubts + twins(everyone, fresh, edges)
    plain = {version_id(one.name) for one in evidence.models.values()}
    taken = updates(graph, edges, plain, findings)
    here = {ids[one.key] for one in evidence.models.values() if one.path is not None}
    findings += unsaid(graph, sorted(here - edges.keys()), _said(evidence, ids))
    now = time.time_ns() // 1000 if now_us is None else now_us
    fixed = {id for id in records if registered or not _is_imported(graph, id)}
    whole, changed = merged(graph, fresh, taken, now, fixed, findings)
    listed = about_versions({*evidence.findings, *findings}, evidence.models, ids)
    return Imported(whole, changed, listed, len(evidence.models))


def _said(evidence: Evidence, ids: Mapping[str, str]) -> dict[str, set[str]]:
    """Return id -> names of the parents that the files in its folder say."""
    found: dict[str, set[str]] = {}
    for claim in evidence.claims:
        if claim.source.title in OF_FOLDERS:
            found.setdefault(ids[claim.child], set()).add(claim.parent)
    return found


def _outermost(sources: Sequence[Path]) -> list[Path]:
    """Return files, and folders that are in no other: a model is named by its path below them."""
    folders = {source: source.resolve() for source in sources}
    return [
        source
        for source, place in folders.items()
        if not source.is_dir() or not any(one in place.parents for one in folders.values())
    ]


def _is_imported(graph: InheritanceGraph, id: str) -> bool:
    """Whether a version has edges, and all of them are from imports."""
    edges = [*graph.parents(id), *graph.children(id)]
    return bool(edges) and all(edge.source for edge in edges)


def _check_aliases(
    aliases: Mapping[str, str], names: Names, named: Set[str], evidence: Evidence
) -> None:
    """Refuse an alias for a model that is not known, and list one for a name that nobody uses."""
    for name, model in sorted(aliases.items()):
        finding = names.version(model).finding
        if finding is not None and finding[0] is not Kind.AMBIGUOUS_PARENT:
            raise DataError(
                f"Expected PARENT=MODEL with the name of a model that is here as alias, but got "
                f"{shown(f'{name}={model}')}: {finding[1]}"
            )
        if name not in named:
            evidence.note(
                Kind.ALIAS, name, "No source uses this name, which an alias was given for."
            )


def _read(source: Path, origin: Origin, evidence: Evidence) -> list[Row]:
    """Add what is in a source; return the edges in a list, which need all other names first."""
    if not source.exists():
        raise DataError(f"Expected a folder or a file to import, but got {str(source)!r}.")
    everything = origin is Origin.AUTO
    if not source.is_dir():
        return _read_file(source, origin, evidence)
    before = len(evidence.models), len(evidence.claims)
    if everything or origin in (Origin.MODELS, Origin.DVC):
        read_folders(source, evidence)
    if everything or origin is Origin.MLFLOW:
        folders = [source] if source.name == FOLDER else find_below(source, FOLDER)
        for folder in folders or ([source] if origin is Origin.MLFLOW else []):
            read_store(folder, evidence)
        for database in find_below(source, DATABASE):
            try:
                read_database(database, evidence)
            except DataError as error:  # such as one of an older MLflow, beside other sources
                evidence.note(Kind.UNREADABLE, str(database), str(error))
    if everything or origin is Origin.DVC:
        for lock in find_below(source, LOCK):
            read_lock(lock, evidence)
    if before == (len(evidence.models), len(evidence.claims)) and not evidence.findings:
        raise DataError(
            f"Expected models in {str(source)!r}, but got none. Give folders of models, the hub's "
            "cache, or a file: an edge list, dvc.lock, or a database of MLflow."
        )
    return []


def _read_file(source: Path, origin: Origin, evidence: Evidence) -> list[Row]:
    by_ending = {".csv": Origin.EDGES, ".tsv": Origin.EDGES, ".json": Origin.EDGES}
    by_ending |= {".db": Origin.MLFLOW, ".sqlite": Origin.MLFLOW}
    kind = Origin.DVC if source.name == LOCK else by_ending.get(source.suffix.lower())
    kind = kind if origin is Origin.AUTO else origin
    if kind is Origin.EDGES:
        return read_edges(source)
    if kind is Origin.MLFLOW:
        read_database(source, evidence)
    elif kind is Origin.DVC:
        read_folders(source.parent, evidence)
        read_lock(source, evidence)
    else:
        raise DataError(
            f"Expected a folder, or a file that is an edge list (.csv, .json), dvc.lock or a "
            f"database of MLflow (.db), but got {str(source)!r}."
        )
    return []


def _records(
    evidence: Evidence, ids: Mapping[str, str], known: Mapping[str, ModelRecord], owner: str
) -> tuple[dict[str, ModelRecord], list[FamilyFinding]]:
    """Return the records that are new or get weights, without times, and findings."""
    found: dict[str, ModelRecord] = {}
    findings = []
    best: dict[str, Found] = {}
    for one in evidence.models.values():
        rank = (bool(one.weights.digest), one.current, bool(one.labels))
        other = best.get(ids[one.key])
        if other is None or rank > (
            bool(other.weights.digest),
            other.current,
            bool(other.labels),
        ):
            best[ids[one.key]] = one
    for id, one in best.items():
        record = known.get(id)
        digest, architecture = one.weights.digest, one.weights.architecture
        if record is None:
            found[id] = ModelRecord(id, owner, architecture, one.labels, digest, 0)
        elif digest and not record.digest:
            found[id] = replace(record, architecture=architecture, digest=digest, labels=one.labels)
        elif one.labels and one.labels != record.labels:
            text = "The graph has other class names of these weights: they stay as recorded."
            findings.append(FamilyFinding(Kind.RECORDED, id, text))
        if not digest and record is None:
            text = "No weights of it are here: it is not pinned."
            findings.append(FamilyFinding(Kind.WEIGHTS, id, text))
    return found, findings
