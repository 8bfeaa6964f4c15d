"""Scenarios as small TOML files: an edge list, and who holds which classes.

::

    kind = "transfer"                  # of the edges that do not say otherwise
    roots = ["u0"]                     # where classes are forgotten unless a request says otherwise
    edges = [
      "u0 -> u1",
      { edge = "u0, u1 -> u2", kind = "federated", weights = [2, 1] },
    ]
    aliases = { three = "3" }          # the scenario's name of a class -> the data set's

    [models]                           # all of it optional
    u0 = { classes = "0-60%" }         # the label space: a range, or names; all classes by default
    u1 = { data = ["0", "three"] }     # what it is trained on; its whole label space by default
    u2 = { train = "head", head = "new", owner = 3 }

Models are in the order of `[models]`, then of their first edge, parents first.  The files in the
folder `topologies` are the settings of arXiv 2408.08493 and can serve as examples.
"""

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from msgspec import field

from disinherit.common.errors import GraphError, InputError
from disinherit.common.graph.records import InheritanceKind, as_kind
from disinherit.common.settings import Table, check, parse
from disinherit.common.text import did_you_mean
from disinherit.simulations.scenario.topology import (
    ClassChoice,
    Derivation,
    Layers,
    ParentEdge,
    Topology,
)

_NUMBERED = re.compile(r"(chain|fan-out)-([1-9]\d{0,2})")


class _Model(Table):
    classes: str | list[str | int] | None = None
    data: str | list[str | int] | None = None
    train: Layers = "all"
    head: Literal["inherited", "new"] = "inherited"
    owner: int | None = None


class _Edge(Table):
    edge: str
    kind: str | None = None
    weights: list[float] | None = None


class _ScenarioFile(Table):
    name: str | None = None
    kind: str = "federated"
    roots: list[str | int] = field(default_factory=list)
    edges: list[str | _Edge] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    models: dict[str, _Model] = field(default_factory=dict)


def load_scenario(source: str) -> Topology:
    """Return a scenario by its name or from a TOML file.

    Args:
        source: one of `known_scenarios()`, `chain-N` or `fan-out-N` (N models that inherit all from
            `u0`, one from the other or all from it), or the path of a file.

    Raises:
        InputError: if there is no such scenario, or the file cannot be read or makes no sense.

    Example:
        >>> load_scenario("chain-3").ids
        ('u0', 'u1', 'u2', 'u3')
    """
    if source in known_scenarios():
        return _parse(_embedded(source).read_text("utf-8"), source, source)
    numbered = _NUMBERED.fullmatch(source)
    if numbered:
        return _generated(numbered[1], int(numbered[2]))
    path = Path(source)
    if path.suffix != ".toml":
        known = ", ".join([*known_scenarios(), "chain-N", "fan-out-N"])
        raise InputError(
            f"Expected a scenario among {known} or a .toml file, but got {source!r}."
            f"{did_you_mean(source, known_scenarios())}"
        )
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Expected a readable scenario {source!r}, but: {error}.") from None
    return _parse(text, source, path.stem)


def known_scenarios() -> list[str]:
    """Return the names of the embedded scenarios."""
    folder = files("disinherit.simulations.scenario") / "topologies"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())


def topology_from_dict(values: Mapping[str, Any], name: str = "") -> Topology:
    """Return the topology that a scenario file, or `topology_to_dict`, describes.

    Args:
        values: as in a scenario file.
        name: of the scenario if the values do not name it.

    Raises:
        GraphError: if the values describe no topology.
    """
    try:
        found = check(_ScenarioFile, values, "the scenario")
    except InputError as error:
        raise GraphError(str(error)) from None
    kind = as_kind(found.kind)
    links: dict[str, list[ParentEdge]] = {model: [] for model in found.models}
    for number, entry in enumerate(found.edges):
        parents, child = _edge(entry, kind, f"edges[{number}]")
        for link in parents:
            links.setdefault(link.parent, [])
        links.setdefault(child, []).extend(parents)
    derivations = {
        model: _derivation(model, tuple(parents), found.models.get(model, _Model()))
        for model, parents in links.items()
    }
    return Topology(
        name if found.name is None else found.name,
        _in_order(derivations),
        _names(found.roots),
        found.aliases,
    )


def topology_to_dict(topology: Topology) -> dict[str, Any]:
    """Return a topology as JSON values, in the form of a scenario file."""
    models = {}
    for d in topology.derivations:
        model: dict[str, Any] = {}
        if d.classes is not None:
            model["classes"] = _choice_value(d.classes)
        if d.data is not None:
            model["data"] = _choice_value(d.data)
        if d.trains != "all":
            model["train"] = d.trains
        if d.new_head:
            model["head"] = "new"
        if d.owner is not None:
            model["owner"] = d.owner
        models[d.id] = model
    return {
        "name": topology.name,
        "roots": list(topology.roots),
        "aliases": dict(topology.aliases),
        "edges": [
            {"edge": f"{link.parent} -> {d.id}", "kind": link.kind.value, "weights": [link.weight]}
            for d in topology.derivations
            for link in d.links
        ],
        "models": models,
    }


def _embedded(name: str) -> Any:
    return files("disinherit.simulations.scenario") / "topologies" / f"{name}.toml"


def _parse(text: str, source: str, name: str) -> Topology:
    values = parse(dict[str, Any], text, f"scenario {source!r}")
    try:
        return topology_from_dict(values, name)
    except GraphError as error:
        raise InputError(f"Scenario {source!r}: {error}") from None


def _generated(shape: str, count: int) -> Topology:
    """Return a chain, in which every model starts from the one before it, or a fan-out."""
    kind = InheritanceKind.TRANSFER
    derivations = [Derivation("u0")]
    for number in range(1, count + 1):
        parent = f"u{number - 1}" if shape == "chain" else "u0"
        derivations.append(Derivation(f"u{number}", (ParentEdge(parent, kind),)))
    return Topology(f"{shape}-{count}", tuple(derivations), ("u0",))


def _edge(entry: str | _Edge, kind: InheritanceKind, place: str) -> tuple[list[ParentEdge], str]:
    edge = _Edge(edge=entry) if isinstance(entry, str) else entry
    left, arrow, right = edge.edge.partition("->")
    parents = [parent.strip() for parent in left.split(",")]
    child = right.strip()
    if not arrow or not child or not all(parents) or "," in child or "->" in child:
        raise GraphError(
            f"Expected {place} to read 'parent, parent -> child', but got {edge.edge!r}."
        )
    weights = [1.0] * len(parents) if edge.weights is None else edge.weights
    if len(weights) != len(parents):
        raise GraphError(
            f"Expected {len(parents)} numbers as weights of {place}, one per parent, but got "
            f"{weights}."
        )
    own = kind if edge.kind is None else as_kind(edge.kind)
    return [ParentEdge(p, own, w) for p, w in zip(parents, weights, strict=True)], child


def _derivation(model: str, links: tuple[ParentEdge, ...], found: _Model) -> Derivation:
    return Derivation(
        model,
        links,
        _choice(found.classes),
        _choice(found.data),
        found.train,
        found.head == "new",
        found.owner,
    )


def _in_order(derivations: Mapping[str, Derivation]) -> tuple[Derivation, ...]:
    """Return the derivations with parents first, otherwise in the order given."""
    left = dict(derivations)
    ordered: list[Derivation] = []
    while left:
        done = {d.id for d in ordered}
        ready = next((d for d in left.values() if done.issuperset(d.parents)), None)
        if ready is None:
            raise GraphError(
                f"Expected edges without a circle, but {', '.join(left)} derive from each other."
            )
        ordered.append(left.pop(ready.id))
    return tuple(ordered)


def _choice(value: str | list[str | int] | None) -> ClassChoice:
    return _names(value) if isinstance(value, list) else value


def _choice_value(choice: ClassChoice) -> str | list[str] | None:
    return list(choice) if isinstance(choice, tuple) else choice


def _names(names: Iterable[str | int]) -> tuple[str, ...]:
    """Return names as text; whole numbers are names, too, as of classes."""
    return tuple(map(str, names))


FEDERATED = load_scenario("federated")
"""The federated setting of arXiv 2408.08493: d and s know nothing of the sensitive classes."""
