"""Principals: callers by the SHA-256 digests of their tokens, with their roles.

::

    [[token]]
    name = "nightly job"           # for the logs, which keep it
    role = "operator"              # viewer, operator, approver, or owner:<name>
    sha256 = "9f86d081884c7d65..." # printf %s "$TOKEN" | sha256sum
    expires = 2027-01-01T00:00:00Z # optional

The file may be changed at any time: it is read again at the next call.

A token must be random, 128 bits or more: a plain digest protects nothing that can be guessed.
"""

import enum
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from disinherit.common.errors import InputError, NotKnownError
from disinherit.common.graph.records import check_owner
from disinherit.common.settings import Secret, Table, located, read

_LOG = logging.getLogger(__name__)


class Role(enum.StrEnum):
    """What a caller may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller.

    Attributes:
        name: for the logs; that of a role or a program rather than of a person.
        role: what it may do.
        owner: whose models these are, for the role `owner`, else `""`.
    """

    name: str
    role: Role
    owner: str = ""

    @property
    def actor(self) -> str:
        """How the audit log names it."""
        return f"{self.role}:{self.owner or self.name}"


@dataclass(frozen=True, slots=True)
class Token:
    """A token that is accepted.

    Attributes:
        digest: its SHA-256.
        principal: who shows it.
        expires: seconds since the epoch after which it is not accepted; `None` for never.
    """

    digest: str
    principal: Principal
    expires: float | None = None


class TokenBook:
    """Knows callers by their tokens.

    Args:
        tokens: those accepted.
        clock: seconds since the epoch.

    Example:
        >>> token = Token(hashlib.sha256(b"secret").hexdigest(), Principal("ci", Role.OPERATOR))
        >>> TokenBook([token]).principal("secret").role
        <Role.OPERATOR: 'operator'>
    """

    def __init__(self, tokens: Iterable[Token], clock: Callable[[], float] = time.time) -> None:
        self._tokens = tuple(tokens)
        self._clock = clock

    @classmethod
    def read(cls, path: Path) -> "TokenBook":
        """Return the book in a file, as the file is now.

        Raises:
            InputError: if it cannot be read, or is not such a file.
        """
        return cls(_read(path))

    def principal(self, token: str) -> Principal:
        """Return who shows a token.

        Raises:
            NotKnownError: if it is wrong or has expired.
        """
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
        found = None
        for known in self._tokens:  # all of them: the time tells nothing
            if hmac.compare_digest(known.digest, digest):
                found = known
        if found is None:
            raise NotKnownError("Expected a valid token, but nobody has the one that was shown.")
        if found.expires is not None and self._clock() >= found.expires:
            raise NotKnownError(
                f"Expected a valid token, but that of {found.principal.name!r} expired."
            )
        return found.principal


class TokenFile:
    """The book in a file, read again whenever the file has changed.

    A token that is taken out of the file is refused from the next call on: the last one, too, and
    all of them once the file is gone.  What is there and cannot be read, as a file that is just
    being edited, changes nothing, and is logged once.

    Args:
        path: the file.

    Raises:
        InputError: if it cannot be read, or is not such a file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # Before it is read: what changes meanwhile is then seen.
        self._version = _version(path)
        self._book = TokenBook.read(path)

    def principal(self, token: str) -> Principal:
        """Return who shows a token.

        Raises:
            NotKnownError: if it is wrong or has expired.
        """
        with self._lock:
            version = _version(self._path)
            if version != self._version:
                self._version = version
                self._read_again()
            book = self._book
        return book.principal(token)

    def _read_again(self) -> None:
        if not self._version:
            self._book = TokenBook([])
            _LOG.error("all tokens are refused: there is no token file %s any more", self._path)
            return
        try:
            self._book = TokenBook.read(self._path)
        except InputError as error:
            _LOG.error("the tokens stay as they were: %s", error)
        else:
            _LOG.info("read the tokens in %s again", self._path)


def _version(path: Path) -> tuple[int, ...]:
    """Return what changes with a file: when it was written, or put in the place of another."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns


class _Token(Table):
    name: str
    role: str
    sha256: Annotated[
        Secret,
        Meta(
            pattern=r"^[0-9a-f]{64}\Z",
            description="a SHA-256 as 64 lower-case hexadecimal digits",
        ),
    ]
    expires: Annotated[datetime, Meta(tz=True)] | None = None


class _File(Table):
    token: tuple[_Token, ...] = ()


def _read(path: Path) -> list[Token]:
    listed = read(_File, path, "a token file").token
    with located(str(path)):
        tokens = [_token(entry) for entry in listed]
        _check_distinct(tokens)
    return tokens


def _check_distinct(tokens: Iterable[Token]) -> None:
    """Raise `InputError` if two tokens have one secret or one name: who shows it is not known."""
    names: dict[str, str] = {}
    seen: set[str] = set()
    for token in tokens:
        name = token.principal.name
        if token.digest in names:
            raise InputError(
                f"Expected a secret of its own for every token, but {names[token.digest]!r} and "
                f"{name!r} have the same sha256; make another secret for one of them."
            )
        if name in seen:
            raise InputError(
                f"Expected a name of its own for every token, but two are named {name!r}; the "
                "audit log would not tell them apart."
            )
        names[token.digest] = name
        seen.add(name)


def _token(entry: _Token) -> Token:
    principal = _principal(entry.name, entry.role)
    expires = None if entry.expires is None else entry.expires.timestamp()
    return Token(entry.sha256, principal, expires)


def _principal(name: str, role: str) -> Principal:
    kind, _, owner = role.partition(":")
    if kind == Role.OWNER and owner:
        return Principal(name, Role.OWNER, check_owner(owner))
    if kind in (Role.VIEWER, Role.OPERATOR, Role.APPROVER) and not owner:
        return Principal(name, Role(kind))
    raise InputError(
        f"Expected the role viewer, operator, approver or owner:<name> for token {name!r}, but got "
        f"{role!r}."
    )
