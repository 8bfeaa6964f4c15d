"""Our protobuf messages inside Flower messages: one schema, whatever carries it."""

from typing import TypeVar

from flwr.app import ConfigRecord, RecordDict
from google.protobuf.message import DecodeError, Message

from disinherit.common.errors import InputError

_KEY = "disinherit"
M = TypeVar("M", bound=Message)


def pack(message: Message) -> RecordDict:
    """Return Flower content that carries one protobuf message."""
    return RecordDict(
        {
            _KEY: ConfigRecord(
                {
                    "schema": message.DESCRIPTOR.full_name,
                    "message": message.SerializeToString(deterministic=True),
                }
            )
        }
    )


def unpack(content: RecordDict, kind: type[M]) -> M:
    """Return the protobuf message of type `kind` that Flower content carries.

    Raises:
        InputError: if there is none, it is of another type, or it is damaged.
    """
    record = content.get(_KEY)
    expected = kind.DESCRIPTOR.full_name
    if not isinstance(record, ConfigRecord) or record.get("schema") != expected:
        got = record.get("schema") if isinstance(record, ConfigRecord) else sorted(content)
        raise InputError(f"Expected a Flower message that carries {expected}, but got {got!r}.")
    data = record.get("message")
    if not isinstance(data, bytes):
        raise InputError(f"Expected the bytes of {expected}, but got {type(data).__name__}.")
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InputError(
            f"Expected a well-formed {expected}, but it is damaged: {error}."
        ) from None
