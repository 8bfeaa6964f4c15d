"""Append-only log of enrolments and revocations, kept beside the authority.

A file of JSON lines, written before the database.  At the start, the database gets the entries that
it lacks.  So a coordinator restored from a backup still refuses agents that were revoked since, and
accepts no token twice.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from disinherit.common.errors import StoreError
from disinherit.common.files import sync_folder
from disinherit.common.text import load_json
from disinherit.server.store.tables import AGENT_KEYS, ENROLMENT_TOKENS, REVOCATIONS

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The enrolment of a key.

    Attributes:
        owner: the owner of the agent.
        key: SHA-256 of the public key.
        token: SHA-256 of the token that it spent.
        at_us: time in microseconds since the epoch; later than the owner's last revocation.
    """

    owner: str
    key: str
    token: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """The end of an owner's access.

    Attributes:
        owner: the owner.
        tokens: SHA-256 of all its tokens.
        at_us: time in microseconds since the epoch.
    """

    owner: str
    tokens: tuple[str, ...]
    at_us: int


class AccessLog:
    """The log file.

    Args:
        path: the file; the first entry creates it.

    Raises:
        StoreError: from every method, if the file cannot be used or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, what: Enrolled | Revoked) -> None:
        """Append an entry and sync it to disk."""
        line = json.dumps({type(what).__name__.lower(): asdict(what)}).encode() + b"\n"
        try:
            new = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # A power failure may have left a partial line.
                file.seek(file.read().rfind(b"\n") + 1)
                file.truncate()
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self._path.parent)
        except OSError as error:
            raise StoreError(
                f"Expected to write the access log {str(self._path)!r}, but: {error.strerror}."
            ) from error

    def enter(self, db: Connection) -> None:
        """Add entries that the database lacks, and log a warning if there were any.

        Args:
            db: a write transaction.
        """
        entered = [what for what in self._read() if _enter(db, what)]
        revoked = sorted({what.owner for what in entered if isinstance(what, Revoked)})
        if entered:
            _LOG.warning(
                "The database is older than %s: added %d enrolments and revocations from it%s",
                self._path,
                len(entered),
                f", and the agents of {', '.join(revoked)} stay refused" if revoked else "",
            )

    def _read(self) -> Iterator[Enrolled | Revoked]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"Expected to read the access log {str(self._path)!r}, but: {error.strerror}."
            ) from error
        # Only the last line can be partial, after a power failure.
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            try:
                ((kind, values),) = load_json(line).items()
                if kind == "enrolled":
                    yield Enrolled(**values)
                else:
                    yield Revoked(values["owner"], tuple(values["tokens"]), values["at_us"])
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise StoreError(
                    f"Expected an enrolment or a revocation in line {number} of "
                    f"{str(self._path)!r}, but: {error}. Restore the file from a backup."
                ) from None


def _enter(db: Connection, what: Enrolled | Revoked) -> bool:
    """Add an entry, and return whether the database lacked it."""
    if isinstance(what, Enrolled):
        known = select(AGENT_KEYS.c.owner).where(AGENT_KEYS.c.key_sha256 == what.key)
        if db.scalar(known) is not None:
            return False
        row = {"key_sha256": what.key, "owner": what.owner, "enrolled_us": what.at_us}
        db.execute(insert(AGENT_KEYS).values(**row))
        _spend(db, what.owner, what.token, what.key)
        return True
    since = select(REVOCATIONS.c.revoked_us).where(REVOCATIONS.c.owner == what.owner)
    found = db.scalar(since)
    if found is not None and found >= what.at_us:
        return False
    if found is None:
        db.execute(insert(REVOCATIONS).values(owner=what.owner, revoked_us=what.at_us))
    else:
        row_of = update(REVOCATIONS).where(REVOCATIONS.c.owner == what.owner)
        db.execute(row_of.values(revoked_us=what.at_us))
    for token in what.tokens:
        _spend(db, what.owner, token)
    return True


def _spend(db: Connection, owner: str, token: str, key: str | None = None) -> None:
    """Mark a token as spent on a key, or as expired."""
    values: dict[str, str | int] = {"expires_us": 0} if key is None else {"key_sha256": key}
    row = update(ENROLMENT_TOKENS).where(ENROLMENT_TOKENS.c.token_sha256 == token)
    if not db.execute(row.values(**values)).rowcount:
        values = {"token_sha256": token, "owner": owner, "expires_us": 0, "key_sha256": key or ""}
        db.execute(insert(ENROLMENT_TOKENS).values(**values))
