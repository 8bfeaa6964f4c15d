"""Revocation of agents' certificates, by owner.

Agents' certificates do not expire (`disinherit.server.agents.authority`), so a lost one has to be
revoked.  After a revocation, every key of the owner that enrolled before it, or is unknown, is
refused.  A key may be unknown after a restored backup.
"""

import functools
import hashlib
import logging

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection, bindparam, delete, insert, select

from disinherit.common.errors import KeyRefusedError, StoreError
from disinherit.server.agents.hub import Hub
from disinherit.server.recurring import Recurring
from disinherit.server.store.database import Database
from disinherit.server.store.queries import Query
from disinherit.server.store.tables import AGENT_KEYS, REVOCATIONS

_SWEEP_SECONDS = 2.0
_REVOKED = Query(select(REVOCATIONS.c.revoked_us).where(REVOCATIONS.c.owner == bindparam("owner")))
_log = logging.getLogger(__name__)


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key."""
    data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(data).hexdigest()


def certified_key(certificate: bytes) -> str:
    """Return the SHA-256 of the public key in a certificate (PEM) verified by TLS."""
    key = x509.load_pem_x509_certificate(certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey), type(key)  # the authority signs no other
    return key_digest(key)


def is_known(db: Connection, key: str) -> bool:
    """Return whether a key has enrolled."""
    query = select(AGENT_KEYS.c.owner).where(AGENT_KEYS.c.key_sha256 == key)
    return db.execute(query).first() is not None


def enter_key(db: Connection, owner: str, key: str, now_us: int) -> int:
    """Record the enrolment of a key for an owner, and return its time.

    Raises:
        KeyRefusedError: if the key was revoked, or enrolled for another owner.
    """
    row = db.execute(select(AGENT_KEYS).where(AGENT_KEYS.c.key_sha256 == key)).first()
    if row is None:
        # Later than any revocation, even if the clock was set back.
        enrolled = max(now_us, _revoked_us(db, owner) + 1)
        db.execute(insert(AGENT_KEYS).values(key_sha256=key, owner=owner, enrolled_us=enrolled))
        return enrolled
    if row.owner == owner and row.enrolled_us > _revoked_us(db, owner):
        return int(row.enrolled_us)
    what = "was revoked" if row.owner == owner else "is another owner's"
    raise KeyRefusedError(
        f"Expected a valid key, but this one {what}. Delete agent.key in the agent's state folder, "
        "and enrol again with an unspent token."
    )


def revoke(db: Connection, owner: str, now_us: int) -> int:
    """Revoke all enrolled keys of an owner, and return the time of the revocation."""
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
    found = _REVOKED.scalar(db, {"owner": owner})
    return -1 if found is None else int(found)


def keep_out(database: Database, hub: Hub) -> Recurring:
    """Start the thread that ends the connections of revoked agents.

    Args:
        database: the coordinator's database.
        hub: the connected agents.
    """
    work = functools.partial(refuse_revoked, database, hub)
    return Recurring(work, "revocation", _SWEEP_SECONDS)


def refuse_revoked(database: Database, hub: Hub) -> None:
    """End the connections of revoked agents once.

    Args:
        database: the coordinator's database.
        hub: the connected agents.
    """
    if not hub.present():
        return
    try:
        with database.reading() as db:
            for session in hub.sessions(db.scalars(select(REVOCATIONS.c.owner)).all()):
                if is_revoked(db, session.owner, session.key):
                    _log.info("disconnected the revoked agent of %s", session.owner)
                    hub.refuse(session)
    except StoreError as error:
        _log.warning("cannot check for revoked agents: %s", error)
