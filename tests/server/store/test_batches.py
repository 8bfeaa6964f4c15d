"""Registration of many versions at once: what registering each by itself leads to."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from disinherit.common.audit.export import read_entry, verify_lines
from disinherit.common.errors import InputError
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.server.store import audit
from disinherit.server.store.registering import Announced
from disinherit.server.store.store import CoordinatorStore
from tests.support.counting import counting

Version = tuple[ModelRecord, Sequence[Inheritance]]


def version(id: str, *parents: str, owner: str = "anna", labels: int = 2) -> Version:
    names = ("cat", "dog", "owl")[:labels]
    provenance = Provenance("data", dict.fromkeys(names, 5))
    record = ModelRecord(id, owner, "aa", names, "0a", 0, provenance=provenance)
    return record, [Inheritance(parent, id, InheritanceKind.TRANSFER) for parent in parents]


GOOD = [version("a"), version("b", "a"), version("c", "a", "b", owner="ben")]
BATCHES: dict[str, list[Version]] = {
    "new": GOOD,
    "refused in between": [GOOD[0], version("x", "nowhere"), version("y~1"), *GOOD[1:]],
    "other heads": [GOOD[0], version("z", "a", labels=3), GOOD[1]],
    "twice": [GOOD[0], GOOD[1], GOOD[0]],
    "known": [version("k", "known"), version("known"), *GOOD],
    "announced": [*GOOD, version("promised")],
}


@pytest.fixture
def stores(tmp_path: Path, database: str | None) -> Iterator[tuple[CoordinatorStore, ...]]:
    together = CoordinatorStore(database or tmp_path / "together.db")
    alone = CoordinatorStore(tmp_path / "alone.db")
    for store in (together, alone):
        store.register(*version("known"), actor="operator:ci")
        store.announce([Announced("promised", "anna", "known")])
    yield together, alone
    together.close()
    alone.close()


def content(store: CoordinatorStore) -> tuple[Any, ...]:
    """What is stored, but for times."""
    lines = [line + b"\n" for line in store.audit_lines()]
    assert verify_lines(lines).problem is None
    found = store.graph()
    events = [replace(read_entry(line.strip()).event, time_us=0) for line in lines[1:]]
    models = {one.id: replace(one, created_us=0) for one in found.models()}
    return models, {id: found.parents(id) for id in models}, events


def shown(result: tuple[ModelRecord, bool] | InputError) -> object:
    if isinstance(result, InputError):
        return str(result)
    return replace(result[0], created_us=0), result[1]


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("actor", ["operator:ci", "owner:anna"])
def test_a_batch_stores_what_each_alone_does(
    stores: tuple[CoordinatorStore, ...], name: str, actor: str
) -> None:
    together, alone = stores
    results: list[tuple[ModelRecord, bool] | InputError] = []
    for record, edges in BATCHES[name]:
        try:
            results.append(alone.register(record, edges, actor=actor))
        except InputError as error:
            results.append(error)
    found = together.register_all(BATCHES[name], actor=actor)
    assert list(map(shown, found)) == list(map(shown, results))
    assert content(together) == content(alone)


def test_a_version_whose_entry_is_too_long_is_refused_alone(
    stores: tuple[CoordinatorStore, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores[1].register_all(GOOD, actor="operator:ci")
    longest = max(map(len, stores[1].audit_lines()))
    monkeypatch.setattr(audit, "LONGEST_LINE", longest + 50)
    long = version("long" * 30, "a", "b")
    results = stores[0].register_all([*GOOD[:2], long, GOOD[2]], actor="operator:ci")
    assert [isinstance(one, InputError) for one in results] == [False, False, True, False]
    assert content(stores[0]) == content(stores[1])


def test_a_batch_takes_as_many_statements_as_a_small_one(
    stores: tuple[CoordinatorStore, ...],
) -> None:
    counts = []
    for size in (2, 50):
        batch = [version(f"{size}.{number}") for number in range(size)]
        with counting() as counted:
            stores[1].register_all(batch, actor="operator:ci")
        counts.append(len(counted.transactions[0]))
    assert counts[0] == counts[1]
