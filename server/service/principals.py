"""Principals: callers with their roles, identified by SHA-256 digests of their tokens.

::

    [[token]]
    name = "nightly job"           # appears in the logs
    role = "operator"              # viewer, operator, approver, or owner:<name>
    sha256 = "9f86d081884c7d65..." # printf %s "$TOKEN" | sha256sum
    expires = 2027-01-01T00:00:00Z # optional

The file may change at any time: the next call reads it again.

A token must be random, with 128 bits or more: a plain digest does not protect a guessable secret.
"""

import enum
import hashlib
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
from disinherit.common.graph.identifiers import check_owner
from disinherit.common.settings import Secret, Table, located, parse, read

_LOG = logging.getLogger(__name__)


class Role(enum.StrEnum):
    """What a caller may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    OWNER = "owner"

    @property
    def as_person(self) -> str:
        """The role as a person, for messages.

        Example:
            >>> Role.APPROVER.as_person
            'an approver'
        """
        return f"{'a' if self is Role.VIEWER else 'an'} {self.value}"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller.

    Attributes:
        name: its name in the logs; better a role or a program than a person.
        role: its role.
        owner: the owner, for the role `owner`; else `""`.
    """

    name: str
    role: Role
    owner: str = ""

    @property
    def actor(self) -> str:
        """Its name in the audit log."""
        return f"{self.role}:{self.owner or self.name}"

    @property
    def written_role(self) -> str:
        """Its role as in the token file, such as `owner:anna`."""
        return f"{self.role}:{self.owner}" if self.owner else str(self.role)


@dataclass(frozen=True, slots=True)
class Token:
    """An accepted token.

    Attributes:
        digest: its SHA-256.
        principal: its holder.
        expires: expiry time in seconds since the epoch; `None` for never.
    """

    digest: str
    principal: Principal
    expires: float | None = None

    @property
    def expires_us(self) -> int:
        """Expiry time in microseconds since the epoch; 0 for never."""
        return 0 if self.expires is None else int(self.expires * 1e6)


class TokenBook:
    """The accepted tokens.

    Args:
        tokens: the tokens.
        clock: seconds since the epoch.

    Example:
        >>> token = Token(hashlib.sha256(b"secret").hexdigest(), Principal("ci", Role.OPERATOR))
        >>> TokenBook([token]).principal("secret").role
        <Role.OPERATOR: 'operator'>
    """

    def __init__(self, tokens: Iterable[Token], clock: Callable[[], float] = time.time) -> None:
        self._tokens = tuple(tokens)
        self._by_digest = {token.digest: token for token in self._tokens}
        self._clock = clock

    @classmethod
    def read(cls, path: Path) -> "TokenBook":
        """Read the tokens in a file.

        Raises:
            InputError: if the file cannot be read, or is not a token file.
        """
        return cls(_read(path))

    @classmethod
    def parse(cls, text: str, where: str) -> "TokenBook":
        """Return the tokens in the text of a file.

        Args:
            text: the text.
            where: the file, for errors.

        Raises:
            InputError: if it is no token file.
        """
        return cls(_checked(parse(_TokenFile, text, repr(where)), where))

    @property
    def tokens(self) -> tuple[Token, ...]:
        """All accepted tokens, as digests."""
        return self._tokens

    def principal(self, token: str) -> Principal:
        """Return who shows a token.

        Raises:
            NotKnownError: if it is wrong or has expired.
        """
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
        # How long this takes says something of a digest only, and none can be chosen: a token that
        # has a wanted one cannot be found.
        found = self._by_digest.get(digest)
        if found is None:
            raise NotKnownError("Expected a valid token, but this one is unknown.")
        if found.expires is not None and self._clock() >= found.expires:
            raise NotKnownError(
                f"Expected a valid token, but that of {found.principal.name!r} expired."
            )
        return found.principal


class TokenFile:
    """The tokens in a file, read again whenever the file changes.

    A token removed from the file is refused from the next call on; without a file, all are refused.
    A file that cannot be parsed, for instance during an edit, changes nothing and is logged once.

    Args:
        path: the file.

    Raises:
        InputError: if the file cannot be read, or is not a token file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # Before reading: a change during the read is noticed later.
        self._version = _version(path)
        self._book = TokenBook.read(path)

    def principal(self, token: str) -> Principal:
        """Return who shows a token.

        Raises:
            NotKnownError: if it is wrong or has expired.
        """
        return self._current().principal(token)

    def tokens(self) -> tuple[Token, ...]:
        """Return all accepted tokens, as digests."""
        return self._current().tokens

    def _current(self) -> TokenBook:
        with self._lock:
            version = _version(self._path)
            if version != self._version:
                self._version = version
                self._read_again()
            return self._book

    def _read_again(self) -> None:
        if not self._version:
            self._book = TokenBook([])
            _LOG.error("all tokens are refused: the token file %s is gone", self._path)
            return
        try:
            self._book = TokenBook.read(self._path)
        except InputError as error:
            _LOG.error("the former tokens stay valid: %s", error)
        else:
            _LOG.info("read the tokens in %s again", self._path)


def _version(path: Path) -> tuple[int, ...]:
    """Return values that change whenever a file is written or replaced."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns


class _Token(Table):
    """One caller; as many tables as there are callers.

    Attributes:
        name: its name in the logs, different for every token.
        role: `viewer`, `operator`, `approver`, or `owner:NAME` for the owner `NAME`.
        sha256: the SHA-256 of its token, which is random, with 128 bits or more.
        expires: when it is no longer accepted, with a time zone; never without it.
    """

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


class _TokenFile(Table):
    """Who may call the coordinator; the file is read again whenever it changes.

    Attributes:
        token: the callers; below.
    """

    token: tuple[_Token, ...] = ()


def _read(path: Path) -> list[Token]:
    return _checked(read(_TokenFile, path, "a token file"), str(path))


def _checked(found: _TokenFile, where: str) -> list[Token]:
    with located(where):
        tokens = [_token(entry) for entry in found.token]
        _check_distinct(tokens)
    return tokens


def _check_distinct(tokens: Iterable[Token]) -> None:
    """Raise `InputError` if two tokens share a secret or a name."""
    names: dict[str, str] = {}
    seen: set[str] = set()
    for token in tokens:
        name = token.principal.name
        if token.digest in names:
            raise InputError(
                f"Expected a different secret for every token, but {names[token.digest]!r} and "
                f"{name!r} have the same sha256; make another secret for one of them."
            )
        if name in seen:
            raise InputError(
                f"Expected a different name for every token, but two are named {name!r}; the "
                "audit log could not distinguish them."
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
