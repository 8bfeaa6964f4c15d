"""The certificates of a fleet: who an agent is, and who the coordinator is.

A fleet has a certificate authority of its own.  Its certificates are valid from 1970 on and do not
end (RFC 5280, 4.1.2.5), because a device whose clock is wrong must still find the coordinator; who
may come in is decided by the coordinator, whose clock is right.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from disinherit.common.checkpoints import write_atomic
from disinherit.common.errors import InputError, StoreError
from disinherit.common.private_files import write_private
from disinherit.common.records import check_id

OWNER_URN = "urn:disinherit:owner:"
"""Begins the alternative name of an agent's certificate; the owner's name follows."""

_FLEET = "Disinherit fleet"
_BEGIN = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_COMMON_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its certificate, both PEM."""

    key: bytes
    certificate: bytes


class CertificateAuthority:
    """Signs certificates.

    Args:
        pair: the authority's own key and certificate, PEM.

    Raises:
        StoreError: if they are not what they should be.
    """

    def __init__(self, pair: KeyPair) -> None:
        try:
            key = load_pem_private_key(pair.key, None)
            self._certificate = x509.load_pem_x509_certificate(pair.certificate)
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"Expected the key and certificate of an authority in PEM, but: {error}."
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StoreError(
                f"Expected an elliptic-curve key of the authority, but got {type(key).__name__}."
            )
        self._key = key
        self.certificate = pair.certificate

    @classmethod
    def open(cls, folder: Path) -> "CertificateAuthority":
        """Return the authority that is kept in a folder; a new one if there is none.

        Args:
            folder: holds `ca.key`, which nobody else may read, and `ca.pem`, which every agent
                needs.

        Raises:
            StoreError: if only half of it is there, or it is damaged.
            CheckpointError: if the folder cannot be written to.
        """
        key, certificate = folder / "ca.key", folder / "ca.pem"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not key.exists():
                made = _make_authority()
                # The certificate first: a key is there only once both are.
                write_atomic(certificate, made.certificate)
                write_private(key, made.key)
            return cls(KeyPair(key.read_bytes(), certificate.read_bytes()))
        except OSError as error:
            raise StoreError(
                f"Expected the fleet's certificate authority in {folder}, but got: {error}."
            ) from error

    def sign(self, certificate_request: bytes, owner: str) -> bytes:
        """Return a client certificate for an owner's agent, PEM.

        Args:
            certificate_request: PEM; only its public key is taken over.
            owner: whose agent it is.

        Raises:
            InputError: if the request is malformed, not signed by its key, or its key is not on
                the curve P-256; or if the owner's name is malformed.
        """
        public = requested_key(certificate_request)
        name = x509.UniformResourceIdentifier(OWNER_URN + check_id(owner, "owner name"))
        return self._issue(owner, public, [name], ExtendedKeyUsageOID.CLIENT_AUTH)

    def issue_server(self, hosts: Sequence[str]) -> KeyPair:
        """Return a new key and certificate for the coordinator.

        Args:
            hosts: names and addresses under which agents reach it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_host(host) for host in hosts]
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        return KeyPair(_pem(key), self._issue("coordinator", key.public_key(), names, usage))

    def _issue(
        self,
        common_name: str,
        public: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
    ) -> bytes:
        builder = (
            _builder(common_name[:_COMMON_NAME_LENGTH], public)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def requested_key(certificate_request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a certificate signing request.

    Raises:
        InputError: if it is malformed, not signed by that key, or the key is not on P-256.
    """
    try:
        request = x509.load_pem_x509_csr(certificate_request)
        key, sound = request.public_key(), request.is_signature_valid
    except Exception as error:  # of many types, for bytes from anybody
        raise InputError(f"Expected a certificate signing request in PEM, but: {error}.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InputError(
            f"Expected a key on the curve P-256 to be certified, but got {type(key).__name__}."
        )
    if not sound:
        raise InputError("Expected a request signed by its own key, but its signature is wrong.")
    return key


def _make_authority() -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    builder = _builder("Disinherit fleet", public)
    certificate = (
        builder.issuer_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Disinherit fleet")])
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(_pem(key), certificate.public_bytes(Encoding.PEM))


def _builder(common_name: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
