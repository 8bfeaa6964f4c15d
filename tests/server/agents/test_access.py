"""Access log beside the authority: revocations and spent tokens survive a restored database."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from disinherit.common.errors import InputError, StoreError, TokenError
from disinherit.server.agents.authority import CertificateAuthority, requested_key
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.agents.revocation import key_digest
from disinherit.server.store.database import Database
from tests.server.agents.test_authority import request_by


@contextmanager
def enrolling(root: Path) -> Iterator[Enrolment]:
    database = Database(root / "coordinator.db")
    try:
        yield Enrolment(database, CertificateAuthority.open(root / "authority"))
    finally:
        database.close()


def a_request() -> bytes:
    return request_by(ec.generate_private_key(ec.SECP256R1()))


def digest(request: bytes) -> str:
    return key_digest(requested_key(request))


def put_back(root: Path, meanwhile: Callable[[Enrolment], object]) -> None:
    """Copy the database, let something happen, and put the copy back."""
    with enrolling(root):
        pass
    shutil.copytree(root, root.with_name("copy"), ignore=shutil.ignore_patterns("authority"))
    with enrolling(root) as enrolment:
        meanwhile(enrolment)
    for file in root.glob("coordinator.db*"):
        file.unlink()
    shutil.copytree(root.with_name("copy"), root, dirs_exist_ok=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    return root


def test_revocations_survive_a_restored_database(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stolen, later = a_request(), a_request()
    with enrolling(root) as enrolment:
        enrolment.enrol(enrolment.invite("zoe"), stolen)
        enrolment.enrol(enrolment.invite("anna"), later)
        unspent = enrolment.invite("zoe")
    new = a_request()

    def meanwhile(enrolment: Enrolment) -> None:
        enrolment.revoke("zoe")
        enrolment.enrol(enrolment.invite("zoe"), new)

    put_back(root, meanwhile)
    with enrolling(root) as enrolment:
        assert "the agents of zoe stay refused" in caplog.text
        assert enrolment.is_revoked("zoe", digest(stolen))
        assert not enrolment.is_revoked("zoe", digest(new))
        assert not enrolment.is_revoked("anna", digest(later))
        with pytest.raises(TokenError):
            enrolment.enrol(unspent, a_request())
        with pytest.raises(InputError, match="was revoked"):
            enrolment.enrol(enrolment.invite("zoe"), stolen)
    caplog.clear()
    with enrolling(root):
        assert caplog.text == ""


def test_spent_tokens_stay_spent_after_a_restored_database(root: Path) -> None:
    request = a_request()
    with enrolling(root) as enrolment:
        token = enrolment.invite("anna")
    put_back(root, lambda enrolment: enrolment.enrol(token, request))
    with enrolling(root) as enrolment:
        with pytest.raises(TokenError):
            enrolment.enrol(token, a_request())
        assert not enrolment.is_revoked("anna", digest(request))


def test_a_key_of_another_owner_is_refused_before_the_token_is_spent(root: Path) -> None:
    shared = a_request()
    with enrolling(root) as enrolment:
        enrolment.enrol(enrolment.invite("dora"), shared)
        enrolment.enrol(enrolment.invite("cleo"), a_request())
        for revoked in (False, True):
            if revoked:
                enrolment.revoke("cleo")
            token = enrolment.invite("cleo")
            with pytest.raises(InputError, match="this one is another owner's"):
                enrolment.enrol(token, shared)
            assert enrolment.enrol(token, a_request()).owner == "cleo"


def test_a_repeated_enrolment_is_logged_once(root: Path) -> None:
    request = a_request()
    with enrolling(root) as enrolment:
        token = enrolment.invite("anna")
        for _ in range(3):
            enrolment.enrol(token, request)
    file = root / "authority" / "access.jsonl"
    assert file.read_bytes().count(b"\n") == 1
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_partial_line_is_dropped_and_a_damaged_log_is_refused(root: Path) -> None:
    with enrolling(root) as enrolment:
        enrolment.enrol(enrolment.invite("anna"), a_request())
    file = root / "authority" / "access.jsonl"
    sound = file.read_bytes()
    file.write_bytes(sound + b'{"revoked": {"own')
    with enrolling(root) as enrolment:
        enrolment.revoke("anna")
        sound = file.read_bytes()
    assert sound.count(b"\n") == 2
    with enrolling(root):
        pass
    for damage in (b"x\n", b"[]\n", b'{"enrolled": {}}\n'):
        file.write_bytes(sound + damage)
        with pytest.raises(StoreError, match="line 3 of .*access.jsonl"), enrolling(root):
            pass
