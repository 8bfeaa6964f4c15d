"""The fleet's certificate authority: private files, and certificates despite wrong clocks."""

import datetime
import os
import ssl
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from disinherit.common.errors import InputError, StoreError
from disinherit.server.agents.authority import CertificateAuthority, KeyPair, fits
from disinherit.server.agents.credentials import OwnIdentity
from disinherit.server.service.listening import TlsFiles
from disinherit.server.service.renewal import renew


def request_by(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "somebody else")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_an_authority_is_created_once_with_private_files(tmp_path: Path) -> None:
    first = CertificateAuthority.open(tmp_path / "ca")
    assert CertificateAuthority.open(tmp_path / "ca").certificate == first.certificate
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "ca").iterdir()) == ["ca.key", "ca.pem"]


def test_a_certificate_names_the_owner_of_the_token(tmp_path: Path) -> None:
    authority = CertificateAuthority.open(tmp_path)
    owner = "a" * 128  # longer than a common name may be
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = x509.load_pem_x509_certificate(authority.sign(request_by(key), owner))
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert found == [f"urn:disinherit:owner:{owner}"]
    assert certificate.public_key() == key.public_key()
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


HOSTS = ["localhost", "127.0.0.1", "::1"]


def test_certificates_are_valid_for_devices_whose_clocks_are_behind(tmp_path: Path) -> None:
    authority = CertificateAuthority.open(tmp_path)
    server, own = (
        x509.load_pem_x509_certificate(data)
        for data in (authority.issue_server(HOSTS).certificate, authority.certificate)
    )
    assert server.not_valid_before_utc.year == own.not_valid_before_utc.year == 1970
    assert own.not_valid_after_utc.year == 9999
    left = server.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert 89 <= left.days <= 90


def ends_in(authority: CertificateAuthority, days: float, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A certificate of the coordinator that ends in so many days."""
    with monkeypatch.context() as patch:
        patch.setattr("disinherit.server.agents.authority.SERVER_DAYS", days)
        return authority.issue_server(HOSTS).certificate


def test_expiring_and_unlimited_certificates_are_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority.open(tmp_path / "own")
    other = CertificateAuthority.open(tmp_path / "other")
    assert not authority.is_due(authority.issue_server(HOSTS).certificate)
    for days in (59, 1, -1, 365 * 1000):  # the last as the first release made them
        assert authority.is_due(ends_in(authority, days, monkeypatch))
        assert not authority.is_due(ends_in(other, days, monkeypatch))
    assert not authority.is_due(b"damaged")


@pytest.mark.parametrize("days", [-365, 365])
def test_a_wrong_clock_issues_no_expired_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """The coordinator's files show a later time, in whichever direction the clock jumped."""
    authority = CertificateAuthority.open(tmp_path / "site" / "authority")
    database = tmp_path / "site" / "coordinator.db"
    database.touch()
    now = datetime.datetime.now(datetime.UTC)
    wrong = now + datetime.timedelta(days=days)

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", wrong.timestamp)
        made = authority.issue_server(HOSTS).certificate
        assert not authority.is_due(made)
    end = x509.load_pem_x509_certificate(made).not_valid_after_utc
    assert (end - max(now, wrong)).days in (89, 90)
    if days > 0:  # written while the clock was ahead: not renewed at every look from then on
        os.utime(database, (wrong.timestamp(), wrong.timestamp()))
        assert not authority.is_due(made)


def test_handshakes_do_not_look_at_the_files_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority.open(tmp_path / "own")
    looked: list[bytes] = []

    def is_due(certificate: bytes) -> bool:
        looked.append(certificate)
        return True

    monkeypatch.setattr(authority, "is_due", is_due)
    identity = OwnIdentity(authority, tuple(HOSTS))
    first = identity()
    assert all(identity() == first for _ in range(100))
    assert looked == []
    later = time.monotonic() + 61.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    renewed = identity()
    assert renewed.certificate != first.certificate
    assert all(identity() == renewed for _ in range(100))
    assert looked == [first.certificate]


def shaken(server: KeyPair, ca: bytes, folder: Path) -> None:
    """A handshake by which a strict reader of certificates checks a server's."""
    (folder / "chain.pem").write_bytes(server.key + server.certificate)
    context = ssl.create_default_context(cadata=ca.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "chain.pem")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    there = serving.wrap_bio(to_server, to_client, server_side=True)
    with suppress(ssl.SSLWantReadError):
        there.do_handshake()
    client.do_handshake()


def test_strict_readers_of_certificates_accept_them(tmp_path: Path) -> None:
    authority = CertificateAuthority.open(tmp_path)
    shaken(authority.issue_server(HOSTS), authority.certificate, tmp_path)
    usage = x509.load_pem_x509_certificate(authority.certificate).extensions
    assert usage.get_extension_for_class(x509.KeyUsage).critical


def test_an_authority_of_the_first_release_is_certified_anew_with_the_same_key(
    tmp_path: Path,
) -> None:
    kept = CertificateAuthority.open(tmp_path)
    key = kept._key
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "Disinherit fleet")])
    former = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(1970, 1, 1))
        .not_valid_after(datetime.datetime(9999, 12, 31))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "ca.pem").write_bytes(former.public_bytes(Encoding.PEM))
    authority = CertificateAuthority.open(tmp_path)
    assert authority.is_strict
    server = authority.issue_server(HOSTS)
    shaken(server, authority.certificate, tmp_path)
    x509.load_pem_x509_certificate(server.certificate).verify_directly_issued_by(former)


def test_a_former_authority_is_trusted_beside_the_present_one(tmp_path: Path) -> None:
    former = CertificateAuthority.open(tmp_path / "former")
    present = CertificateAuthority.open(tmp_path / "present")
    assert present.trusted == present.certificate
    (tmp_path / "present" / "former.pem").write_bytes(former.certificate)
    assert present.trusted == present.certificate + former.certificate


def test_the_service_certificate_is_renewed_on_disk_with_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority.open(tmp_path / "own")
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    pair = authority.issue_server(HOSTS)
    files.certificate.write_bytes(pair.certificate)
    files.key.write_bytes(pair.key)
    assert not renew(authority, files)
    with monkeypatch.context() as patch:
        patch.setattr("disinherit.server.agents.authority.SERVER_DAYS", 5)
        pair = authority.issue_server(HOSTS)
    files.certificate.write_bytes(pair.certificate)
    files.key.write_bytes(pair.key)
    assert renew(authority, files)
    found = KeyPair(files.key.read_bytes(), files.certificate.read_bytes())
    assert fits(found)
    assert not fits(KeyPair(pair.key, found.certificate))
    assert files.key.stat().st_mode & 0o777 == 0o600
    names = x509.load_pem_x509_certificate(found.certificate).extensions
    assert names.get_extension_for_class(x509.SubjectAlternativeName) == (
        x509.load_pem_x509_certificate(pair.certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    )


def test_untrusted_certificate_requests_are_refused(tmp_path: Path) -> None:
    authority = CertificateAuthority.open(tmp_path)
    sound = request_by(ec.generate_private_key(ec.SECP256R1()))
    der = x509.load_pem_x509_csr(sound).public_bytes(Encoding.DER)
    forged = x509.load_der_x509_csr(der[:-1] + bytes([der[-1] ^ 1])).public_bytes(Encoding.PEM)
    cases = {
        "in PEM": b"no request",
        "signature is wrong": forged,
        "P-256": request_by(ec.generate_private_key(ec.SECP384R1())),
        "but got RSA": request_by(rsa.generate_private_key(65537, 2048)),
    }
    for words, request in cases.items():
        with pytest.raises(InputError, match=words):
            authority.sign(request, "anna")
    with pytest.raises(InputError, match="owner name"):
        authority.sign(sound, "anna\nben")


@pytest.mark.parametrize("damage", [b"", b"damaged"])
def test_a_damaged_authority_is_refused(damage: bytes, tmp_path: Path) -> None:
    CertificateAuthority.open(tmp_path)
    for name in ("ca.pem", "ca.key"):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(damage)
        with pytest.raises(StoreError, match="in PEM"):
            CertificateAuthority.open(tmp_path)
        (tmp_path / name).write_bytes(kept)
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(StoreError, match="No such file"):
        CertificateAuthority.open(tmp_path)
