"""The tests of the store, its leases and the coordinator once more, on a real PostgreSQL."""

import inspect
import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import test_server_audit
import test_server_campaign_states
import test_server_coordinator
import test_server_coverage
import test_server_destruction
import test_server_leases
import test_server_packets
import test_server_staging
import test_server_store
from campaign_fixture import World, make_request
from sqlalchemy import insert, select, text

from disinherit.common.errors import CampaignError, StoreError
from disinherit.server.database import Database
from disinherit.server.schema import REVISIONS
from disinherit.server.store import CoordinatorStore
from disinherit.server.tables import METADATA
from disinherit.simulations.chaos.postgres import cluster, find_binaries, fresh_database

BINARIES = find_binaries()
pytestmark = pytest.mark.skipif(
    BINARIES is None, reason="PostgreSQL is not installed: no initdb in /usr/lib/postgresql/*/bin"
)

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
CAMPAIGNS: tuple[Callable[..., None], ...] = (
    test_server_coordinator.test_every_affected_model_is_dampened_with_the_merge_over_its_own_roots,
    test_server_coordinator.test_a_coordinator_that_dies_in_the_middle_is_followed_by_one_that_finishes,
    test_server_coordinator.test_a_request_that_is_sent_again_is_answered_from_the_ledger,
    test_server_coordinator.test_a_descendant_that_comes_late_joins_the_campaign,
    test_server_leases.test_a_lease_is_given_to_one_at_a_time_with_a_rising_token,
    test_server_leases.test_nothing_is_stored_with_a_lease_that_was_lost,
    test_server_leases.test_of_two_coordinators_at_once_one_drives,
    test_server_packets.test_packets_come_back_in_order_after_reopening,
    test_server_packets.test_a_root_that_has_answered_is_not_asked_again_by_a_new_coordinator,
    test_server_campaign_states.test_what_is_applied_while_a_campaign_is_aborted_is_recorded,
    test_server_destruction.test_after_the_window_the_old_weights_are_gone_and_the_log_says_so,
    test_server_destruction.test_what_an_owner_cannot_destroy_is_told_with_the_reason_and_asked_again,
    test_server_staging.test_the_waves_go_out_one_after_the_other,
    test_server_staging.test_a_person_may_let_a_halted_campaign_go_on,
)

STORE_TESTS = [
    (module, name)
    for module in (test_server_audit, test_server_store, test_server_coverage)
    for name, test in vars(module).items()
    if name.startswith("test_")
    and name not in NOT_HERE
    and "brute_force" not in name
    and "world" not in inspect.signature(test).parameters
]
for _module, _name in STORE_TESTS:
    globals()[_name] = getattr(_module, _name)
for _test in CAMPAIGNS:
    globals()[_test.__name__] = _test

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    assert BINARIES is not None
    folder = Path(tempfile.mkdtemp(prefix="disinherit-postgres-"))
    folder.chmod(0o755)  # the server may run as another user
    try:
        with cluster(BINARIES, folder) as url:
            yield url
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def path(server: str) -> str:
    """An empty database; the store's tests call it a path."""
    return fresh_database(server, f"test{next(_numbers)}")


@pytest.fixture
def store(path: str, request: pytest.FixtureRequest) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(path)
    if request.node.obj.__module__ == test_server_coverage.__name__:
        test_server_coverage.fill(store)
    yield store
    store.close()


campaign = test_server_store.campaign
sleep = test_server_destruction.sleep


@pytest.fixture
def world(built: Path, tmp_path: Path, path: str) -> Iterator[World]:
    """The federation, with what its coordinator knows moved to PostgreSQL."""
    shutil.copytree(built, tmp_path / "world")
    CoordinatorStore(path).close()
    source, target = Database(built / "coordinator.db"), Database(path)
    with source.reading() as old, target.writing() as new:
        for table in METADATA.sorted_tables:
            for row in old.execute(select(table)):
                new.execute(insert(table).values(**row._mapping))
    source.close()
    target.close()
    with World(tmp_path / "world", path) as world:
        world.coordinator.submit(make_request())
        yield world


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
    names = ["b", "B", "a-1", "a.1", "a_1", "a~1", "a1", "A"]
    for name in names:
        store.add_model(test_server_store.version(name, 1))
    parents = sorted(names)
    edges = [test_server_store.edge(name, "m", 1 / len(names)) for name in names]
    store.add_model(test_server_store.version("m", 2), edges)
    store.add_model(test_server_store.version("m", 2), list(reversed(edges)))
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
