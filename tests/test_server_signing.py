"""The coordinator's key: made once, nobody else's business, and remembered by the log."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from disinherit.common.audit_lines import verify_lines
from disinherit.common.dsse import TrustedKeys
from disinherit.common.errors import StoreError
from disinherit.server.signing import open_signer
from disinherit.server.store import CoordinatorStore


def test_a_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    made = open_signer(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["signing.pem"]
    assert open_signer(path).key_id == made.key_id
    path.chmod(0o640)
    with pytest.raises(StoreError, match="640.*chmod 600"):
        open_signer(path)


def test_what_is_no_signing_key_is_refused(tmp_path: Path) -> None:
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


def test_the_log_knows_every_key_that_signed(tmp_path: Path) -> None:
    store = CoordinatorStore(tmp_path / "coordinator.db")
    old, new = open_signer(tmp_path / "old.pem"), open_signer(tmp_path / "new.pem")
    store.announce_key(old)
    early = [line + b"\n" for line in store.audit_lines("", old)]
    for signer in (old, new, old, new):
        store.announce_key(signer)
    late = [line + b"\n" for line in store.audit_lines("", new)]
    keys = store.signing_keys()
    store.close()
    assert [key.key_id for key in keys] == [old.key_id, new.key_id]
    assert 0 < keys[0].since_us < keys[1].since_us
    trusted = TrustedKeys.from_pem(b"".join(key.public_pem for key in keys))
    for lines in (early, late):
        assert verify_lines(lines, keys=trusted).problem is None
    # What the new key signed is worth nothing to somebody who knows the old one only.
    problem = verify_lines(late, keys=TrustedKeys.from_pem(old.public_pem)).problem
    assert problem is not None
    assert (problem.sequence, problem.finding) == (2, "forged")
