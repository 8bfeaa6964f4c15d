"""The coordinator's signing key, and the log's memory of every key that signed.

Which keys there were stands in the audit log itself, so what an old key signed can be verified as
long as the log is kept.
"""

import logging
import stat
from dataclasses import dataclass, replace
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

from disinherit.common.audit.dsse import Signer
from disinherit.common.audit.export import read_entry
from disinherit.common.errors import InputError, StoreError
from disinherit.common.files import write_private
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.database import Database
from disinherit.server.store.tables import AUDIT

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that signs, or did.

    Attributes:
        key_id: SHA-256 of its SubjectPublicKeyInfo.
        public_pem: its public half, PEM.
        since_us: from when on it did, in microseconds since the epoch.
        until_us: from when on another one did in its place; 0 if none does.
        revoked_us: when a person said that nothing it signed is worth anything; 0 if nobody did.
    """

    key_id: str
    public_pem: bytes
    since_us: int
    until_us: int = 0
    revoked_us: int = 0


def key_file(database: Database, named: Path | None) -> Path | None:
    """Return where a coordinator's key is: beside an SQLite file, unless it is named.

    Args:
        database: the coordinator's.
        named: as its configuration says.
    """
    if named is None and database.file is not None:
        return database.file.with_name(f"{database.file.name}.signing.pem")
    return named


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
    """Note in the log that a key signs from now on, unless it does already.

    Args:
        db: a transaction that writes.
        signer: has the key.

    Raises:
        StoreError: if the key was revoked.
    """
    keys = find_keys(db)
    if any(known.key_id == signer.key_id and known.revoked_us for known in keys):
        raise StoreError(
            f"Expected a signing key that is good, but {signer.key_id} was revoked. Remove its "
            "file, or name another one under [signing], and start again."
        )
    if keys and keys[-1].key_id == signer.key_id:
        return
    if keys:
        _LOG.warning(
            "Another key signs from now on: %s, and not %s. If nobody meant that, the key's file "
            "is gone: restore it",
            signer.key_id,
            keys[-1].key_id,
        )
    said = {"key_id": signer.key_id, "public_key": signer.public_pem.decode()}
    append(db, AuditKind.SIGNING_KEY, parameters=said)


def revoke_key(db: Connection, key_id: str, actor: str) -> None:
    """Note in the log that nothing that a key signed is worth anything.

    Args:
        db: a transaction that writes.
        key_id: the key.
        actor: who says so.

    Raises:
        InputError: if no such key signed.
    """
    keys = {known.key_id: known for known in find_keys(db)}
    if key_id not in keys:
        raise InputError(
            f"Expected the id of a key that signed, one of {', '.join(keys)}, but got {key_id!r}."
        )
    if not keys[key_id].revoked_us:
        append(db, AuditKind.KEY_REVOKED, actor, parameters={"key_id": key_id})


def find_keys(db: Connection) -> list[KnownKey]:
    """Return all keys that sign or did, the oldest first; one that did again stands there again."""
    query = select(AUDIT.c.entry).where(
        AUDIT.c.request_id == "",
        AUDIT.c.model_id == "",
        AUDIT.c.kind.in_([AuditKind.SIGNING_KEY, AuditKind.KEY_REVOKED]),
    )
    keys: list[KnownKey] = []
    revoked: dict[str, int] = {}
    for event in (read_entry(line).event for line in db.scalars(query.order_by(AUDIT.c.sequence))):
        id = str(event.parameters["key_id"])
        if event.kind == AuditKind.KEY_REVOKED:
            revoked[id] = event.time_us
            continue
        if keys:
            keys[-1] = replace(keys[-1], until_us=event.time_us)
        keys.append(KnownKey(id, str(event.parameters["public_key"]).encode(), event.time_us))
    return [replace(key, revoked_us=revoked.get(key.key_id, 0)) for key in keys]
