"""Edge lists that people write: CSV with a header, or JSON.

Columns, or keys: `child` and `parent`; and, where known, `relation`, `weight`, `revision`,
`confidence`, and `recipe`, how the child was computed, the same for all its parents, which are
listed in the order of places.  Names are those of models in the other sources, or ids in the graph.
Others become models without weights if there are no other sources, or if that is asked for: beside
folders they are more likely misspelt.  A malformed list is not taken at all.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from disinherit.common.errors import DataError, GraphError
from disinherit.common.graph.recipes import Recipe, as_recipe
from disinherit.common.limits import shown
from disinherit.common.text import load_json, one_line
from disinherit.families.evidence import Claim, Evidence, Found, Kind, Relation, Source
from disinherit.families.model_cards import parent_name
from disinherit.families.naming import MAIN, Names
from disinherit.families.reading import read_text

MOST_EDGES = 100_000
MOST_LIST = 64 * 2**20
"""Bytes of an edge list."""

UNDECLARED = "Correct the name; or give --declare, if the model has no files here."

_COLUMNS = ("child", "parent", "relation", "weight", "revision", "confidence", "recipe")


@dataclass(frozen=True, slots=True)
class Row:
    """An edge in a list.

    Attributes:
        child: name of the child.
        claim: what the edge says, without a key of the child.
        where: line and file.
    """

    child: str
    claim: Claim
    where: str


def read_edges(path: Path) -> list[Row]:
    """Return the edges in a list.

    Args:
        path: the file; `.json` is JSON, all else CSV, separated by commas, semicolons or tabs.

    Raises:
        DataError: if the file cannot be read, is too long, or an edge is malformed.
    """
    text = read_text(path, MOST_LIST)
    rows = _json_rows(text, path) if path.suffix.lower() == ".json" else _csv_rows(text, path)
    found: list[Row] = []
    recipes: dict[str, Recipe | None] = {}
    for where, values in rows:
        if len(found) == MOST_EDGES:
            raise DataError(f"Expected at most {MOST_EDGES:,} edges in {path.name}, but got more.")
        child, claim = _claim(values, where)
        recipe = recipes.setdefault(child, claim.recipe)
        if claim.recipe != recipe:
            raise DataError(
                f"Expected one recipe for all parents of {shown(child)}, {_told(recipe)} as before "
                f"{where}, but got {_told(claim.recipe)}."
            )
        found.append(Row(child, claim, where))
    return found


def take_rows(rows: Iterable[Row], names: Names, evidence: Evidence, declare: bool) -> None:
    """Add the edges of lists, once all other sources have been read.

    Args:
        rows: the edges.
        names: the names in the other sources and the graph.
        evidence: gets claims and findings, and models: those of the graph, and those declared.
        declare: whether names that mean nothing become models.
    """
    keys: dict[str, str] = {}
    for row in rows:
        for name in (row.child, row.claim.parent):
            if name not in keys:
                keys[name] = _key(name, names, evidence, declare)
        if key := keys[row.child]:
            evidence.claims.append(replace(row.claim, child=key))
        else:
            _, text = names.version(row.child).finding or (None, "")
            text = f"The edge list, {row.where}: {text} {UNDECLARED}"
            evidence.note(Kind.UNKNOWN_CHILD, row.child, text)


def _key(name: str, names: Names, evidence: Evidence, declare: bool) -> str:
    """Return the key of the model that a name means, or becomes; `""` if it means none."""
    meaning = names.version(name)
    # A list names no revision of a child: the current one is meant.
    if not meaning.id and (current := names.version(name, MAIN)).id:
        meaning = current
    if found := names.keys_of(meaning.id):
        return found[0]
    unknown = meaning.finding is not None and meaning.finding[0] is not Kind.AMBIGUOUS_PARENT
    if not meaning.id and not (declare and unknown and not names.is_alias(name)):
        return ""
    key = f"edge list: {name}"
    evidence.add(Found(key, meaning.id or name))
    return key


def _claim(row: Mapping[str, Any], where: str) -> tuple[str, Claim]:
    """Return the name of the child, and a claim without its key."""
    if unknown := row.keys() - set(_COLUMNS):
        name = one_line(str(min(map(str, unknown))), 40)
        raise DataError(f"Expected one of {', '.join(_COLUMNS)} in {where}, but got {name!r}.")
    names = []
    for end in ("child", "parent"):
        value = row.get(end)
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"Expected a name as {end} in {where}, but got none.")
        names.append(parent_name(value))
    relation = str(row.get("relation") or Relation.UNKNOWN.value)
    known = [one.value for one in Relation]
    if relation not in known:
        raise DataError(
            f"Expected a relation among {', '.join(known)} in {where}, but got {relation[:40]!r}."
        )
    return names[0], Claim(
        "",
        names[1],
        Source.EDGE_LIST,
        Relation(relation),
        str(row.get("revision") or ""),
        _number(row, "weight", where),
        _recipe(row, where),
        confidence=_number(row, "confidence", where),
    )


def _number(row: Mapping[str, Any], name: str, where: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not 0 < number <= 1:
        shown = one_line(str(value), 40)
        raise DataError(f"Expected a number in (0, 1] as {name} in {where}, but got {shown!r}.")
    return number


def _recipe(row: Mapping[str, Any], where: str) -> Recipe | None:
    text = str(row.get("recipe") or "")
    try:
        return as_recipe(text) if text else None
    except GraphError as error:
        raise DataError(f"In {where}: {error}") from None


def _told(recipe: Recipe | None) -> str:
    return "none" if recipe is None else repr(str(recipe))


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if text.count("\n") > MOST_EDGES + 1:
        raise DataError(f"Expected at most {MOST_EDGES:,} edges in {path.name}, but got more.")
    head = text.partition("\n")[0]
    separator = next((one for one in ",;\t" if one in head), ",")
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not {"child", "parent"} <= set(header) or len(set(header)) < len(header):
            names = one_line(", ".join(header), 80)
            raise DataError(
                f"Expected a header with child and parent in {path.name}, but got {names!r}."
            )
        for row in reader:
            where = f"line {reader.line_num} of {path.name}"
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise DataError(f"Expected {len(header)} cells in {where}, but got {len(row)}.")
            yield where, dict(zip(header, (cell.strip() for cell in row), strict=True))
    except csv.Error as error:
        where = f"line {reader.line_num} of {path.name}"
        raise DataError(f"Expected CSV in {where}, but {error}.") from None


def _json_rows(text: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        value = load_json(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected JSON in {path.name}, but {one_line(str(error), 200)}.") from None
    listed = value.get("edges") if isinstance(value, dict) else value
    if not isinstance(listed, list):
        raise DataError(f"Expected a list of edges in {path.name}, but got none.")
    for number, row in enumerate(listed, 1):
        where = f"edge {number} of {path.name}"
        if not isinstance(row, dict):
            raise DataError(f"Expected an object as {where}, but got {type(row).__name__}.")
        yield where, row
