"""Webhooks: signed messages over HTTP when a campaign needs somebody, or is over.

A message is stored before it is sent, so that each is made once, whatever is restarted.  It is
tried until the receiver answers with 2xx; the receiver may get it twice, under the same id, if this
process was killed before it could store the answer.  Each webhook has a thread of its own, which
campaigns never wait for.
"""

import hashlib
import hmac
import http.client
import importlib.metadata
import logging
import random
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from disinherit.common.connecting import is_loopback
from disinherit.common.errors import DisinheritError, InputError
from disinherit.common.limits import clipped
from disinherit.common.text import one_line
from disinherit.server.now import now_us
from disinherit.server.service.webhook_messages import (
    EVENTS,
    delivery_id,
    find_deadlines,
    find_news,
    make_messages,
)
from disinherit.server.store.audit import last_sequence
from disinherit.server.store.deliveries import (
    Message,
    claim,
    find_cursor,
    find_known,
    is_due,
    put_cursor,
    put_delivered,
    put_failed,
    put_messages,
)
from disinherit.server.store.store import CoordinatorStore

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
"""How long a receiver may be silent."""

_FIRST_DELAY, _LONGEST_DELAY = 10.0, 3600.0
_MOST_ATTEMPTS = 80
"""About three days."""

_CLAIM_SECONDS = 120.0
"""When a message whose attempt has not ended is tried again."""

_LEAST_SECRET = 16
_FAR_BEHIND = 10_000
"""Entries of the log after which the place in it is stored though nothing happened."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Settings of a webhook.

    Attributes:
        url: where messages are sent, by `https`, or by `http` on this machine.
        secret: file of the secret that signs them.
        events: what it is told.
        near_seconds: how long before a deadline it is told of it.
        details: whether messages say reasons, and names of versions.

    Raises:
        InputError: if the URL cannot be used.
    """

    url: str
    secret: Path
    events: Collection[str] = EVENTS
    near_seconds: int = 24 * 3600
    details: bool = False

    def __post_init__(self) -> None:
        """Check the URL, without showing it: it may have a secret in its path."""
        parts = urlsplit(self.url)
        loopback = parts.hostname is not None and is_loopback(parts.hostname)
        if not parts.hostname or not (
            parts.scheme == "https" or (parts.scheme == "http" and loopback)
        ):
            raise InputError(
                "Expected the url of a webhook to begin with https://, or http:// on this machine, "
                f"but got one of {clipped(parts.scheme or 'no scheme')!r} for "
                f"{clipped(parts.hostname or 'no host')!r}."
            )

    @property
    def host(self) -> str:
        """The host, for the log."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def name(self) -> str:
        """The webhook in the database: another URL is another webhook."""
        return hashlib.sha256(self.url.encode()).hexdigest()


def sign(secret: bytes, seconds: int, body: bytes) -> str:
    """Return the value of the header `Disinherit-Signature`.

    Args:
        secret: the secret.
        seconds: the time of the attempt, in seconds since the epoch.
        body: the body of the message.

    Example:
        >>> sign(b"a secret of some length", 1, b"{}")[:10]
        't=1,v1=fe0'
    """
    code = hmac.new(secret, f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={code}"


def read_secret(path: Path) -> bytes:
    """Return the secret in a file, without white space around it.

    Raises:
        InputError: if the file cannot be read, or the secret is too short.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise InputError(
            f"Expected the secret of a webhook in {str(path)!r}, but: {error.strerror}."
        ) from None
    if len(secret) < _LEAST_SECRET:
        raise InputError(
            f"Expected a secret of at least {_LEAST_SECRET} bytes in {str(path)!r}, but got "
            f"{len(secret)}. Make one: openssl rand -hex 32"
        )
    return secret


class Webhooks:
    """The threads of all webhooks of a service.

    Args:
        store: the coordinator's store.
        settings: the webhooks.

    Raises:
        InputError: if a secret cannot be used, or two have the same URL.
    """

    def __init__(self, store: CoordinatorStore, settings: Sequence[WebhookSettings]) -> None:
        for number, one in enumerate(settings):
            read_secret(one.secret)
            if any(one.url == other.url for other in settings[:number]):
                raise InputError(
                    f"Expected a different url for every webhook, but two for {one.host} are the "
                    "same: name all events in one of them."
                )
        self._hooks = [_Webhook(store, one) for one in settings]

    def start(self) -> None:
        """Start to look for what is to be told."""
        for hook in self._hooks:
            hook.start()

    def stop(self) -> None:
        """Stop; what was not delivered is, once the service runs again."""
        for hook in self._hooks:
            hook.stop()


class _Webhook:
    def __init__(self, store: CoordinatorStore, settings: WebhookSettings) -> None:
        self._store = store
        self._settings = settings
        self._name = settings.name
        self._cursor: int | None = None
        self._stopping = threading.Event()
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(_ANSWER_SECONDS / 2)  # one that waits for an answer ends with the process

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
                while not self._stopping.is_set() and self._send_next():
                    pass
                self._problem = ""
            except DisinheritError as error:
                self._log_problem(str(error))
            except Exception:  # the next look may succeed
                _LOG.exception("webhook %s failed", self._settings.host)
            self._stopping.wait(_LOOK_SECONDS)

    def _look(self) -> None:
        """Store the messages for what has happened since the last look."""
        now = now_us()
        with self._store.reading() as db:
            last = last_sequence(db)
            if self._cursor is None:
                self._cursor = find_cursor(db, self._name)
            known = self._cursor
            occasions = {} if known is None else find_news(db, known, last)
            near = now + self._settings.near_seconds * 1_000_000
            occasions |= find_deadlines(db, near)
            told = find_known(db, self._name, {one.request_id for one in occasions})
            occasions = {one: of for one, of in occasions.items() if one not in told}
            messages = make_messages(
                db,
                self._name,
                occasions,
                self._settings.events,
                now,
                details=self._settings.details,
            )
        # A new webhook is told of what happens from now on.  A log that ends before the place was
        # restored from a backup.
        moved = known is None or last < known or last - known > _FAR_BEHIND
        if messages or moved:
            with self._store.writing() as db:
                put_messages(db, self._name, messages, now)
                put_cursor(db, self._name, last)
        self._cursor = last

    def _send_next(self) -> bool:
        """Try the next message that is due, and return whether there was one."""
        now = now_us()
        with self._store.reading() as db:
            if not is_due(db, self._name, now):
                return False
        with self._store.writing() as db:
            message = claim(db, self._name, now, now + round(_CLAIM_SECONDS * 1e6))
        if message is None:  # another coordinator has taken it
            return False
        problem = self._post(message)
        now = now_us()
        about = f"webhook {self._settings.host}: {message.occasion.event} of request "
        about += message.occasion.request_id
        if not problem:
            _LOG.info("%s was delivered", about)
            with self._store.writing() as db:
                put_delivered(db, self._name, message, now)
            return True
        delay = 0.0
        if message.attempts < _MOST_ATTEMPTS:
            delay = min(_FIRST_DELAY * 2 ** (message.attempts - 1), _LONGEST_DELAY)
            delay *= random.uniform(0.8, 1.0)
        then = f"tried again in {delay:.0f} s" if delay else "given up"
        _LOG.warning("%s was not delivered, %s: %s", about, then, problem)
        with self._store.writing() as db:
            put_failed(db, self._name, message, now + round(delay * 1e6) if delay else 0)
        return True

    def _post(self, message: Message) -> str:
        """Send a message, and return why it was not delivered; `""` if it was."""
        seconds = now_us() // 1_000_000
        try:
            secret = read_secret(self._settings.secret)
        except InputError as error:
            return str(error)
        request = urllib.request.Request(
            self._settings.url,
            data=message.body,
            method="POST",
            headers={
                "Content-Type": "application/json; charset=utf-8",
                "User-Agent": f"disinherit/{importlib.metadata.version('disinherit')}",
                "Disinherit-Event": message.occasion.event,
                "Disinherit-Delivery": delivery_id(self._name, message.occasion),
                "Disinherit-Signature": sign(secret, seconds, message.body),
            },
        )
        # The system's authorities as they are now.
        checked = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        opener = urllib.request.build_opener(_NoRedirects, checked)
        try:
            with opener.open(request, timeout=_ANSWER_SECONDS):
                return ""
        except urllib.error.HTTPError as error:
            error.close()
            return f"it answered with HTTP status {error.code}"
        except (OSError, http.client.HTTPException) as error:
            return clipped(one_line(str(getattr(error, "reason", None) or error or type(error))))

    def _log_problem(self, problem: str) -> None:
        if problem != self._problem:
            _LOG.warning("webhook %s has to wait: %s", self._settings.host, problem)
        self._problem = problem


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A receiver that moved is a failure: a message goes to the configured place only."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""
        return
