"""The coordinator's signing key: created once, private, and recorded in the log."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import delete, select, update

from disinherit.cli.main import run
from disinherit.common.audit.chain import AuditEntry, entry_hash
from disinherit.common.audit.dsse import TrustedKeys, key_block
from disinherit.common.audit.export import (
    entry_line,
    header_line,
    read_entry,
    read_header,
    sign_header,
    verify_lines,
)
from disinherit.common.errors import CampaignError, LostHistoryError, StoreError
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.campaign.driver import OpenCampaigns
from disinherit.server.now import now_us
from disinherit.server.states import CampaignEvent
from disinherit.server.store import signed_log
from disinherit.server.store.audit import append_all
from disinherit.server.store.log_mark import Mark, mark_file, read_mark
from disinherit.server.store.request_lines import entries_about
from disinherit.server.store.signed_log import SignedLog, accept_log
from disinherit.server.store.signing import find_keys, open_signer
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.store.tables import AUDIT
from disinherit.server.transport.routing import RoutedTransport
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.agent import wait_for
from tests.support.audit_cases import chain, export
from tests.support.changes import look
from tests.support.command_line import as_json

Change = Callable[[list[AuditEntry]], list[AuditEntry]]


def test_a_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    made = open_signer(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["signing.pem"]
    assert open_signer(path).key_id == made.key_id
    path.chmod(0o640)
    with pytest.raises(StoreError, match="640.*chmod 600"):
        open_signer(path)


def test_invalid_signing_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for data, said in ((b"x", "in PEM"), (pem, "Ed25519")):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(StoreError, match=said):
            open_signer(path)
    with pytest.raises(StoreError, match="No such file"):
        open_signer(tmp_path / "no" / "signing.pem")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "coordinator.db"
    CoordinatorStore(path).close()
    return path


@contextmanager
def signing(path: Path, key: str = "signing.pem") -> Iterator[tuple[CoordinatorStore, SignedLog]]:
    """A store with the log that a key beside it signs."""
    store = CoordinatorStore(path)
    file = path.with_name(key)
    store.signed_log = SignedLog(store._database, open_signer(file), mark_file(file))
    try:
        yield store, store.signed_log
    finally:
        store.close()


def exported(store: CoordinatorStore, request_id: str = "") -> list[bytes]:
    return [line + b"\n" for line in store.audit_lines(request_id, store.signed_log)]


def add(store: CoordinatorStore, *ids: str) -> None:
    for id in ids:
        store.submit(pb.UnlearningRequest(id=id), [])


def rewrite(store: CoordinatorStore, change: Change) -> None:
    """What whoever can write the database, and has no key, can do to the log: a chain of lies."""
    with store._database.writing() as db:
        lines = db.scalars(select(AUDIT.c.entry).order_by(AUDIT.c.sequence)).all()
        entries = change([read_entry(line) for line in lines])
        db.execute(delete(AUDIT))
        append_all(db, [entry.event for entry in entries])


def without(kind: str) -> Change:
    return lambda entries: [entry for entry in entries if entry.event.kind != kind]


def trusted(store: CoordinatorStore) -> TrustedKeys:
    return TrustedKeys.from_pem(
        b"".join(key_block(k.public_pem, k.since_us, k.until_us) for k in look(store, find_keys))
    )


def test_the_log_knows_every_key_that_signed_and_when(path: Path) -> None:
    with signing(path, "old.pem") as (store, _):
        early = exported(store)
    with signing(path, "new.pem") as (store, _):
        late = exported(store)
    with signing(path, "old.pem") as (store, _):
        again = exported(store)
        keys, both = look(store, find_keys), trusted(store)
    assert [key.key_id for key in keys] == [keys[0].key_id, keys[1].key_id, keys[0].key_id]
    assert [key.until_us for key in keys] == [keys[1].since_us, keys[2].since_us, 0]
    for lines in (early, late, again):
        assert verify_lines(lines, keys=both).problem is None
    # What the new key signed is worth nothing to somebody who knows the old one only.
    problem = verify_lines(late, keys=TrustedKeys.from_pem(keys[0].public_pem)).problem
    assert problem is not None
    assert (problem.sequence, problem.finding) == (2, "forged")


def test_a_key_that_another_one_replaced_signs_nothing_any_more(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with signing(path, "old.pem"):
        pass
    with signing(path, "new.pem") as (store, _):
        assert "Another key signs from now on" in caplog.text
        keys, lines = trusted(store), exported(store)
    stolen = open_signer(path.with_name("old.pem"))
    header = sign_header(read_header(lines[0][:-1]), stolen, now_us())
    problem = verify_lines([header_line(header) + b"\n", *lines[1:]], keys=keys).problem
    assert problem is not None
    assert "another one had taken its place" in problem.reason


def test_a_key_that_was_revoked_is_not_used(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with signing(path) as (store, _):
        (key,) = look(store, find_keys)
    config = path.with_name("serve.toml")
    config.write_text('database = "coordinator.db"\ntokens = "tokens.toml"\n')
    assert run(["audit", "revoke-key", "0" * 64, "--config", str(config)]) == 2
    assert key.key_id in capsys.readouterr().err
    shown = as_json(capsys, "audit", "revoke-key", key.key_id, "--config", str(config))
    assert shown == {"id": key.key_id, "revoked": True}
    with pytest.raises(StoreError, match="was revoked"), signing(path):
        pass
    with signing(path, "new.pem") as (store, _):
        assert [bool(key.revoked_us) for key in look(store, find_keys)] == [True, False]
        assert verify_lines(exported(store), keys=trusted(store)).problem is None


# Nothing is signed that does not continue what was signed


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        without("received"),
        lambda entries: entries[:-1],
        lambda entries: entries[:1],
        lambda entries: [
            replace(entry, event=replace(entry.event, actor="operator:somebody"))
            for entry in entries
        ],
    ],
)
def test_rewritten_log_is_not_signed(path: Path, change: Change, restarted: bool) -> None:
    with signing(path) as (store, _):
        add(store, "p", "q")
        exported(store)
        rewrite(store, change)
        if not restarted:
            with pytest.raises(LostHistoryError, match="Nothing is signed"):
                exported(store)
            return
    with signing(path) as (store, log):
        add(store, "r", "s", "t")  # as many entries as before, and more
        for sign in (lambda: exported(store), lambda: log.envelope("text/plain", b""), log.head):
            with pytest.raises(LostHistoryError, match="disinherit confirm history"):
                sign()


def test_new_entries_must_continue_the_chain(path: Path) -> None:
    with signing(path) as (store, _):
        add(store, "p")
        exported(store)
        add(store, "q")
        with store._database.writing() as db:
            db.execute(update(AUDIT).where(AUDIT.c.request_id == "q").values(hash="0" * 64))
        with pytest.raises(LostHistoryError, match="entry 3 does not follow"):
            exported(store)


def test_columns_beside_an_entry_do_not_hide_it(path: Path) -> None:
    """The last entries of a request, under another id in the column that is searched."""
    with signing(path) as (store, log):
        add(store, "p", "q")
        store.transition("q", CampaignEvent.ABORT)
        before = exported(store, "q")
        log.follow()
        with store._database.writing() as db:
            last = update(AUDIT).where(AUDIT.c.request_id == "q", AUDIT.c.kind == "aborted")
            db.execute(last.values(request_id="hidden"))
        after = exported(store, "q")
        assert after[1:] == before[1:]


def test_a_last_entry_that_was_changed_is_not_signed(path: Path) -> None:
    """Nothing of the request follows it, so its own chain would not show it."""
    with signing(path) as (store, log):
        add(store, "q", "p")
        log.follow()
        (sequence, line) = look(store, entries_about, "q")[-1]
        entry = read_entry(line)
        lie = replace(entry, event=replace(entry.event, actor="operator:somebody"))
        lie = replace(lie, hash=entry_hash(lie))
        with store._database.writing() as db:
            row = update(AUDIT).where(AUDIT.c.sequence == sequence)
            db.execute(row.values(entry=entry_line(lie), hash=lie.hash))
        with pytest.raises(LostHistoryError, match=f"entry {sequence} is not what it was"):
            exported(store, "q")


def test_mark_file_is_private(path: Path) -> None:
    with signing(path) as (store, _):
        add(store, "q")
        exported(store)
        file = mark_file(path.with_name("signing.pem"))
        assert file.stat().st_mode & 0o777 == 0o600
        assert read_mark(file) == Mark(2, read_header(exported(store)[0][:-1]).head, 0)
        file.write_text("[]")
        with pytest.raises(StoreError, match="up to where the log was signed"):
            exported(store)


def test_checkpoints_are_signed_into_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_log, "_CHECKPOINT_ENTRIES", 3)
    with signing(path) as (store, log):
        for id in "abcdefgh":
            add(store, id)
            log.watch()
        lines, keys = exported(store), trusted(store)
        kinds = [read_entry(line[:-1]).event.kind for line in lines[1:]]
        assert kinds.count("checkpoint") == 3
        assert verify_lines(lines, keys=keys).problem is None
        # Whoever takes an entry out and makes the chain anew cannot sign them.
        entries = [read_entry(line[:-1]) for line in lines[1:]]
    lie = chain([entry.event for entry in entries if entry.event.request_id != "b"])
    problem = verify_lines(export(lie), keys=keys).problem
    assert problem is not None
    assert problem.finding == "forged"
    assert "heckpoint" in problem.reason


# A database that was put back from a copy


def test_restored_coordinator_stops_until_a_person_confirms(
    path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    copy = path.with_name("copy.db")
    with signing(path) as (store, _):
        add(store, "p")
        with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        add(store, "q")
        exported(store)
    for file in path.parent.glob("coordinator.db*"):
        if "signing" not in file.name and file.is_file():
            file.unlink()
    copy.rename(path)
    with signing(path) as (store, _):
        store.watch_history()
        assert "disinherit confirm history" in caplog.text
        assert store.history_lost()
        coordinator = Coordinator(store, RoutedTransport([]))
        assert OpenCampaigns(coordinator)() == {}
        with pytest.raises(CampaignError, match="lost no history"):
            coordinator.run("p")
        config = path.with_name("serve.toml")
        config.write_text(
            'database = "coordinator.db"\ntokens = "t.toml"\n[signing]\nkey = "signing.pem"\n'
        )
        words = ["confirm", "history", "--config", str(config), "--yes", "-o", "json"]
        assert run(words) == 0
        printed = capsys.readouterr()
        assert "was signed, and the log ends with entry 2" in json.loads(printed.out)["lost"]
        assert "was signed, and the log ends with entry 2" in printed.err
        store.watch_history()
        assert not store.history_lost()
        assert set(OpenCampaigns(coordinator)()) == {"p"}
        kinds = [read_entry(line[:-1]).event.kind for line in exported(store)[1:]]
        assert kinds == ["signing_key", "received", "history_confirmed"]


def test_head_shown_by_an_owner_reveals_lost_entries(path: Path) -> None:
    with signing(path) as (store, log):
        add(store, "p")
        kept = log.head()
        add(store, "q")
        later = log.head()
        store.check_shown("anna", kept)
        store.check_shown("anna", later)
        store.check_shown("anna", pb.LogHead())
        invented = pb.LogHead(entries=99, hash="0" * 64, key_id=later.key_id, signature=bytes(64))
        store.check_shown("anna", invented)  # an owner cannot stop the others
        assert not store.history_lost()
        # The key's folder was put back, too, so only owners know.
        mark_file(path.with_name("signing.pem")).unlink()
        rewrite(store, lambda entries: entries[:2])
    with signing(path) as (store, log):
        store.check_shown("anna", kept)
        assert not store.history_lost()
        add(store, "r", "s")  # as long as before, and another one
        store.check_shown("anna", later)
        assert store.history_lost() == f"owner anna was shown entry 3 with hash {later.hash}"
        accept_log(store._database, mark_file(path.with_name("signing.pem")), "administrator")
        store.check_shown("anna", later)
        assert not store.history_lost()
        assert log.head().epoch == 1


def test_exports_that_wait_share_one_look_at_the_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with signing(path) as (store, log):
        add(store, "q")
        looks: list[int] = []
        looking, go_on, follow = threading.Event(), threading.Event(), log.follow

        def slowly() -> Mark:
            looks.append(log._asked)
            looking.set()
            assert go_on.wait(60.0)
            return follow()

        monkeypatch.setattr(log, "follow", slowly)
        found: list[list[bytes]] = []
        threads = [threading.Thread(target=lambda: found.append(exported(store))) for _ in range(5)]
        threads[0].start()
        assert looking.wait(60.0)
        for thread in threads[1:]:
            thread.start()
        wait_for(lambda: log._asked >= looks[0] + 4)
        go_on.set()
        for thread in threads:
            thread.join(60.0)
        # The look of the first began before the others asked.
        assert len(looks) == 2
        keys = trusted(store)
        assert [verify_lines(lines, keys=keys).problem for lines in found] == [None] * 5
