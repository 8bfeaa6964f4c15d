"""Revocation of certificates, and keys that enrolled after it.

Agents' certificates do not end (`disinherit.server.agents.authority`), so one that is lost has to
be refused by name.  Once an owner's access was revoked, only keys that enrolled afterwards are let
in: also one of which nothing is known, as after a restored backup, is refused then.
"""

import hashlib
import logging
import threading

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection, delete, insert, select

from disinherit.common.errors import KeyRefusedError, StoreError
from disinherit.server.agents.hub import Hub
from disinherit.server.store.database import Database
from disinherit.server.store.tables import AGENT_KEYS, REVOCATIONS

_SWEEP_SECONDS = 2.0
_log = logging.getLogger(__name__)


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key."""
    data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(data).hexdigest()


def certified_key(certificate: bytes) -> str:
    """Return the SHA-256 of the public key in a certificate, PEM, that TLS has verified."""
    key = x509.load_pem_x509_certificate(certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey), type(key)  # the authority signs no other
    return key_digest(key)


def is_known(db: Connection, key: str) -> bool:
    """Return whether a key has enrolled."""
    query = select(AGENT_KEYS.c.owner).where(AGENT_KEYS.c.key_sha256 == key)
    return db.execute(query).first() is not None


def enter_key(db: Connection, owner: str, key: str, now_us: int) -> int:
    """Note that a key has enrolled for an owner, and return when it did.

    Raises:
        KeyRefusedError: if it was revoked, or enrolled for another owner.
    """
    row = db.execute(select(AGENT_KEYS).where(AGENT_KEYS.c.key_sha256 == key)).first()
    if row is None:
        # Later than any revocation, even if the clock was set back since.
        enrolled = max(now_us, _revoked_us(db, owner) + 1)
        db.execute(insert(AGENT_KEYS).values(key_sha256=key, owner=owner, enrolled_us=enrolled))
        return enrolled
    if row.owner == owner and row.enrolled_us > _revoked_us(db, owner):
        return int(row.enrolled_us)
    what = "was revoked" if row.owner == owner else "is another owner's"
    raise KeyRefusedError(
        f"Expected a key that is good, but this one {what}. Delete agent.key in the agent's state "
        "folder, and enrol again with a token that was not spent."
    )


def revoke(db: Connection, owner: str, now_us: int) -> int:
    """Refuse all keys that an owner's agents have enrolled with so far, and return from when on."""
    latest = select(AGENT_KEYS.c.enrolled_us).where(AGENT_KEYS.c.owner == owner)
    revoked: int = max([now_us, *db.scalars(latest)])
    db.execute(delete(REVOCATIONS).where(REVOCATIONS.c.owner == owner))
    db.execute(insert(REVOCATIONS).values(owner=owner, revoked_us=revoked))
    return revoked


def is_revoked(db: Connection, owner: str, key: str) -> bool:
    """Return whether an owner's key is refused."""
    revoked = _revoked_us(db, owner)
    if revoked < 0:
        return False
    query = select(AGENT_KEYS.c.enrolled_us).where(
        AGENT_KEYS.c.key_sha256 == key, AGENT_KEYS.c.owner == owner
    )
    enrolled = db.execute(query).scalar()
    return enrolled is None or enrolled <= revoked


def _revoked_us(db: Connection, owner: str) -> int:
    query = select(REVOCATIONS.c.revoked_us).where(REVOCATIONS.c.owner == owner)
    found = db.execute(query).scalar()
    return -1 if found is None else int(found)


class Sweep:
    """Ends the connections of agents that are refused by now, in a thread of its own.

    Args:
        database: the coordinator's.
        hub: knows who is connected.
        seconds: between two looks.
    """

    def __init__(self, database: Database, hub: Hub, seconds: float = _SWEEP_SECONDS) -> None:
        self._database = database
        self._hub = hub
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revocation", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self._look()
            except StoreError as error:
                _log.warning("who is refused by now cannot be seen: %s", error)

    def _look(self) -> None:
        sessions = self._hub.sessions()
        if not sessions:
            return
        with self._database.reading() as db:
            refused = set(db.scalars(select(REVOCATIONS.c.owner)))
            for session in sessions:
                if session.owner in refused and is_revoked(db, session.owner, session.key):
                    _log.info("the agent of %s is refused from now on", session.owner)
                    self._hub.refuse(session)
