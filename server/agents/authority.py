"""Certificate authority of a fleet: certificates of the agents and of the coordinator.

All certificates are valid from 1970 on: a device with a slow clock must still reach the
coordinator.  Certificates of the authority and of agents do not expire (RFC 5280, 4.1.2.5): the
coordinator, with a correct clock, decides on access at each call.  Certificates of the coordinator
expire after ninety days, since devices check no revocations; they are renewed long before.
"""

import datetime
import ipaddress
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from disinherit.common.errors import InputError, StoreError
from disinherit.common.files import write_atomic, write_private
from disinherit.common.graph.identifiers import check_id

OWNER_URN = "urn:disinherit:owner:"
"""Prefix of the alternative name in an agent's certificate, before the owner's name."""

_FLEET = "Disinherit fleet"
_BEGIN = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
SERVER_DAYS = 90
"""Validity of a certificate of the coordinator."""

RENEWED_DAYS = 60
"""Remaining days below which it is renewed."""

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
        folder: the folder of both files.

    Attributes:
        folder: the folder of both files.
        certificate: the authority's own certificate, PEM.

    Raises:
        StoreError: if the key or the certificate is malformed.
    """

    def __init__(self, pair: KeyPair, folder: Path) -> None:
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
        self.folder = folder
        self.certificate = pair.certificate

    @classmethod
    def open(cls, folder: Path) -> "CertificateAuthority":
        """Return the authority in a folder; create it if missing.

        Args:
            folder: holds `ca.key`, readable only by the service's user, and `ca.pem`, which every
                agent needs.

        Raises:
            StoreError: if one of the two files is missing or damaged.
            CheckpointError: if the folder cannot be written to.
        """
        key, certificate = folder / "ca.key", folder / "ca.pem"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not key.exists():
                made = _make_authority()
                # Write the certificate first: if the key exists, both do.
                write_atomic(certificate, made.certificate)
                write_private(key, made.key)
            authority = cls(KeyPair(key.read_bytes(), certificate.read_bytes()), folder)
            if not authority.is_strict:
                # Same key and name: both certificates verify what the key signed.
                write_atomic(certificate, _certify(authority._key))
                authority = cls(KeyPair(key.read_bytes(), certificate.read_bytes()), folder)
            return authority
        except OSError as error:
            raise StoreError(
                f"Expected the fleet's certificate authority in {folder}, but got: {error}."
            ) from error

    @property
    def is_strict(self) -> bool:
        """Whether its certificate has the key usage extension, which strict readers require."""
        try:
            self._certificate.extensions.get_extension_for_class(x509.KeyUsage)
        except x509.ExtensionNotFound:
            return False
        return True

    @property
    def trusted(self) -> bytes:
        """Its certificate and those in `former.pem`, which agents may still use, PEM.

        Raises:
            StoreError: if that file cannot be read.
        """
        former = self.folder / "former.pem"
        try:
            return self.certificate + (former.read_bytes() if former.exists() else b"")
        except OSError as error:
            raise StoreError(
                f"Expected certificates of former authorities in {str(former)!r}, but: "
                f"{error.strerror}."
            ) from error

    def sign(self, certificate_request: bytes, owner: str) -> bytes:
        """Return a client certificate for an owner's agent, PEM.

        Args:
            certificate_request: PEM; only its public key is used.
            owner: the owner of the agent.

        Raises:
            InputError: if the request is malformed, not signed by its key, or its key is not on
                the curve P-256; or if the owner's name is malformed.
        """
        public = requested_key(certificate_request)
        name = x509.UniformResourceIdentifier(OWNER_URN + check_id(owner, "owner name", InputError))
        return self._issue(owner, public, [name], ExtendedKeyUsageOID.CLIENT_AUTH, _END)

    def issue_server(self, hosts: Sequence[str]) -> KeyPair:
        """Return a new key and certificate for the coordinator, valid for ninety days.

        Args:
            hosts: host names and addresses of the coordinator.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_host(host) for host in hosts]
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        end = self._now() + datetime.timedelta(days=SERVER_DAYS)
        public = key.public_key()
        return KeyPair(_pem(key), self._issue("coordinator", public, names, usage, end))

    def is_due(self, certificate: bytes) -> bool:
        """Return whether a certificate of the coordinator should be renewed.

        Returns `False` for a certificate of another authority, or an unreadable one.
        """
        try:
            found = x509.load_pem_x509_certificate(certificate)
            found.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        left = found.not_valid_after_utc - self._now()
        day = datetime.timedelta(days=1)
        return not RENEWED_DAYS * day < left <= SERVER_DAYS * day

    def _now(self) -> datetime.datetime:
        """Return the time, or the latest write time of the coordinator's files if that is later.

        A slow clock must not issue certificates that are already expired for all others.
        """
        times = [time.time()]
        for folder in (self.folder, self.folder.parent):
            for file in folder.iterdir():
                with suppress(OSError):  # deleted meanwhile
                    times.append(file.stat().st_mtime)
        return datetime.datetime.fromtimestamp(max(times), datetime.UTC)

    def _issue(
        self,
        common_name: str,
        public: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        end: datetime.datetime,
    ) -> bytes:
        builder = (
            _builder(common_name[:_COMMON_NAME_LENGTH], public, end)
            .issuer_name(self._certificate.subject)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def fits(pair: KeyPair) -> bool:
    """Return whether a certificate belongs to a private key; `False` if one is unreadable."""
    try:
        key = load_pem_private_key(pair.key, None)
        certificate = x509.load_pem_x509_certificate(pair.certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return bool(key.public_key() == certificate.public_key())


def requested_key(certificate_request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a certificate signing request.

    Raises:
        InputError: if it is malformed, not signed by that key, or the key is not on P-256.
    """
    try:
        request = x509.load_pem_x509_csr(certificate_request)
        key, sound = request.public_key(), request.is_signature_valid
    except Exception as error:  # untrusted bytes raise many types
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
    return KeyPair(_pem(key), _certify(key))


def _certify(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return an authority's own certificate, PEM."""
    public = key.public_key()
    certificate = (
        _builder(_FLEET, public, _END)
        .issuer_name(_name(_FLEET))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def _key_usage(**allowed: bool) -> x509.KeyUsage:
    nothing = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**nothing, **allowed})


def _builder(
    common_name: str, public: ec.EllipticCurvePublicKey, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(end)
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
