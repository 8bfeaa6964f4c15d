"""Writers that share a transaction: one commit, one chain, nobody's failure is another's."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from disinherit.common.audit.export import verify_lines
from disinherit.common.errors import GraphError, InputError, StoreError
from disinherit.common.graph.records import ModelRecord
from disinherit.server.store import graph_store, shared_transaction
from disinherit.server.store.lineage import register_version
from disinherit.server.store.store import CoordinatorStore
from tests.support.agent import wait_for

WRITERS = 8


def version(number: int) -> ModelRecord:
    return ModelRecord(f"m{number}", "anna", "aa", ("cat", "dog"), "0a", 0)


@pytest.fixture
def store(
    tmp_path: Path, database: str | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CoordinatorStore]:
    monkeypatch.setattr(shared_transaction, "_SECONDS", 60.0)  # however busy this machine is
    store = CoordinatorStore(database or tmp_path / "c.db")
    yield store
    store.close()


class Writers:
    """Threads that register a version each, all of which wait for the turn of the first.

    Args:
        store: the store.
        write: what each does with its number.
    """

    def __init__(self, store: CoordinatorStore, write: Callable[[int], object]) -> None:
        self.results: dict[int, object] = {}
        self.commits: list[frozenset[int]] = []
        database = store._database

        def noted(_: object) -> None:
            self.commits.append(frozenset(self.results))

        def work(number: int) -> None:
            try:
                result = write(number)
            except Exception as error:  # looked at by the test
                result = error
            self.results[number] = result

        threads = [threading.Thread(target=work, args=(i,)) for i in range(WRITERS)]
        with database.writing():
            for count, thread in enumerate(threads):
                thread.start()
                wait_for(lambda count=count: database.writers_waiting > count)  # type: ignore[misc]
            event.listen(database._writer, "commit", noted)
        for thread in threads:
            thread.join(30.0)
        event.remove(database._writer, "commit", noted)


def registering(store: CoordinatorStore) -> Callable[[int], object]:
    return lambda number: store.register(version(number), [], actor="owner:anna")[1]


def sound(store: CoordinatorStore) -> int:
    """Check the log, and return the number of its entries."""
    lines = [line + b"\n" for line in store.audit_lines()]
    verdict = verify_lines(lines)
    assert verdict.problem is None
    return verdict.header.entries


def test_what_waits_is_committed_at_once_and_nobody_hears_of_it_before(
    store: CoordinatorStore,
) -> None:
    before = sound(store)
    writers = Writers(store, registering(store))
    assert writers.results == dict.fromkeys(range(WRITERS), True)
    assert writers.commits[1:] == [frozenset()]  # the first is that of the test
    assert sound(store) == before + WRITERS


def test_a_refused_write_takes_nothing_of_the_others_with_it(store: CoordinatorStore) -> None:
    def write(number: int) -> object:
        if number == 3:
            with store.writing(together=True) as db:
                register_version(db, version(number), [], "owner:anna")
                raise GraphError("no")
        return registering(store)(number)

    writers = Writers(store, write)
    others = set(range(WRITERS)) - {3}
    assert isinstance(writers.results[3], GraphError)
    assert {number for number, new in writers.results.items() if new is True} == others
    assert set(store.records(f"m{i}" for i in range(WRITERS))) == {f"m{i}" for i in others}
    assert sound(store) == len(others)


def test_the_first_may_be_refused_and_the_others_write(store: CoordinatorStore) -> None:
    def write(number: int) -> object:
        if number == 0:
            with store.writing(together=True):
                raise GraphError("no")
        return registering(store)(number)

    writers = Writers(store, write)
    assert isinstance(writers.results[0], GraphError)
    assert list(writers.results.values()).count(True) == WRITERS - 1
    assert sound(store) == WRITERS - 1


def test_who_writes_alone_ends_what_others_share(store: CoordinatorStore) -> None:
    alone = WRITERS // 2

    def write(number: int) -> object:
        if number == alone:
            with store.writing() as db:
                return register_version(db, version(number), [], "owner:anna")[1]
        return registering(store)(number)

    writers = Writers(store, write)
    assert writers.results == dict.fromkeys(range(WRITERS), True)
    assert len(writers.commits) == 1 + 3
    assert sound(store) == WRITERS


def test_if_the_commit_fails_all_hear_of_it_and_nothing_is_stored(
    store: CoordinatorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, register = store._database._engine, register_version

    def fail(*_: Any) -> None:
        raise engine.dialect.loaded_dbapi.OperationalError("the disk is full")

    def registered(*args: Any) -> Any:  # by now, the test has committed
        monkeypatch.setattr(engine.dialect, "do_commit", fail)
        return register(*args)

    monkeypatch.setattr(graph_store, "register_version", registered)
    writers = Writers(store, registering(store))
    assert all(isinstance(error, StoreError) for error in writers.results.values())
    assert len(writers.results) == WRITERS
    monkeypatch.undo()
    assert store.records(f"m{i}" for i in range(WRITERS)) == {}
    assert registering(store)(0) is True
    assert sound(store) == 1


def test_nobody_waits_for_a_writer_that_has_given_up(store: CoordinatorStore) -> None:
    turns, gone = store._database._turns, threading.Event()

    def give_up() -> None:
        gone.wait(30.0)
        turns._give()

    with store.writing(together=True) as db:
        register_version(db, version(0), [], "owner:anna")
        turns._waiting.append(gone)
        threading.Thread(target=give_up).start()
    assert registering(store)(1) is True
    assert sound(store) == 2


def test_what_another_wrote_in_the_same_transaction_counts(store: CoordinatorStore) -> None:
    def write(number: int) -> object:
        owner = "anna" if number == 0 else "ben"
        record = ModelRecord("same", owner, "aa", ("cat", "dog"), "0a", 0)
        return store.register(record, [], actor=f"owner:{owner}")[1]

    writers = Writers(store, write)
    assert writers.results[0] is True
    refused = [writers.results[number] for number in range(1, WRITERS)]
    assert all(isinstance(error, InputError) for error in refused)
    assert sound(store) == 1
