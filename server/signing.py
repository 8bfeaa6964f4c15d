"""The coordinator's signing key, and the log's memory of every key that signed.

Which keys there were stands in the audit log itself, so what an old key signed can be verified as
long as the log is kept.
"""

import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from sqlalchemy import Connection, select

from disinherit.common.audit_lines import read_entry
from disinherit.common.dsse import Signer
from disinherit.common.errors import StoreError
from disinherit.common.private_files import write_private
from disinherit.server.audit import append
from disinherit.server.audit_words import AuditKind
from disinherit.server.tables import AUDIT


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that signs, or did.

    Attributes:
        key_id: SHA-256 of its SubjectPublicKeyInfo.
        public_pem: its public half, PEM.
        since_us: when it first did, in microseconds since the epoch.
    """

    key_id: str
    public_pem: bytes
    since_us: int


def open_signer(path: Path) -> Signer:
    """Return the key in a file; a new one, which only its owner may read, if there is no file.

    Args:
        path: the file, an Ed25519 private key in PEM without a password.

    Raises:
        StoreError: if it cannot be read or made, is another kind of key, or others may read it.
    """
    try:
        if not path.exists():
            key = Ed25519PrivateKey.generate()
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_private(path, pem)
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"Expected a signing key in {str(path)!r}, or a folder to make one in, but: "
            f"{error.strerror}."
        ) from error
    if mode & 0o077:
        raise StoreError(
            f"Expected a signing key that nobody else may read in {str(path)!r}, but its mode is "
            f"{mode:o}. Say: chmod 600 {path}."
        )
    try:
        loaded = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        cause = str(error).partition("\n")[0]
        raise StoreError(f"Expected a signing key in PEM in {str(path)!r}, but: {cause}.") from None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise StoreError(
            f"Expected an Ed25519 key in {str(path)!r}, but got a {type(loaded).__name__}."
        )
    return Signer(loaded)


def announce_key(db: Connection, signer: Signer) -> None:
    """Note in the log that a key signs from now on, unless it stands there already.

    Args:
        db: a transaction that writes.
        signer: has the key.
    """
    if all(known.key_id != signer.key_id for known in find_keys(db)):
        said = {"key_id": signer.key_id, "public_key": signer.public_pem.decode()}
        append(db, AuditKind.SIGNING_KEY, parameters=said)


def find_keys(db: Connection) -> list[KnownKey]:
    """Return all keys that sign or did, the oldest first."""
    query = select(AUDIT.c.entry).where(
        AUDIT.c.request_id == "", AUDIT.c.model_id == "", AUDIT.c.kind == AuditKind.SIGNING_KEY
    )
    entries = map(read_entry, db.scalars(query.order_by(AUDIT.c.sequence)))
    return [
        KnownKey(
            str(entry.event.parameters["key_id"]),
            str(entry.event.parameters["public_key"]).encode(),
            entry.event.time_us,
        )
        for entry in entries
    ]
