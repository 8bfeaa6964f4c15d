"""The fleet's certificate authority: kept safely, and certificates no clock can spoil."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from disinherit.common.errors import InputError, StoreError
from disinherit.server.agents.authority import CertificateAuthority


def request_by(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "somebody else")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_an_authority_is_made_once_and_kept_for_its_user_alone(tmp_path: Path) -> None:
    first = CertificateAuthority.open(tmp_path / "ca")
    assert CertificateAuthority.open(tmp_path / "ca").certificate == first.certificate
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "ca").iterdir()) == ["ca.key", "ca.pem"]


def test_a_certificate_names_the_owner_it_is_for_and_not_the_one_asked_for(tmp_path: Path) -> None:
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


def test_certificates_are_valid_whatever_a_device_takes_the_time_for(tmp_path: Path) -> None:
    authority = CertificateAuthority.open(tmp_path)
    server = authority.issue_server(["localhost", "127.0.0.1", "::1"]).certificate
    for data in (authority.certificate, server):
        certificate = x509.load_pem_x509_certificate(data)
        assert certificate.not_valid_before_utc.year == 1970
        assert certificate.not_valid_after_utc.year == 9999


def test_requests_that_cannot_be_trusted_are_not_signed(tmp_path: Path) -> None:
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
def test_a_damaged_authority_is_said_so(damage: bytes, tmp_path: Path) -> None:
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
