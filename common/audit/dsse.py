"""Signed statements: DSSE envelopes with Ed25519 signatures, and the keys that verify them.

Envelopes and signatures are those of `securesystemslib`.  A signature covers the payload together
with its type (https://github.com/secure-systems-lab/dsse), so it is never valid for another kind of
document.  A key's id is the SHA-256 of its SubjectPublicKeyInfo.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from disinherit.common.audit.canonical import canonical
from disinherit.common.errors import AuditError
from disinherit.common.text import load_json

_PEM = re.compile(
    rb"(?:Signs from: (\d+)\nSigns until: (\d*)\n)?"
    rb"(-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----)",
    re.DOTALL,
)


class Signer:
    """A signer with one private key.

    Args:
        key: the key.

    Attributes:
        key_id: id of the key in its signatures.
        public_pem: the public half, PEM.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        public = key.public_key()
        self._signer = CryptoSigner(key, _with_id(public))
        self.key_id: str = self._signer.public_key.keyid
        self.public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, payload_type: str, payload: bytes) -> Signature:
        """Return the signature over a payload of a type; signing is deterministic."""
        return Envelope(payload, payload_type, {}).sign(self._signer)

    def envelope(self, payload_type: str, payload: bytes) -> Envelope:
        """Return a payload with its signature."""
        return enclose(payload_type, payload, [self.sign(payload_type, payload)])


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key with the period in which it signs.

    Attributes:
        key: the key.
        since_us: start of the period, in microseconds since the epoch.
        until_us: end of the period, when another key replaces it; 0 if none does.
    """

    key: SSlibKey
    since_us: int = 0
    until_us: int = 0

    def signs_at(self, time_us: int) -> bool:
        """Whether the key signs at this time."""
        return self.since_us <= time_us and (not self.until_us or time_us < self.until_us)


def key_block(public_pem: bytes, since_us: int, until_us: int) -> bytes:
    """Return a public key in PEM, after lines with the period in which it signs.

    Args:
        public_pem: the key.
        since_us: start of the period, in microseconds since the epoch.
        until_us: end of the period, when another key replaces it; 0 if none does.
    """
    until = str(until_us) if until_us else ""
    return f"Signs from: {since_us}\nSigns until: {until}\n".encode() + public_pem


class TrustedKeys:
    """The public keys that a verifier trusts.

    Args:
        keys: the keys; one may occur several times, with different periods.
    """

    def __init__(self, keys: Iterable[TrustedKey]) -> None:
        self._keys: dict[str, list[TrustedKey]] = {}
        for one in keys:
            self._keys.setdefault(one.key.keyid, []).append(one)

    @classmethod
    def from_pem(cls, data: bytes) -> "TrustedKeys":
        """Read one or more public keys in PEM, each after the lines with its period.

        Raises:
            AuditError: if the data holds no key, or a key that is not Ed25519.
        """
        keys = []
        for since, until, block in _PEM.findall(data):
            try:
                key = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm) as error:
                raise AuditError(f"Expected public keys in PEM, but: {error}.") from None
            if not isinstance(key, Ed25519PublicKey):
                raise AuditError(f"Expected Ed25519 public keys, but got a {type(key).__name__}.")
            keys.append(TrustedKey(_with_id(key), int(since or 0), int(until or 0)))
        if not keys:
            raise AuditError(
                "Expected a public key in PEM, but got none. Get the coordinator's with: "
                "disinherit audit keys --out FILE."
            )
        return cls(keys)

    def knows(self, key_id: str) -> bool:
        """Whether a key is among them."""
        return key_id in self._keys

    def find_fault(self, envelope: Envelope, signed_us: int | None = None) -> str | None:
        """Return why no trusted key signed an envelope; `None` if one did.

        Args:
            envelope: the envelope.
            signed_us: time of signing according to the payload; `None` without one.
        """
        signers = list(envelope.signatures)
        if not signers:
            return "Expected a signature, but there is none."
        known = [one for one in signers if one in self._keys]
        if not known:
            trusted = ", ".join(self._keys)
            return f"Expected a signature by key {trusted}, but it is by {', '.join(signers)}."
        try:
            (found,) = envelope.verify([self._keys[one][0].key for one in known], threshold=1)
        except VerificationError:
            return f"Expected a signature that key {known[0]} made, but it made none like this."
        if signed_us is None or any(key.signs_at(signed_us) for key in self._keys[found]):
            return None
        return (
            f"Expected a signature by a key that signed then, but key {found} signed at "
            f"{signed_us} us, when another one had taken its place."
        )


def _with_id(key: Ed25519PublicKey) -> SSlibKey:
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SSlibKey.from_crypto(key, hashlib.sha256(info).hexdigest())


def enclose(payload_type: str, payload: bytes, signatures: Iterable[Signature]) -> Envelope:
    """Return a payload of a type with signatures, which are not verified."""
    return Envelope(payload, payload_type, {one.keyid: one for one in signatures})


def signature_of(key_id: str, value: bytes) -> Signature:
    """Return the signature with this value and key id."""
    return Signature(key_id, value.hex())


def signature_values(envelope: Envelope) -> list[dict[str, str]]:
    """Return the signatures in an envelope as JSON values."""
    values: list[dict[str, str]] = envelope.to_dict()["signatures"]
    return values


def read_signatures(values: Any) -> tuple[Signature, ...]:
    """Return the signatures in JSON values.

    Raises:
        AuditError: if the values are no signatures.
    """
    try:
        envelope = _from_values({"payload": "", "payloadType": "", "signatures": values})
    except _MALFORMED:
        raise AuditError("Expected signatures with keyid and sig, but got others.") from None
    return tuple(envelope.signatures.values())


def envelope_line(envelope: Envelope) -> bytes:
    """Return an envelope as canonical JSON."""
    return canonical(envelope.to_dict())


def read_envelope(data: bytes) -> Envelope:
    """Return the envelope in a JSON text, without verifying its signatures.

    Raises:
        AuditError: if the text is no envelope.
    """
    try:
        return _from_values(load_json(data.decode()))
    except _MALFORMED:
        raise AuditError(
            "Expected a DSSE envelope (payload, payloadType, signatures), but got something else."
        ) from None


_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)
"""Errors of the library at values that are no envelope, besides its own."""


def _from_values(values: Any) -> Envelope:
    """Return an envelope without unsigned or unknown keys of its signatures."""
    envelope = Envelope.from_dict(values)
    for name in (envelope.payload_type, *envelope.signatures):
        name.encode()  # a text that can be signed
    known = [Signature(one.keyid, one.signature) for one in envelope.signatures.values()]
    return enclose(envelope.payload_type, envelope.payload, known)
