"""Revisions of the coordinator's tables: empty, older, newer and half upgraded databases."""

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import Engine

from disinherit.common.audit.export import verify_lines
from disinherit.common.errors import StoreError
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.wire.samples import SampleDigests, samples_of
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.states import CampaignState, Task, TaskState
from disinherit.server.store import migrations
from disinherit.server.store.database import Database
from disinherit.server.store.graph import find_holders
from disinherit.server.store.schema import REVISIONS
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tables import METADATA
from disinherit.v1 import unlearning_pb2 as pb
from tests import ROOT
from tests.support.changes import look

LEARNED = Provenance("animals", {"cat": 3, "dog": 0})
RECORD = ModelRecord("r", "anna", "aa", ("cat", "dog"), "0a", 1, LEARNED)
STORED = ROOT / "tests" / "data" / "database_revision_0007.sql"
ENROLMENT = ("enrolment_token", "agent_key", "agent_revocation")
OF_REVISIONS = (
    "alembic_version",
    "packet",
    "campaign",
    "audit",
    "holding",
    "clock",
    "announced",
    "history",
    "planned_root",
    "presence",
    "webhook",
    "webhook_delivery",
    *ENROLMENT,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "100% mine.db"


def sql(path: Path, *statements: str) -> None:
    database = Database(path)
    with database.writing() as db:
        for statement in statements:
            db.execute(text(statement))
    database.close()


def tables(path: Path) -> set[str]:
    database = Database(path)
    with database.reading() as db:
        found = set(inspect(db).get_table_names())
    database.close()
    return found


def make_old(path: Path) -> None:
    """A database from before there were revisions, with one request done and one not."""
    store = CoordinatorStore(path)
    store.add_model(RECORD)
    for name, state in (
        ("done", TaskState.VERIFIED),
        ("open", TaskState.SENT),
        ("none", TaskState.EXEMPT),
    ):
        store.submit(pb.UnlearningRequest(id=name), [Task("r", "anna", state)])
    store.close()
    sql(
        path,
        *(f"DROP TABLE {name}" for name in OF_REVISIONS),
        "DROP INDEX ix_task_destroy",
        *(
            f"ALTER TABLE task DROP COLUMN {name}"
            for name in ("wave", "destroy_us", "destroyed_us", "late", "given_us", "told_us")
        ),
        "DROP INDEX ix_task_owner",
        "DROP INDEX ix_task_model",
        "DROP INDEX ix_request_age",
        "DROP INDEX ix_model_digest",
        "ALTER TABLE model DROP COLUMN digest",
        "ALTER TABLE inheritance DROP COLUMN recorded_by",
        "DROP INDEX ix_model_age",
        "DROP INDEX ix_model_owner_age",
        "CREATE INDEX ix_model_owner ON model (owner)",
    )


def test_listed_revisions_match_the_migration_files() -> None:
    config = Config()
    folder = Path(migrations.__path__[0])
    config.set_main_option("script_location", str(folder))
    scripts = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(scripts)) == REVISIONS


def test_an_empty_database_gets_the_tables_that_the_code_uses(path: Path) -> None:
    CoordinatorStore(path).close()
    database = Database(path)
    with database.reading() as db:
        assert compare_metadata(MigrationContext.configure(db), METADATA) == []
    database.close()


def test_a_database_from_before_there_were_revisions_is_upgraded(path: Path) -> None:
    make_old(path)
    store = CoordinatorStore(path)
    assert [(one.request_id, one.state) for one in store.campaigns()] == [
        ("done", CampaignState.COMPLETE),
        ("open", CampaignState.RUNNING),
        ("none", CampaignState.COMPLETE),
    ]
    assert store.graph().models() == (RECORD,)
    assert (look(store, find_holders, ["cat"]), look(store, find_holders, ["dog"])) == (
        [RECORD],
        [],
    )
    assert store.tasks("open") == {"r": Task("r", "anna", TaskState.SENT)}
    assert store.acquire_lease("open", "one", 1.0).token == 1
    store.close()


def test_a_database_in_which_enrolment_made_its_tables_itself_keeps_what_they_hold(
    path: Path,
) -> None:
    """As the first release did, beside the revisions."""
    CoordinatorStore(path).close()
    sql(
        path,
        "UPDATE alembic_version SET version_num = '0007'",
        "DROP TABLE clock",
        "DROP TABLE announced",
        "DROP INDEX ix_task_owner",
        "DROP INDEX ix_task_model",
        "DROP INDEX ix_request_age",
        "DROP INDEX ix_campaign_state",
        "DROP INDEX ix_model_digest",
        "ALTER TABLE model DROP COLUMN digest",
        "DROP TABLE history",
        "DROP TABLE planned_root",
        "ALTER TABLE inheritance DROP COLUMN recorded_by",
        "ALTER TABLE task DROP COLUMN late",
        "ALTER TABLE task DROP COLUMN given_us",
        "ALTER TABLE task DROP COLUMN told_us",
        "DROP TABLE presence",
        "DROP TABLE webhook",
        "DROP TABLE webhook_delivery",
        *(
            f"ALTER TABLE campaign DROP COLUMN {name}"
            for name in ("lease_length_us", "submitted_plan", "approved_plan", "task_changes")
        ),
        "INSERT INTO agent_revocation VALUES ('zoe', 5)",
        "INSERT INTO enrolment_token VALUES ('ab', 'zoe', 0, 'cd')",
    )
    CoordinatorStore(path).close()
    database = Database(path)
    with database.reading() as db:
        assert db.execute(text("SELECT * FROM agent_revocation")).all() == [("zoe", 5)]
        assert db.execute(text("SELECT * FROM enrolment_token")).all() == [("ab", "zoe", 0, "cd")]
        assert compare_metadata(MigrationContext.configure(db), METADATA) == []
    database.close()


def test_a_stored_database_of_the_seventh_revision_is_upgraded_with_all_that_it_holds(
    path: Path,
) -> None:
    """Written by the code of that time: enrolment had made its tables beside the revisions."""
    with closing(sqlite3.connect(path)) as old:
        old.executescript(STORED.read_text())
    store = CoordinatorStore(path)
    learned = Provenance("animals", {"cat": 3, "dog": 4})
    base = ModelRecord("base", "anna", "aa", ("cat", "dog"), "0a" * 32, 1, learned)
    child = replace(
        base,
        id="child",
        owner="ben",
        digest="0b" * 32,
        created_us=2,
        provenance=Provenance("animals", {"dog": 5}),
    )
    assert store.graph().models() == (base, child)
    assert [(edge.parent, edge.child) for edge in store.graph().edges()] == [("base", "child")]
    assert store.with_weights(child.digest) == [child]
    assert [(one.request_id, one.state) for one in store.campaigns()] == [
        ("done", CampaignState.RUNNING),
        ("samples", CampaignState.AWAITING_APPROVAL),
    ]
    assert store.tasks("done")["base"] == Task("base", "anna", TaskState.FAILED, "disk full")
    (root,) = store.request("samples").roots
    assert samples_of(root) == SampleDigests("cd" * 16, ("ab" * 32,))
    lines = [line + b"\n" for line in store.audit_lines()]
    assert verify_lines(lines).problem is None
    assert len(lines) == 10
    store.close()
    database = Database(path)
    with database.reading() as db:
        assert compare_metadata(MigrationContext.configure(db), METADATA) == []
    authority = CertificateAuthority.open(path.parent / "authority")
    enrolment = Enrolment(database, authority)
    enrolment.revoke("anna")  # raises if she had not been invited
    assert enrolment.is_revoked("zoe", "no key of today")
    database.close()


def test_a_database_of_a_later_version_is_refused_and_left_alone(path: Path) -> None:
    CoordinatorStore(path).close()
    sql(path, "UPDATE alembic_version SET version_num = '9999'", "DROP TABLE packet")
    before = tables(path)
    with pytest.raises(StoreError, match=f"revision {REVISIONS[-1]} or older, but got '9999'"):
        CoordinatorStore(path)
    assert tables(path) == before


@pytest.mark.parametrize("old", [False, True])
def test_an_upgrade_that_fails_in_the_middle_leaves_the_database_as_it_was(
    path: Path, old: bool
) -> None:
    if old:
        make_old(path)
    before = tables(path)

    def fail(_: Connection, __: object, statement: str, *___: object) -> None:
        if "CREATE TABLE packet" in statement:
            raise KeyboardInterrupt

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        with pytest.raises(KeyboardInterrupt):
            CoordinatorStore(path)
    finally:
        event.remove(Engine, "before_cursor_execute", fail)
    assert tables(path) == before
    store = CoordinatorStore(path)
    assert len(store.campaigns()) == (3 if old else 0)
    store.close()


def test_several_may_open_an_empty_database_at_once(path: Path) -> None:
    failed: list[BaseException] = []

    def open_it() -> None:
        try:
            CoordinatorStore(path).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert METADATA.tables.keys() <= tables(path)
