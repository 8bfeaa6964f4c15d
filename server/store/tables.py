"""The coordinator's tables.

Records, edges, requests and results are stored as protobuf messages.  Only what is searched or
sorted by has a column of its own.
"""

from collections.abc import Iterable
from itertools import chain
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeEngine

from disinherit.common.errors import StoreError


def _text(length: int) -> TypeEngine[str]:
    # Sorted by code point, as in Python, and not by the locale of a server.
    return String(length).with_variant(String(length, collation="C"), "postgresql")


METADATA = MetaData()
MODELS = Table(
    "model",
    METADATA,
    Column("id", _text(128), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
    # SHA-256 of the weights.
    Column("digest", String(64), nullable=False, server_default=""),
    Index("ix_model_digest", "digest"),
    Index("ix_model_age", "created_us", "id"),
    Index("ix_model_owner_age", "owner", "created_us", "id"),
)
HOLDINGS = Table(  # which versions were trained directly on a class
    "holding",
    METADATA,
    Column("class_digest", String(64), primary_key=True),
    Column("model_id", ForeignKey("model.id"), primary_key=True, index=True),
)
EDGES = Table(
    "inheritance",
    METADATA,
    Column("parent", ForeignKey("model.id"), primary_key=True),
    Column("child", ForeignKey("model.id"), primary_key=True, index=True),
    Column("edge", LargeBinary, nullable=False),
    # The actor, as in the audit log; empty for the coordinator, which observed the derivation.
    Column("recorded_by", String(160), nullable=False, server_default=""),
)
ANNOUNCED = Table(  # versions that a federation asked owners to make, and their starts
    "announced",
    METADATA,
    Column("model_id", _text(128), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("start_id", _text(128), nullable=False),
)
REQUESTS = Table(
    "request",
    METADATA,
    Column("id", _text(128), primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Index("ix_request_age", "created_us", "id"),
)
TASKS = Table(
    "task",
    METADATA,
    Column("request_id", ForeignKey("request.id"), primary_key=True),
    Column("model_id", ForeignKey("model.id"), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", Text, nullable=False, default=""),
    Column("result", LargeBinary, nullable=False, default=b""),
    Column("updated_us", BigInteger, nullable=False),
    Column("wave", BigInteger, nullable=False, server_default="0"),
    # When the superseded version is due to be destroyed, and when it was; 0 for never.
    Column("destroy_us", BigInteger, nullable=False, server_default="0"),
    Column("destroyed_us", BigInteger, nullable=False, server_default="0"),
    # 1 if the version joined after the request was submitted; 0 if it was planned.
    Column("late", BigInteger, nullable=False, server_default="0"),
    # The latest time, by the coordinator's clock, at which its owner was asked; 0 for never.
    Column("given_us", BigInteger, nullable=False, server_default="0"),
    # When its owner was sent the task that it answered first; 0 if it has not.
    Column("told_us", BigInteger, nullable=False, server_default="0"),
    Index("ix_task_destroy", "destroy_us"),
    Index("ix_task_model", "model_id"),
    Index("ix_task_owner", "owner", "state"),
)
CAMPAIGNS = Table(
    "campaign",
    METADATA,
    Column("request_id", ForeignKey("request.id"), primary_key=True),
    Column("state", String(24), nullable=False, index=True),
    Column("deadline_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("lease_token", BigInteger, nullable=False),
    Column("lease_holder", Text, nullable=False),
    Column("lease_until_us", BigInteger, nullable=False),
    # Length of the lease, from its last renewal.
    Column("lease_length_us", BigInteger, nullable=False, server_default="0"),
    # Roll-out: the number of begun waves, of accepted waves, and why it was halted.
    Column("open_waves", BigInteger, nullable=False, server_default="1"),
    Column("accepted_waves", BigInteger, nullable=False, server_default="0"),
    Column("halt_reason", Text, nullable=False, server_default=""),
    # SHA-256 of the submitted and the approved plan (`disinherit.server.store.approvals`); empty
    # if no approval is needed.
    Column("submitted_plan", String(64), nullable=False, server_default=""),
    Column("approved_plan", String(64), nullable=False, server_default=""),
    # How often its tasks were changed (`disinherit.server.store.request_rows`).
    Column("task_changes", BigInteger, nullable=False, server_default="0"),
)
PLANNED_ROOTS = Table(  # records of a request's roots at its submission
    "planned_root",
    METADATA,
    Column("request_id", ForeignKey("request.id"), primary_key=True),
    Column("model_id", ForeignKey("model.id"), primary_key=True),
    Column("record", LargeBinary, nullable=False),
)
PACKETS = Table(
    "packet",
    METADATA,
    Column("request_id", ForeignKey("request.id"), primary_key=True),
    Column("root", ForeignKey("model.id"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("packet", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)
AUDIT = Table(
    "audit",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("request_id", _text(128), nullable=False),
    Column("model_id", _text(128), nullable=False),
    Column("hash", String(64), nullable=False),
    # The complete line of an export.
    Column("entry", LargeBinary, nullable=False),
    Index("ix_audit_request", "request_id", "sequence"),
    Index("ix_audit_model", "request_id", "model_id", "kind"),
)
IN_ORDER = AUDIT.c.sequence + 0
"""The order of entries that are found by their kind.

Of the column itself, SQLite would look through all entries about the request, or about none, as it
has these in order.
"""

CLOCK = Table(  # one row: when the clock was last right, and when a person last confirmed it
    "clock",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("confirmed_us", BigInteger, nullable=False),
)
HISTORY = Table(  # one row: what history is missing, and the epoch (number of confirmations)
    "history",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("lost", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)
ENROLMENT_TOKENS = Table(
    "enrolment_token",
    METADATA,
    Column("token_sha256", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    # SHA-256 of the public key it was spent on; empty if it was not.
    Column("key_sha256", String(64), nullable=False, default=""),
)
AGENT_KEYS = Table(
    "agent_key",
    METADATA,
    # SHA-256 of the public key, DER.
    Column("key_sha256", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("enrolled_us", BigInteger, nullable=False),
)
REVOCATIONS = Table(
    "agent_revocation",
    METADATA,
    Column("owner", String(128), primary_key=True),
    Column("revoked_us", BigInteger, nullable=False),
)
PRESENCE = Table(  # owners that were connected
    "presence",
    METADATA,
    Column("owner", _text(128), primary_key=True),
    # agent or flower.
    Column("way", String(16), nullable=False),
    # 1 if it was connected at `seen_us` and has not left since.
    Column("online", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    # As it says itself.
    Column("release", String(64), nullable=False),
    Column("hours", String(16), nullable=False),
    Column("bytes_per_second", BigInteger, nullable=False, server_default="0"),
    # Of its latest long download; 0 if there was none.
    Column("downloaded_bytes", BigInteger, nullable=False, server_default="0"),
    Column("download_us", BigInteger, nullable=False, server_default="0"),
)
WEBHOOKS = Table(  # the last entry of the audit log that was looked at for a webhook
    "webhook",
    METADATA,
    # SHA-256 of its URL.
    Column("hook", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)
DELIVERIES = Table(
    "webhook_delivery",
    METADATA,
    Column("hook", String(64), primary_key=True),
    Column("event", String(32), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    # Number of the audit entry, or the deadline that is near.
    Column("occasion", BigInteger, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    # When it is tried next, in microseconds since the epoch; 0 if it is not.
    Column("due_us", BigInteger, nullable=False),
    # 0 if it was not delivered.
    Column("delivered_us", BigInteger, nullable=False),
    Index("ix_webhook_due", "hook", "due_us"),
)

M = TypeVar("M", bound=Message)


def parse(kind: type[M], data: bytes) -> M:
    """Return the message that a row holds.

    Raises:
        StoreError: if it is damaged.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise StoreError(
            f"Expected a {kind.DESCRIPTOR.full_name} in the coordinator's database, but a row is "
            f"damaged: {error}. Restore the database from a backup."
        ) from None


def parse_all(kind: type[M], field: int, rows: Iterable[bytes]) -> M:
    """Return a message with the messages that rows hold, in one of its repeated fields.

    They are parsed as one, which takes a tenth of the time of a message for each.

    Args:
        kind: the message.
        field: number of the field, below 16.
        rows: what the rows hold.

    Raises:
        StoreError: if one is damaged.
    """
    return parse(kind, join_rows(field, rows))


def join_rows(field: int, rows: Iterable[bytes], others: bytes = b"") -> bytes:
    """Return the encoding of a message with the messages that rows hold, in a repeated field.

    Args:
        field: number of the field, below 16.
        rows: what the rows hold, which is not checked.
        others: the encoding of its other fields.
    """
    tag, listed = field << 3 | _LENGTH_DELIMITED, list(rows)
    sizes = list(map(len, listed))
    heads = {size: _head(tag, size) for size in {*sizes}}
    parts = zip(map(heads.__getitem__, sizes), listed, strict=True)
    return b"".join(chain((others,), chain.from_iterable(parts)))


_LENGTH_DELIMITED = 2
"""How protobuf writes a message in a field."""


def _head(tag: int, size: int) -> bytes:
    """Return what stands before a message in a field: the tag and the size, as a varint."""
    head = bytearray((tag,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)
