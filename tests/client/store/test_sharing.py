"""A model store shared by threads and processes."""

import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from disinherit.client.store.ledger import LedgerEntry
from disinherit.client.store.store import ModelStore
from disinherit.common import files
from disinherit.common.errors import StoreError
from disinherit.common.graph.records import ModelStatus
from tests.acceptance.chaos.forking import exit_code, fork
from tests.support.stored_models import (
    assert_same_tensors,
    make_application,
    make_record,
    make_weights,
)


def test_opening_waits_for_a_write_of_another_store(
    store: ModelStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    written, go_on = threading.Event(), threading.Event()
    replace_file = os.replace

    def pause_after(source: Any, target: Any) -> None:
        replace_file(source, target)
        written.set()
        assert go_on.wait(30)

    monkeypatch.setattr(os, "replace", pause_after)
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(store.add, make_record(), make_weights())
        try:
            assert written.wait(30)
            # The object exists and is not in the index yet: it must not be removed.
            with pytest.raises(StoreError, match="another process has been holding it"):
                ModelStore(root, "anna")
        finally:
            go_on.set()
        adding.result()
    with ModelStore(root, "anna") as second:
        assert_same_tensors(second.weights("m"), make_weights())


def test_readers_share_and_a_writer_waits(
    store: ModelStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    store.add(make_record(), make_weights())
    with (root / "lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert_same_tensors(store.weights("m"), make_weights())
        with pytest.raises(StoreError, match="holding it"):
            store.apply(make_application())
    assert store.record("m").status is ModelStatus.ACTIVE
    assert store.apply(make_application()).model_id == "m"


def test_threads_may_share_a_store(store: ModelStore) -> None:
    store.add(make_record(), make_weights())

    def work(number: int) -> LedgerEntry:
        store.add(make_record(f"n{number}", number), make_weights(number))
        return store.apply(make_application(result=str(number).encode()))

    with ThreadPoolExecutor(4) as pool:
        entries = list(pool.map(work, range(12)))
    assert len(set(entries)) == 1
    assert len(store.records()) == 14
    assert all(store.weights(f"n{number}") for number in range(12))


def test_processes_take_turns(root: Path) -> None:
    ModelStore(root, "anna").close()

    def work(number: int) -> None:
        for turn in range(6):
            with ModelStore(root, "anna") as store:
                seed = 100 * number + turn
                store.add(make_record("m"), make_weights())
                store.add(make_record(f"n{seed}", seed), make_weights(seed))
                store.apply(make_application(result=str(number).encode()))

    children = [fork(partial(work, number)) for number in (1, 2, 3)]
    assert [exit_code(child) for child in children] == [0, 0, 0]
    with ModelStore(root, "anna") as store:
        assert len(store.records()) == 2 + 18
        assert all(store.weights(record.id) for record in store.records())
        entry = store.applied("forget-cats", make_record().digest)
        assert entry is not None
        assert entry.result in (b"1", b"2", b"3")
