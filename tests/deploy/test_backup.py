"""Backups of a running coordinator, which continue elsewhere."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from disinherit.cli.main import run
from disinherit.client.agent import AgentConfig, enrol, load_identity
from disinherit.client.agent.agent import Agent
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import InputError, StoreError
from disinherit.deploy.backup import back_up
from disinherit.deploy.files import FleetFiles
from disinherit.deploy.preparation import prepare, prepared
from disinherit.server.service.hosting import Service
from disinherit.server.service.inviting import open_enrolment
from disinherit.server.service.settings import read_settings
from tests.support import campaign
from tests.support.agent import wait_for
from tests.support.owner import PointsOwner
from tests.support.ports import free_block


@contextmanager
def serving(files: FleetFiles) -> Iterator[None]:
    """The coordinator's service of a deployment, in this process."""
    service = Service(read_settings(files.service, {}, {}))
    service.start()
    try:
        yield
    finally:
        service.stop(grace=0.5)


@contextmanager
def connected(files: FleetFiles, root: Path, owners: tuple[str, ...]) -> Iterator[None]:
    """Agents of owners whose models are in a folder; the first time they enrol."""
    with ExitStack() as agents, open_enrolment(files.service) as (enrolment, _):
        for owner in owners:
            config = AgentConfig(
                owner=owner,
                server=f"127.0.0.1:{files.ports.agents}",
                ca=files.ca,
                state=root / f"state-{owner}",
                factory="",
                enrol_server=f"127.0.0.1:{files.ports.enrol}",
            )
            known = (config.state / "agent.pem").exists()
            identity = load_identity(config) if known else enrol(config, enrolment.invite(owner))
            opening = partial(PointsOwner, root / owner, owner)
            agents.enter_context(Agent(config, identity, opening))
        yield


class Operator:
    """The command line, as the operator and the approver of a deployment use it."""

    def __init__(self, files: FleetFiles, capsys: pytest.CaptureFixture[str]) -> None:
        self._files = files
        self._capsys = capsys

    def __call__(self, *words: str, role: str = "operator", code: int = 0) -> Any:
        where = ["--server", f"127.0.0.1:{self._files.ports.service}", "--ca", str(self._files.ca)]
        token = self._files.token_file(role).read_text().strip()
        assert run([*words, *where, "--token", token, "--format", "json"]) <= code
        return self._capsys.readouterr().out

    def states(self, request: str) -> dict[str, str]:
        covered = json.loads(self("coverage", request, code=1))
        return {model["model"]: model["state"] for model in covered}


def held(root: Path) -> dict[str, set[str]]:
    """Owner -> ids of the versions on its disk."""
    found = {}
    for owner in campaign.NAMES:
        with ModelStore(root / owner, owner) as store:
            found[owner] = {record.id for record in store.records()}
    return found


def test_a_campaign_continues_from_a_backup_of_the_running_deployment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = tmp_path / "world"
    world.mkdir()
    campaign.build(world)
    files = prepare(tmp_path / "d", free_block(5))
    shutil.copy(world / "coordinator.db", files.root)
    operator = Operator(files, capsys)
    with serving(files), connected(files, world, ("anna", "cleo")):
        submitted = json.loads(operator("request", "submit", "--forget", "cat@r1", "--reason", "x"))
        request = submitted["id"]
        operator("request", "approve", request, role="approver")
        wait_for(lambda: operator.states(request).get("r4") == "verified", 600.0)
        assert back_up(files, tmp_path / "copy") == []
        # Its owner is away; a pass that is under way asks it.
        wait_for(lambda: operator.states(request)["r2"] == "pending", 600.0)

    before = held(world)
    shutil.rmtree(files.root)  # the machine is lost
    shutil.move(tmp_path / "copy", tmp_path / "new")
    files = prepared(tmp_path / "new")
    operator = Operator(files, capsys)
    with serving(files), connected(files, world, campaign.NAMES):
        operator("request", "watch", request)
        assert set(operator.states(request).values()) == {"verified"}
        exported, key = tmp_path / "audit.jsonl", tmp_path / "key.pem"
        operator("audit", "export", "--out", str(exported))
        operator("audit", "keys", "--out", str(key))
    assert run(["audit", "verify", str(exported), "--key", str(key)]) == 0
    after = held(world)
    assert {name: after[name] - before[name] for name in after} == {
        "anna": set(),  # nothing twice
        "ben": {f"r2~{request}", f"r6~{request}"},
        "cleo": set(),
    }


def test_a_backup_is_private_and_omits_recreated_files(tmp_path: Path) -> None:
    files = prepare(tmp_path / "d", free_block(5))
    for name in ("logs/x.log", "owners/node-0/index.db", "state-anna/agent.key", "proxy/x"):
        (files.root / name).parent.mkdir(parents=True, exist_ok=True)
        (files.root / name).touch()
    assert back_up(files, tmp_path / "copy") == []
    copied = FleetFiles(tmp_path / "copy", files.ports)
    assert copied.root.stat().st_mode & 0o077 == 0
    assert copied.key.stat().st_mode & 0o077 == 0
    assert copied.key.read_bytes() == files.key.read_bytes()
    assert {path.name for path in copied.root.iterdir()} == {
        *("authority", "deployment.json", "flwr", "nodes", "owners.toml", "serve.toml"),
        *("server.key", "server.pem", "tokens.toml", "operator.token", "approver.token", "ca.pem"),
    }
    with pytest.raises(InputError, match="exists"):
        back_up(files, tmp_path / "copy")


def test_data_stored_elsewhere_is_listed(tmp_path: Path) -> None:
    database = "postgresql+psycopg://me:secret@host/fleet"
    files = prepare(tmp_path / "d", free_block(5), database=database)
    text = files.service.read_text()
    assert back_up(files, tmp_path / "within") == [
        "the coordinator's database, which is on a server: use its tools (pg_dump)"
    ]
    files.service.write_text(text.replace('"packets"', '"s3://bucket/packets"'))
    left = back_up(files, tmp_path / "copy")
    assert [words.partition(",")[0].partition(" at ")[0] for words in left] == [
        "the coordinator's database",
        "the Fisher packets",
    ]
    assert "secret" not in "".join(left)


def test_a_copy_in_the_deployment_itself_is_refused(tmp_path: Path) -> None:
    files = prepare(tmp_path / "d", free_block(5))
    (tmp_path / "link").symlink_to(files.root)
    for target in (files.root / "copy", tmp_path / "link" / "copy"):
        with pytest.raises(InputError, match="not in the deployment, but '.*copy' is in"):
            back_up(files, target)
    assert not (files.root / "copy").exists()


def test_programs_are_told_what_is_not_in_the_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = prepare(tmp_path / "d", free_block(5))
    text = files.service.read_text()
    files.service.write_text(text.replace("coordinator.db", "postgresql+psycopg://host/fleet"))
    copy = tmp_path / "copy"
    words = ["deploy", "backup", str(copy), "--folder", str(files.root), "-o", "json"]
    assert run(words) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["copy"] == str(copy)
    assert len(shown["not_in_the_copy"]) == 1


def test_a_damaged_database_is_reported_and_leaves_no_backup(tmp_path: Path) -> None:
    files = prepare(tmp_path / "d", free_block(5))
    (files.root / "coordinator.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        back_up(files, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_backup_needs_a_deployment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["deploy", "backup", str(tmp_path / "copy"), "--folder", str(tmp_path / "none")]
    assert run(command) == 2
    assert "disinherit deploy prepare" in capsys.readouterr().err
