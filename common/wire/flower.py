"""Protobuf messages inside Flower messages: one schema for every carrier.

The tensors of Fisher packets travel beside the message, as arrays keyed by their SHA-256.  Flower
identifies objects by content: it uploads once what several messages of one push share.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from google.protobuf.message import DecodeError, Message

from disinherit.common.errors import InputError
from disinherit.common.wire.packets import attach_tensors

_KEY = "disinherit"
_TENSORS = "tensors"
_STYPE = "safetensors"
M = TypeVar("M", bound=Message)


def as_array(data: bytes) -> Array:
    """Return bytes as a Flower array; several messages may share the array."""
    return Array("uint8", (len(data),), _STYPE, data)


def pack(message: Message, tensors: Mapping[str, Array] = MappingProxyType({})) -> RecordDict:
    """Return Flower content with one protobuf message.

    Args:
        message: the message.
        tensors: SHA-256 -> tensors of its Fisher packets without own tensors.
    """
    content = RecordDict(
        {
            _KEY: ConfigRecord(
                {
                    "schema": message.DESCRIPTOR.full_name,
                    "message": message.SerializeToString(deterministic=True),
                }
            )
        }
    )
    if tensors:
        content[_TENSORS] = ArrayRecord(dict(tensors))
    return content


def size_of(content: RecordDict) -> int:
    """Return the number of bytes of the values in Flower content."""
    configs = (value for record in content.config_records.values() for value in record.values())
    arrays = (array.data for record in content.array_records.values() for array in record.values())
    return sum(len(value) for value in (*configs, *arrays) if isinstance(value, bytes))


def unpack(content: RecordDict, kind: type[M]) -> M:
    """Return the protobuf message of type `kind` in Flower content, with its tensors.

    Raises:
        InputError: if the message is missing, damaged or of another type, or tensors are missing.
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
        message = kind.FromString(data)
    except DecodeError as error:
        raise InputError(
            f"Expected a well-formed {expected}, but it is damaged: {error}."
        ) from None
    attach_tensors(message, lambda digest: _tensors(content, digest))
    return message


def _tensors(content: RecordDict, digest: str) -> bytes:
    arrays = content.get(_TENSORS)
    if not isinstance(arrays, ArrayRecord) or digest not in arrays:
        raise InputError(f"Expected the tensors {digest!r} beside their message, but got none.")
    return arrays[digest].data
