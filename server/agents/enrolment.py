"""Enrolment of agents: a certificate in exchange for a one-time token.

The database has only the hash of a token, with its owner and expiry time.  A token is spent on one
public key: the same key may enrol again, for instance after a lost answer; any other is refused.
Enrolments and revocations are also recorded in `disinherit.server.agents.access_log`.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import insert, or_, select, update

from disinherit.common.errors import InputError, KeyRefusedError, TokenError
from disinherit.common.graph.identifiers import check_id, check_owner
from disinherit.server.agents import access_log, revocation
from disinherit.server.agents.access_log import AccessLog
from disinherit.server.agents.authority import CertificateAuthority, requested_key
from disinherit.server.store.database import Database
from disinherit.server.store.schema import prepare
from disinherit.server.store.tables import ENROLMENT_TOKENS

TOKEN_SECONDS = 24 * 3600.0
"""Default validity of a token."""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """The certificate issued for a token.

    Attributes:
        owner: the owner of the agent.
        certificate: PEM.
    """

    owner: str
    certificate: bytes


class Enrolment:
    """Issues tokens, and certificates for them.

    Args:
        database: the coordinator's database.
        authority: signs the certificates.
        clock: seconds since the epoch.

    Raises:
        StoreError: from every method, if the database or the access log cannot be used.
    """

    def __init__(
        self,
        database: Database,
        authority: CertificateAuthority,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._authority = authority
        self._clock = clock
        self._log = AccessLog(authority.folder / "access.jsonl")
        prepare(database)
        with database.writing() as db:
            self._log.enter(db)

    def invite(self, owner: str, seconds: float = TOKEN_SECONDS) -> str:
        """Return a new token for an owner's agent; it cannot be read back later.

        Args:
            owner: the owner.
            seconds: its validity.

        Raises:
            InputError: if the owner's name is malformed.
            StoreError: if the database cannot be used.
        """
        token = secrets.token_urlsafe(32)
        row = {
            "token_sha256": _sha256(token.encode()),
            "owner": check_owner(owner),
            "expires_us": int((self._clock() + seconds) * 1e6),
        }
        with self._database.writing() as db:
            db.execute(insert(ENROLMENT_TOKENS).values(**row))
        return token

    def enrol(self, token: str, certificate_request: bytes) -> IssuedCertificate:
        """Spend a token on a certificate.

        Args:
            token: a token from `invite`.
            certificate_request: PEM.

        Raises:
            TokenError: if the token is unknown, expired, or spent on another key.
            InputError: if the request cannot be signed, or the key was revoked or belongs to
                another owner; the token remains valid.
            StoreError: if the database cannot be used.
        """
        key = revocation.key_digest(requested_key(certificate_request))
        owner = self._spend(_sha256(token.encode()), key)
        return IssuedCertificate(owner, self._authority.sign(certificate_request, owner))

    def revoke(self, owner: str) -> None:
        """Refuse the current certificates and tokens of an owner from now on.

        Args:
            owner: the owner; it may be invited again, for a new key.

        Raises:
            InputError: if it was never invited.
            StoreError: if the database cannot be used.
        """
        now = self._now_us()
        with self._database.writing() as db:
            of_owner = ENROLMENT_TOKENS.c.owner == check_id(owner, "owner name", InputError)
            keys = db.scalars(select(ENROLMENT_TOKENS.c.key_sha256).where(of_owner)).all()
            if not keys:
                raise InputError(f"Expected an owner that was invited, but got {owner!r}.")
            for key in filter(None, keys):  # older releases did not record enrolled keys
                with suppress(KeyRefusedError):
                    revocation.enter_key(db, owner, key, now)
            db.execute(update(ENROLMENT_TOKENS).where(of_owner).values(expires_us=0))
            tokens = db.scalars(select(ENROLMENT_TOKENS.c.token_sha256).where(of_owner)).all()
            since = revocation.revoke(db, owner, now)
            self._log.append(access_log.Revoked(owner, tuple(tokens), since))

    def is_revoked(self, owner: str, key: str) -> bool:
        """Return whether an agent's certificate is refused.

        Args:
            owner: the owner named in the certificate.
            key: SHA-256 of its public key.

        Raises:
            StoreError: if the database cannot be used.
        """
        with self._database.reading() as db:
            return revocation.is_revoked(db, owner, key)

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)

    def _spend(self, token: str, key: str) -> str:
        """Bind a token to a key, in one statement so that one key wins, and return the owner."""
        valid = (
            ENROLMENT_TOKENS.c.token_sha256 == token,
            ENROLMENT_TOKENS.c.expires_us > self._now_us(),
            or_(ENROLMENT_TOKENS.c.key_sha256 == "", ENROLMENT_TOKENS.c.key_sha256 == key),
        )
        with self._database.writing() as db:
            spent = db.execute(
                update(ENROLMENT_TOKENS).where(*valid).values(key_sha256=key)
            ).rowcount
            of_token = select(ENROLMENT_TOKENS.c.owner).where(
                ENROLMENT_TOKENS.c.token_sha256 == token
            )
            owner = db.execute(of_token).scalar() if spent else None
            if owner is not None:
                known = revocation.is_known(db, key)
                since = revocation.enter_key(db, owner, key, self._now_us())
                if not known:
                    self._log.append(access_log.Enrolled(owner, key, token, since))
        if owner is None:
            raise TokenError(
                "Expected a valid enrolment token, but this one is unknown, spent or expired. Ask "
                "the coordinator's operator for a new one."
            )
        return str(owner)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
