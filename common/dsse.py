"""Signed statements: DSSE envelopes with Ed25519 signatures, and the keys that verify them.

What is signed is not a payload alone but its pre-authentication encoding with its type
(https://github.com/secure-systems-lab/dsse), so a signature over one kind of document is never one
over another kind.  A key is known by the SHA-256 of its SubjectPublicKeyInfo.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from disinherit.common.audit_chain import canonical
from disinherit.common.errors import AuditError
from disinherit.common.parsing import load_json

_PEM = re.compile(
    rb"(?:Signs from: (\d+)\nSigns until: (\d*)\n)?"
    rb"(-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature, and by which key it says it is.

    Attributes:
        key_id: SHA-256 of the key's SubjectPublicKeyInfo, hexadecimal.
        value: the signature, 64 bytes.
    """

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its signatures.

    Attributes:
        payload_type: what the payload is, a media type.
        payload: the very bytes that were signed.
        signatures: over both.
    """

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]


class Signer:
    """Signs with one private key.

    Args:
        key: the key.

    Attributes:
        key_id: by which its signatures name it.
        public_pem: the public half, PEM.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        public = key.public_key()
        self.key_id = key_id(public)
        self.public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, payload_type: str, payload: bytes) -> Signature:
        """Return the signature over a payload of a type; the same again gives the same."""
        return Signature(self.key_id, self._key.sign(encoded(payload_type, payload)))

    def envelope(self, payload_type: str, payload: bytes) -> Envelope:
        """Return a payload with its signature."""
        return Envelope(payload_type, payload, (self.sign(payload_type, payload),))


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, and when what it signed is worth something.

    Attributes:
        key: the key.
        since_us: from when on it signed, in microseconds since the epoch.
        until_us: from when on another one signed in its place; 0 if none does.
    """

    key: Ed25519PublicKey
    since_us: int = 0
    until_us: int = 0

    def signs_at(self, time_us: int) -> bool:
        """Whether it signed at some time."""
        return self.since_us <= time_us and (not self.until_us or time_us < self.until_us)


def key_block(public_pem: bytes, since_us: int, until_us: int) -> bytes:
    """Return a public key in PEM with the lines before it that say when it signed.

    Args:
        public_pem: the key.
        since_us: from when on, in microseconds since the epoch.
        until_us: from when on another one signed in its place; 0 if none does.
    """
    until = str(until_us) if until_us else ""
    return f"Signs from: {since_us}\nSigns until: {until}\n".encode() + public_pem


class TrustedKeys:
    """The public keys that somebody trusts.

    Args:
        keys: the keys; one may stand there several times, with different times.
    """

    def __init__(self, keys: Iterable[TrustedKey]) -> None:
        self._keys: dict[str, list[TrustedKey]] = {}
        for one in keys:
            self._keys.setdefault(key_id(one.key), []).append(one)

    @classmethod
    def from_pem(cls, data: bytes) -> "TrustedKeys":
        """Read one or more public keys, one PEM block after the other, with times before each.

        Raises:
            AuditError: if there is none, or one is no Ed25519 key.
        """
        keys = []
        for since, until, block in _PEM.findall(data):
            try:
                key = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm) as error:
                raise AuditError(f"Expected public keys in PEM, but: {error}.") from None
            if not isinstance(key, Ed25519PublicKey):
                raise AuditError(f"Expected Ed25519 public keys, but got a {type(key).__name__}.")
            keys.append(TrustedKey(key, int(since or 0), int(until or 0)))
        if not keys:
            raise AuditError(
                "Expected a public key in PEM, but got none. Get the coordinator's with: "
                "disinherit audit keys --out FILE."
            )
        return cls(keys)

    def knows(self, key_id: str) -> bool:
        """Whether a key is among them."""
        return key_id in self._keys

    def find_fault(
        self,
        payload_type: str,
        payload: bytes,
        signatures: Sequence[Signature],
        signed_us: int | None = None,
    ) -> str | None:
        """Return why none of the signatures is by a trusted key; `None` if one is.

        Args:
            payload_type: what the payload is.
            payload: what should be signed.
            signatures: the signatures.
            signed_us: when it was signed, as the payload says; `None` if it does not.
        """
        if not signatures:
            return "Expected a signature, but there is none."
        known = [one for one in signatures if one.key_id in self._keys]
        if not known:
            others = ", ".join(one.key_id for one in signatures)
            trusted = ", ".join(self._keys)
            return f"Expected a signature by key {trusted}, but it is by {others}."
        data = encoded(payload_type, payload)
        for one in known:
            ranges = self._keys[one.key_id]
            try:
                ranges[0].key.verify(one.value, data)
            except InvalidSignature:
                continue
            if signed_us is None or any(key.signs_at(signed_us) for key in ranges):
                return None
            return (
                f"Expected a signature by a key that signed then, but key {one.key_id} signed at "
                f"{signed_us} us, when another one had taken its place."
            )
        return f"Expected a signature that key {known[0].key_id} made, but it made none like this."


def key_id(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of a key's SubjectPublicKeyInfo, hexadecimal."""
    info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def encoded(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding.

    Example:
        >>> encoded("http://example.com/HelloWorld", b"hello world")
        b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def signature_values(signatures: Iterable[Signature]) -> list[dict[str, str]]:
    """Return signatures as JSON values, as an envelope has them."""
    return [
        {"keyid": one.key_id, "sig": base64.b64encode(one.value).decode()} for one in signatures
    ]


def read_signatures(values: Any) -> tuple[Signature, ...]:
    """Return the signatures that JSON values stand for.

    Raises:
        AuditError: if they are none.
    """
    try:
        return tuple(
            Signature(str(one["keyid"]), base64.b64decode(one["sig"], validate=True))
            for one in values
        )
    except (TypeError, KeyError, ValueError, binascii.Error):
        raise AuditError("Expected signatures with keyid and sig, but got others.") from None


def envelope_line(envelope: Envelope) -> bytes:
    """Return an envelope as canonical JSON."""
    return canonical(
        {
            "payload": base64.b64encode(envelope.payload).decode(),
            "payloadType": envelope.payload_type,
            "signatures": signature_values(envelope.signatures),
        }
    )


def read_envelope(data: bytes) -> Envelope:
    """Return the envelope that JSON stands for, whatever its signatures are worth.

    Raises:
        AuditError: if it is none.
    """
    try:
        values = load_json(data.decode())
        payload = base64.b64decode(values["payload"], validate=True)
        kind, signatures = values["payloadType"], values["signatures"]
        if not isinstance(kind, str):
            raise TypeError
    except (TypeError, KeyError, ValueError, RecursionError):
        raise AuditError(
            "Expected a DSSE envelope (payload, payloadType, signatures), but got something else."
        ) from None
    return Envelope(kind, payload, read_signatures(signatures))
