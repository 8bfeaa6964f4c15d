"""The files of a fleet are what its processes read, and keep what is secret to themselves."""

from pathlib import Path

import pytest

from disinherit.cli.main import run
from disinherit.client.agent import read_config
from disinherit.deploy.files import FleetFiles
from disinherit.server.flower.owner_keys import read_owner_keys
from disinherit.server.service.principals import TokenBook
from disinherit.server.service.settings import read_settings
from tests.acceptance.fleet.files import write_files


@pytest.fixture
def files(tmp_path: Path) -> FleetFiles:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "run.json").write_text("{}")
    return write_files(
        tmp_path / "start", tmp_path / "fleet", None, ["owner-2"], ["owner-0", "owner-1"]
    )


def test_every_process_can_read_its_part(files: FleetFiles) -> None:
    settings = read_settings(files.service, {}, {})
    assert settings.database == files.root / "coordinator.db"
    assert settings.tls is not None
    assert settings.agents is not None
    TokenBook.read(settings.tokens)
    agent = read_config(files.agent("owner-2"))
    assert (agent.owner, agent.server) == ("owner-2", settings.agents.listen)
    assert agent.state.parent == files.root
    assert agent.ca.exists()
    assert read_owner_keys(files.owners).keys() == {"owner-0", "owner-1"}
    assert (files.root / "run.json").exists()


def test_private_keys_are_readable_by_nobody_else(files: FleetFiles) -> None:
    for path in (files.key, files.node_key("owner-0"), files.authority / "ca.key"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_agents_are_invited_with_the_services_configuration(
    files: FleetFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["invite", "owner-2", "--config", str(files.service)]) == 0
    assert len(capsys.readouterr().out.strip()) > 20
