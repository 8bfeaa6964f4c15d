"""The bounds of all values from outside: one table, and the checks against it.

A caller with a valid credential may send what these bounds allow and nothing above.  A bound is
checked where a message becomes a value, before anything is stored, logged or passed on.  So no
caller can fill the coordinator's memory, or make a page, report or log entry too large to read.

`docs/limits.md` shows the same table; a test compares them.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from disinherit.common.errors import InputError

_HEX = re.compile(r"[0-9a-f]{64}")
_SHOWN = 60
_KIB, _MIB = 2**10, 2**20


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest size of one kind of value.

    Attributes:
        name: name in the table.
        most: largest accepted size.
        unit: unit of `most`: characters, bytes, items, seconds.
        what: the bounded values.
    """

    name: str
    most: int
    unit: str
    what: str

    def check(self, size: int, what: str, error: type[InputError] = InputError) -> None:
        """Check a size against the limit.

        Args:
            size: size of the value.
            what: name of the value, for the message.
            error: class of the error.

        Raises:
            InputError: as `error`, if the value is larger.

        Example:
            >>> NAME.check(3, "class name 'cat'")
        """
        if size > self.most:
            raise error(
                f"Expected {what} to have at most {self.most:,} {self.unit}, but got {size:,}; "
                f"see docs/limits.md ({self.name})."
            )

    def check_text(self, text: str, what: str, error: type[InputError] = InputError) -> None:
        """Check the length of a text; the message does not repeat the text.

        Raises:
            InputError: as `error`, if the text is longer.
        """
        self.check(len(text), what, error)

    def check_items(
        self, items: Collection[object], what: str, error: type[InputError] = InputError
    ) -> None:
        """Check the number of items.

        Raises:
            InputError: as `error`, if there are more items.
        """
        self.check(len(items), what, error)


ID = Limit("id", 128, "characters", "ids of models and requests, names of owners")
DIGEST = Limit("digest", 64, "characters", "SHA-256 digests: 64 lower-case hexadecimal digits")
NAME = Limit("name", 256, "characters", "names of classes, parameters, architectures, data sets")
SCOPE = Limit("scope", 4 * _KIB, "characters", "the scope of a request or of a Fisher summary")
CLASSES = Limit("classes", 100_000, "names", "class names of one model, or of one mapping of them")
PARENTS = Limit("parents", 10_000, "edges", "parents that one registration names")
RECORD = Limit("record", _MIB, "bytes", "one model's record, and all edges registered with it")
BATCH = Limit("batch", 1000, "models", "registrations in one message")
BATCH_BYTES = Limit("batch bytes", 3 * _MIB, "bytes", "one message with registrations")
PARAMETERS = Limit("parameters", 10_000, "items", "parameters that one model's result names")
ROWS = Limit("rows", 1_000_000, "items", "rows of one parameter that a model's result counts")
RESULT = Limit("result", _MIB, "bytes", "what an owner answers of one model")
ANSWER = Limit("answer", 1024 * _MIB, "bytes", "one answer of an agent")
FISHER = Limit(
    "fisher",
    64 * _MIB,
    "bytes",
    "Fisher information of several roots in one answer",
)
PACKET = Limit(
    "packet",
    _MIB,
    "bytes",
    "a Fisher packet beside its values, 9 bytes for each that is registered, and its class names",
)
ALONG = Limit(
    "packets along",
    16 * _KIB,
    "bytes",
    "Fisher packets that come along with a task of an agent; it fetches larger ones",
)
REASON = Limit("reason", 1000, "characters", "the reason of a request, of a decision, of a failure")
REQUEST = Limit("request", 3 * _MIB, "bytes", "one request")
PAGE = Limit("page", _MIB, "bytes", "one page of a list, unless a single item is larger")
PAGE_ITEMS = Limit("page items", 1000, "items", "one page of a list")
SAMPLES = Limit("samples", 40_000, "samples", "samples that one request names, over all its roots")
GLOBS = Limit("globs", 100, "globs", "globs that one scope names")
GLOB = Limit("glob", 256, "characters", "one glob of a scope")
NESTING = Limit("nesting", 100, "levels", "values inside values in a file of TOML or JSON")
CALLS = Limit(
    "calls", 24, "calls", "calls of all operators and approvers at a time; as many of all others"
)
CALLER_CALLS = Limit("calls of a caller", 8, "calls", "calls of one token at a time")
LINE = Limit(
    "waiting calls", 64, "calls", "calls that wait for others to end, where calls have a limit"
)
CALLER_LINE = Limit("waiting calls of a caller", 40, "calls", "those of one token")
TURN = Limit("turn", 2, "seconds", "wait of a call for others to end, before it is refused")
WATCHES = Limit(
    "watches", 32, "watches", "watches of all operators and approvers; as many of all others"
)
CALLER_WATCHES = Limit("watches of a caller", 8, "watches", "watches of one token at a time")
EXPORTS = Limit(
    "exports",
    8,
    "exports",
    "logs, graphs, attestations and streams of registrations of all operators and approvers at a "
    "time; as many of all others",
)
CALLER_EXPORTS = Limit("exports of a caller", 4, "exports", "exports of one token at a time")
PROBES = Limit("probes", 8, "probes", "checks of health, which need no token, at a time")
HOST_PROBES = Limit("probes of a host", 4, "probes", "checks of health from one address at a time")
ENROLMENTS = Limit("enrolments", 8, "calls", "calls at the port to enrol at a time")
HOST_ENROLMENTS = Limit(
    "enrolments of a host", 4, "calls", "calls at the port to enrol from one address at a time"
)
OWNER_SERVES = Limit(
    "connections of an owner", 4, "streams", "streams of one owner's agents, of which one is served"
)
FETCHES = Limit("fetches", 64, "fetches", "downloads of all agents at a time")
OWNER_FETCHES = Limit("fetches of an owner", 4, "fetches", "downloads of one owner at a time")
CONNECTIONS = Limit(
    "connections", 4096, "connections", "TCP connections to one port; fewer with few descriptors"
)
CONNECTION_CALLS = Limit("calls of a connection", 32, "calls", "calls on one connection at a time")
PENDING = Limit(
    "pending calls", 1024, "calls", "calls at one port at a time, refused ones included"
)
HANDSHAKE = Limit("handshake", 5, "seconds", "wait for a new connection to become one")
IDLE = Limit("idle connection", 60, "seconds", "wait of a connection for a call")
GREETING = Limit(
    "greeting", 5, "seconds", "wait for the message of a call that needs no token, or a hello"
)
MESSAGE = Limit("message", 30, "seconds", "wait for the message of any other call")
LOG_LINE = Limit("log line", 300, "characters", "what a log line repeats of a value from outside")
NUMBER = Limit("number", 2**53 - 1, "", "whole numbers in reports and attestations")

TABLE = tuple(limit for limit in vars().copy().values() if isinstance(limit, Limit))
"""Every limit, in the order of the docs."""


def check_digest(value: str, what: str, error: type[InputError] = InputError) -> None:
    """Check that a value is a SHA-256 as 64 lower-case hexadecimal digits, or empty.

    Args:
        value: the digest.
        what: name of the hashed thing, for the message.
        error: class of the error.

    Raises:
        InputError: as `error`, if the value is neither.
    """
    if value and not _HEX.fullmatch(value):
        raise error(
            f"Expected {what} to be 64 lower-case hexadecimal digits or empty, but got "
            f"{shown(value)} of {len(value):,} characters."
        )


def check_names(
    names: Iterable[str], what: str, limit: Limit = NAME, error: type[InputError] = InputError
) -> None:
    """Check the length of several names, and name the first that is too long.

    Raises:
        InputError: as `error`, if a name is too long.
    """
    for name in names:
        limit.check(len(name), f"{what} {shown(name)}", error)


def shown(value: object) -> str:
    r"""Return the beginning of an outside value for a message: text quoted, on one line.

    Example:
        >>> print(shown("cat\n"), shown(5))
        'cat\n' 5
    """
    text = value if isinstance(value, str) else " ".join(repr(value).split())
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return repr(text) if isinstance(value, str) else text


def clipped(text: str, limit: Limit = LOG_LINE) -> str:
    """Return a text, cut to a limit.

    Example:
        >>> len(clipped("x" * 1000))
        300
    """
    return text if len(text) <= limit.most else text[: limit.most - 3] + "..."
