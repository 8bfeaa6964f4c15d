"""The coordinator's signing key, and the record of all its keys in the audit log.

The log holds every public key, so signatures by old keys can be verified as long as the log exists.
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
from disinherit.common.errors import InputError, StoreError
from disinherit.common.files import write_private
from disinherit.server.store.audit import append
from disinherit.server.store.audit_events import AuditKind
from disinherit.server.store.audit_lines import read_line
from disinherit.server.store.database import Database
from disinherit.server.store.queries import Query
from disinherit.server.store.tables import AUDIT, IN_ORDER

_LOG = logging.getLogger(__name__)
_KEYS = Query(
    select(AUDIT.c.entry)
    .where(
        AUDIT.c.request_id == "",
        AUDIT.c.model_id == "",
        AUDIT.c.kind.in_([AuditKind.SIGNING_KEY.value, AuditKind.KEY_REVOKED.value]),
    )
    .order_by(IN_ORDER)
)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A present or former signing key.

    Attributes:
        key_id: SHA-256 of its SubjectPublicKeyInfo.
        public_pem: its public half, PEM.
        since_us: when it began to sign, in microseconds since the epoch.
        until_us: when another key replaced it; 0 if it is current.
        revoked_us: when a person revoked it, with all that it signed; 0 if never.
    """

    key_id: str
    public_pem: bytes
    since_us: int
    until_us: int = 0
    revoked_us: int = 0


def key_file(database: Database, named: Path | None) -> Path | None:
    """Return the file of a coordinator's key: by default beside its SQLite file.

    Args:
        database: the coordinator's database.
        named: the file in its configuration, if any.
    """
    if named is None and database.file is not None:
        return database.file.with_name(f"{database.file.name}.signing.pem")
    return named


def open_signer(path: Path) -> Signer:
    """Return the key in a file; create the file, readable by its user only, if it is missing.

    Args:
        path: the file, an Ed25519 private key in PEM without a password.

    Raises:
        StoreError: if it cannot be read or created, holds another kind of key, or other users may
            read it.
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
            f"{mode:o}. Run: chmod 600 {path}."
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
    """Log that a key signs from now on, unless it is the current key.

    Args:
        db: a transaction that writes.
        signer: the key.

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
            "Another key signs from now on: %s, not %s. If that was not intended, the file of the "
            "key is gone: restore it",
            signer.key_id,
            keys[-1].key_id,
        )
    details = {"key_id": signer.key_id, "public_key": signer.public_pem.decode()}
    append(db, AuditKind.SIGNING_KEY, parameters=details)


def revoke_key(db: Connection, key_id: str, actor: str) -> None:
    """Log the revocation of a key, with all that it signed.

    Args:
        db: a transaction that writes.
        key_id: the key.
        actor: who revokes it.

    Raises:
        InputError: if no key with this id ever signed.
    """
    keys = {known.key_id: known for known in find_keys(db)}
    if key_id not in keys:
        raise InputError(
            f"Expected the id of a key that signed, one of {', '.join(keys)}, but got {key_id!r}."
        )
    if not keys[key_id].revoked_us:
        append(db, AuditKind.KEY_REVOKED, actor, parameters={"key_id": key_id})


def find_keys(db: Connection) -> list[KnownKey]:
    """Return present and former keys, the oldest first; a key that was used twice appears twice."""
    keys: list[KnownKey] = []
    revoked: dict[str, int] = {}
    for event in (read_line(line).event for line in _KEYS.scalars(db, {})):
        id = str(event.parameters["key_id"])
        if event.kind == AuditKind.KEY_REVOKED:
            revoked[id] = event.time_us
            continue
        if keys:
            keys[-1] = replace(keys[-1], until_us=event.time_us)
        keys.append(KnownKey(id, str(event.parameters["public_key"]).encode(), event.time_us))
    return [replace(key, revoked_us=revoked.get(key.key_id, 0)) for key in keys]
