"""Admission of nodes: refusals before any call of the SuperLink.

tests/deploy/test_proxy.py admits a node.
"""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from disinherit.cli.main import run
from disinherit.common.errors import CampaignError, InputError, StoreError
from disinherit.deploy.enrolment import admit_node
from disinherit.deploy.files import FleetFiles
from disinherit.deploy.preparation import prepare
from tests.support.command_line import as_json
from tests.support.ports import free_block


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> Path:
    path.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return path


@pytest.fixture
def files(tmp_path: Path) -> FleetFiles:
    return prepare(tmp_path / "d", free_block(5))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "anna.pub", ec.generate_private_key(ec.SECP384R1()))


def test_a_key_that_flower_cannot_use_is_refused(files: FleetFiles, tmp_path: Path) -> None:
    other = write_key(tmp_path / "other.pub", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(InputError, match=r"ecdsa.*but got ssh-ed25519"):
        admit_node(files, "anna", other)
    other.write_text("no key")
    with pytest.raises(InputError, match="as OpenSSH writes it"):
        admit_node(files, "anna", other)
    with pytest.raises(InputError, match="No such file"):
        admit_node(files, "anna", tmp_path / "none.pub")
    assert list(files.nodes.iterdir()) == []


def test_an_admitted_owner_keeps_its_key(files: FleetFiles, key: Path) -> None:
    kept = files.node_public_key("anna")
    write_key(kept, ec.generate_private_key(ec.SECP384R1()))
    before = kept.read_bytes()
    with pytest.raises(InputError, match="flwr supernode unregister"):
        admit_node(files, "anna", key)
    assert kept.read_bytes() == before


def test_an_owner_name_with_a_path_is_refused(files: FleetFiles, key: Path) -> None:
    with pytest.raises(InputError, match="owner name"):
        admit_node(files, "../anna", key)


def test_admission_needs_a_superlink(files: FleetFiles, key: Path) -> None:
    with pytest.raises(CampaignError, match="flwr supernode"):
        admit_node(files, "anna", key)
    assert list(files.nodes.iterdir()) == []
    assert "anna" not in files.owners.read_text()


def test_admission_needs_a_deployment(
    tmp_path: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["deploy", "admit", "anna", str(key), "--folder", str(tmp_path)]) == 2
    assert "disinherit deploy prepare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "deployment.json"),
        ("[]", "a table in"),
        ('{"first_port": "50051", "hosts": []}', "a whole number as first_port"),
        ('{"first_port": 50051}', "the key hosts"),
        ('{"first_port": 50051, "hosts": [3]}', r"text as hosts\[0\]"),
    ],
)
def test_malformed_deployment_settings_are_refused(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "deployment.json").write_text(text)
    with pytest.raises(StoreError, match=named) as caught:
        prepare(tmp_path)
    assert str(tmp_path / "deployment.json") in str(caught.value)


def test_prepare_lists_the_files_and_is_idempotent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "d"
    words = ["deploy", "prepare", "--folder", str(folder), "--host", "fleet.example.org"]
    assert run(words) == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(words) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert str(folder / "authority" / "ca.pem") in capsys.readouterr().out
    ca = str(folder / "authority" / "ca.pem")
    assert as_json(capsys, *words) == {"folder": str(folder), "ca": ca}
    assert run([*words[:4], "--host", "other.example.org"]) == 2
    assert "in another folder" in capsys.readouterr().err
