"""Metadata at the start of a GGUF file: what it was made of.

Its `source` is the model that was converted.  Its `base_model` is mostly copied from the card of
that model, whose parent it is.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from disinherit.common.errors import DataError
from disinherit.families.evidence import Claim, Relation, Said, Source
from disinherit.families.model_cards import parent_name
from disinherit.families.reading import read_start
from disinherit.families.weights import POINTER

_MAGIC = b"GGUF"
_HEAD = struct.Struct("<4sIQQ")
_MOST_KEYS = 10_000
_MOST_METADATA = 32 * 2**20
_MOST_BASES = 100
_LONGEST = 2**16
"""Bytes of a text that is kept; longer ones, such as chat templates, are skipped."""

_ARRAY, _TEXT = 9, 8
_NUMBERS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


def may_be_gguf(path: Path) -> bool:
    """Whether a file starts as a GGUF file does, or is a pointer of Git LFS to one."""
    try:
        start, _ = read_start(path, _HEAD.size)
    except DataError:
        return True  # who reads it says why it cannot be read
    return (start.startswith(_MAGIC) and len(start) == _HEAD.size) or POINTER.startswith(start)


def read_metadata(path: Path) -> Mapping[str, Any]:
    """Return texts and numbers of a GGUF file's metadata; arrays are skipped.

    Args:
        path: the file, of version 2 or 3, little-endian.

    Raises:
        DataError: if it cannot be read or is malformed.
    """
    try:
        with path.open("rb") as file:
            magic, version, _, count = _HEAD.unpack(file.read(_HEAD.size))
            if magic != _MAGIC or version not in (2, 3) or count > _MOST_KEYS:
                raise _malformed(path, f"version {version} with {count:,} keys")
            found = {}
            for _ in range(count):
                key = _text(file, path)
                (kind,) = struct.unpack("<I", file.read(4))
                value = _value(file, kind, path)
                if value is not None:
                    found[key] = value
            return found
    except (struct.error, UnicodeDecodeError) as error:
        raise _malformed(path, str(error)) from None
    except OSError as error:
        raise DataError(f"Expected a readable {path.name}, but: {error.strerror}.") from None


def claims_of_gguf(key: str, metadata: Mapping[str, Any]) -> Said:
    """Return what the metadata of a GGUF file says of its parents.

    Args:
        key: key of the file.
        metadata: of `read_metadata`.

    Raises:
        DataError: if a name is malformed.
    """
    given = (_as_text(metadata.get(f"general.source.{one}")) for one in _SOURCES)
    if converted := next(filter(None, given), ""):
        claim = Claim(key, parent_name(converted), Source.GGUF, Relation.QUANTIZED)
        return [claim], []
    count = metadata.get("general.base_model.count", 0)
    claims = []
    for index in range(min(count, _MOST_BASES) if isinstance(count, int) else 0):
        address, organisation, name = (
            _as_text(metadata.get(f"general.base_model.{index}.{field}"))
            for field in ("repo_url", "organization", "name")
        )
        whole = f"{organisation}/{name}" if organisation else name
        if named := address or (name and whole.replace(" ", "-")):
            claims.append(Claim(key, parent_name(named), Source.GGUF))
    return claims, []


_SOURCES = ("repo_url", "huggingface.repository", "url")


def _as_text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _text(file: BinaryIO, path: Path) -> str:
    length = _length(file, path)
    if length > _LONGEST:
        raise _malformed(path, f"a key of {length:,} bytes")
    return file.read(length).decode()


def _value(file: BinaryIO, kind: int, path: Path) -> str | int | float | None:
    """Return a text or a number, and `None` for an array or a long text, which is skipped."""
    if kind in _NUMBERS:
        form = _NUMBERS[kind]
        number: int | float = struct.unpack(form, file.read(struct.calcsize(form)))[0]
        return number
    if kind == _TEXT:
        length = _length(file, path)
        if length <= _LONGEST:
            return file.read(length).decode("utf-8", "replace")
        file.seek(length, 1)
        return None
    if kind != _ARRAY:
        raise _malformed(path, f"a value of type {kind}")
    (inner,) = struct.unpack("<I", file.read(4))
    length = _length(file, path)
    if inner in _NUMBERS:
        file.seek(length * struct.calcsize(_NUMBERS[inner]), 1)
    elif inner == _TEXT:  # such as the vocabulary of a tokenizer
        for _ in range(length):
            file.seek(_length(file, path), 1)
    else:
        raise _malformed(path, f"an array of type {inner}")
    return None


def _length(file: BinaryIO, path: Path) -> int:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _MOST_METADATA or file.tell() > _MOST_METADATA:
        raise _malformed(path, f"metadata of more than {_MOST_METADATA:,} bytes")
    return int(length)


def _malformed(path: Path, reason: str) -> DataError:
    return DataError(f"Expected a GGUF file, but got {reason} in {path.name}.")
