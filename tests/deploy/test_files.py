"""Files of a fleet: written values read back, for any folder name."""

import tomllib
from pathlib import Path

import pytest

from disinherit.deploy.files import CONNECTION, FleetFiles, Ports, write_agent, write_coordinator

PORTS = Ports(1, 2, 3, 4, 5)


@pytest.mark.parametrize("name", ["plain", "del\x7f", 'quo"te', "back\\slash", "tab\t", "é 数"])
def test_every_file_reads_back_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    files = FleetFiles(tmp_path / name, PORTS)
    database = str(tmp_path / name / "coordinator.db")
    write_coordinator(files, database, approval=True)
    write_agent(files, "anna", "module:function")
    service = tomllib.loads(files.service.read_text())
    assert service["database"] == database
    assert service["approval"] is True
    assert service["agents"]["hosts"] == list(files.hosts)
    assert tomllib.loads(files.agent("anna").read_text())["ca"] == str(files.ca)
    flower = tomllib.loads((files.flower_home / "config.toml").read_text())
    assert flower["superlink"][CONNECTION]["root-certificates"] == str(files.public_ca)
    assert files.public_ca.read_bytes() == files.ca.read_bytes()
    roles = [
        token["role"] for token in tomllib.loads((files.root / "tokens.toml").read_text())["token"]
    ]
    assert roles == ["operator", "approver"]
