"""Pages of a sorted list, with opaque tokens.

A token has the key of the last item sent, so pages stay correct when items are added or removed.
It also has the query, so that it cannot be used for another one.

A page is limited in items and in bytes (`limits.PAGE`).
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from disinherit.common.errors import InputError
from disinherit.common.limits import ID, PAGE, PAGE_ITEMS, shown
from disinherit.common.text import load_json

DEFAULT_SIZE = 100
LARGEST_SIZE = PAGE_ITEMS.most

_BATCH = 16
"""Items read at a time; each may be large."""

_LONGEST_TOKEN = 8 * ID.most
_LARGEST_NUMBER = 2**63 - 1  # a database's largest integer
_LENGTH_BYTES = 8
"""Upper bound of an item's overhead in a message."""

Key = tuple[int | str, ...]
T = TypeVar("T")
M = TypeVar("M", bound=Message)


def page_size(size: int) -> int:
    """Return the number of items of a page for a requested size; 0 asks for the default."""
    return min(size or DEFAULT_SIZE, LARGEST_SIZE)


def fetch_page(
    after: Callable[[Key | None, int], Sequence[T]],
    key: Callable[[T], Key],
    kinds: tuple[type, ...],
    size: int,
    token: str,
    question: str,
    pack: Callable[[T], M],
) -> tuple[Sequence[M], str]:
    """Fetch one page of a list, and return it with the token of the next page.

    Args:
        after: returns up to that many items after a key, or from the start for `None`.
        key: returns the unique key of an item.
        kinds: types of a key's parts.
        size: maximum number of items; 0 for the default, and at most `LARGEST_SIZE`.
        token: page token; `""` for the first page.
        question: the query, which the token must match.
        pack: converts an item to its message.

    Returns:
        The messages, and the next page's token, `""` on the last page.

    Raises:
        InputError: if the token belongs to another query.
    """
    count = page_size(size)
    last = read_token(token, question, kinds)
    packed: list[M] = []
    room = PAGE.most
    while True:
        found = after(last, min(count + 1 - len(packed), _BATCH))
        for item in found:
            message = pack(item)
            room -= message.ByteSize() + _LENGTH_BYTES
            if len(packed) == count or (packed and room < 0):
                assert last is not None
                return packed, write_token(last, question)
            packed.append(message)
            last = key(item)
        if len(found) < _BATCH:
            return packed, ""


def fitting(messages: Sequence[Message]) -> int:
    """Return how many messages fit on a page; at least one."""
    room = PAGE.most
    for number, message in enumerate(messages):
        room -= message.ByteSize() + _LENGTH_BYTES
        if room < 0:
            return max(number, 1)
    return len(messages)


def write_token(key: Key, question: str) -> str:
    """Return the token of the page that begins after a key."""
    return base64.urlsafe_b64encode(json.dumps([question, *key]).encode()).decode()


def read_token(token: str, question: str, kinds: tuple[type, ...]) -> Key | None:
    """Return the key after which a page begins; `None` for the first page, whose token is `""`.

    Args:
        token: the page token, as somebody sent it.
        question: the query, which the token must match.
        kinds: types of a key's parts.

    Raises:
        InputError: if the token belongs to another query.
    """
    if not token:
        return None
    if len(token) > _LONGEST_TOKEN:
        raise _refuse(token)
    try:
        values = load_json(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise _refuse(token) from None
    if not isinstance(values, list) or values[:1] != [question]:
        raise _refuse(token)
    key = tuple(values[1:])
    if tuple(map(type, key)) != kinds or not all(map(_is_sound, key)):
        raise _refuse(token)
    return key


def _is_sound(part: int | str) -> bool:
    """Return whether a database accepts a part of an untrusted key."""
    if isinstance(part, str):
        return part.isprintable()
    return -1 <= part <= _LARGEST_NUMBER


def _refuse(token: str) -> InputError:
    return InputError(
        f"Expected the page token of the previous answer to the same query, but got "
        f"{shown(token)}. Leave it out to start at the first page."
    )
