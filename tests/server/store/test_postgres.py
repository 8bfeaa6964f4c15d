"""The tests of the store, its leases and the coordinator once more, on a real PostgreSQL."""

import inspect
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from disinherit.common.errors import CampaignError, StoreError
from disinherit.server.store import connections
from disinherit.server.store.database import Database
from disinherit.server.store.schema import REVISIONS
from disinherit.server.store.store import CoordinatorStore
from tests.server.planning import test_coverage
from tests.server.store import test_audit, test_store

NOT_HERE = {
    # About files and URLs of SQLite.
    "test_a_damaged_graph_is_a_store_error",
    "test_a_damaged_campaign_is_a_store_error",
    "test_a_url_names_a_file_too",
    "test_a_file_that_is_no_database_is_refused",
    "test_a_folder_that_is_missing_is_refused",
    "test_a_malformed_url_is_refused",
    "test_a_password_is_not_shown",
    "test_a_database_that_is_gone_is_an_error_until_it_is_back",
    "test_a_database_that_was_replaced_is_used_from_then_on",
    "test_a_database_that_is_gone_is_not_begun_anew_beside_its_packets",
}
STORE_TESTS = [
    (module, name)
    for module in (test_audit, test_store, test_coverage)
    for name, test in vars(module).items()
    if name.startswith("test_")
    and name not in NOT_HERE
    and "brute_force" not in name
    and "world" not in inspect.signature(test).parameters
]
for _module, _name in STORE_TESTS:
    globals()[_name] = getattr(_module, _name)


@pytest.fixture
def path(empty_postgresql: str) -> str:
    """An empty database; the store's tests call it a path."""
    return empty_postgresql


@pytest.fixture
def store(path: str, request: pytest.FixtureRequest) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(path)
    if request.node.obj.__module__ == test_coverage.__name__:
        test_coverage.fill(store)
    yield store
    store.close()


campaign = test_store.campaign


def test_the_tables_are_made_once_and_recognised(path: str) -> None:
    for _ in range(2):
        CoordinatorStore(path).close()
    database = Database(path)
    with database.writing() as db:
        assert db.execute(text("SELECT version_num FROM alembic_version")).scalar() == REVISIONS[-1]
        db.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(StoreError, match="got '9999'"):
        CoordinatorStore(path)


def test_ids_sort_as_in_python_whatever_the_server_speaks(path: str) -> None:
    store = CoordinatorStore(path)
    names = ["a", "b", "B", "a-1", "a.1", "a_1", "a~1", "a1", "A"]
    for name in names:
        store.add_model(test_store.version(name, 1))
    parents = sorted(names)
    edges = [test_store.edge(name, "m", 1 / len(names)) for name in names]
    store.add_model(test_store.version("m", 2), edges)
    store.add_model(test_store.version("m", 2), list(reversed(edges)))
    assert [edge.parent for edge in store.graph().parents("m")] == parents
    store.close()


def test_of_many_that_ask_at_once_one_gets_the_lease(campaign: CoordinatorStore, path: str) -> None:
    tokens: list[int] = []
    refused: list[CampaignError] = []

    def ask(holder: str) -> None:
        own = CoordinatorStore(path)
        try:
            tokens.append(own.acquire_lease("q", holder, 600.0).token)
        except CampaignError as error:
            refused.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=ask, args=(f"c{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tokens, len(refused)) == ([1], 5)


def test_a_server_that_is_not_there_is_a_store_error() -> None:
    with pytest.raises(StoreError, match="127.0.0.1"):
        CoordinatorStore("postgresql+psycopg://anna:secret@127.0.0.1:1/name")


def test_connections_that_the_server_has_ended_are_replaced_once_they_have_rested(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CoordinatorStore(path)
    me = text("SELECT pg_backend_pid()")
    ended = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with store.reading() as db:
        before = db.scalar(me)
    other = Database(path)
    with other.reading() as db:
        db.execute(ended)
    with pytest.raises(StoreError), store.reading() as db:
        db.scalar(me)
    with store.reading() as db:
        before = db.scalar(me)
    with other.reading() as db:
        db.execute(ended)
    monkeypatch.setattr(connections, "_REST_SECONDS", 0.0)
    with store.reading() as db:
        assert db.scalar(me) != before
    other.close()
    store.close()
