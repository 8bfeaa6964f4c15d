"""Pages of a sorted list, with tokens that callers hand back without looking into them.

A token holds the key of the last item sent, so a page is right even if items were added or removed
since the one before; and what was asked for, so that it is not used for another question.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from disinherit.common.errors import InputError

DEFAULT_SIZE = 100
LARGEST_SIZE = 1000

Key = tuple[int | str, ...]
T = TypeVar("T")


def fetch_page(
    after: Callable[[Key | None, int], Sequence[T]],
    key: Callable[[T], Key],
    kinds: tuple[type, ...],
    size: int,
    token: str,
    question: str,
) -> tuple[Sequence[T], str]:
    """Return one page of a list that is not at hand, and the token of the next one.

    Args:
        after: returns at most so many items after a key, or from the first one.
        key: distinct for every item.
        kinds: types of a key's parts.
        size: items on a page at most; 0 for the default, and never more than `LARGEST_SIZE`.
        token: of this page; `""` for the first.
        question: what is listed.

    Returns:
        The items, and the next page's token, `""` on the last page.

    Raises:
        InputError: if the token was not given for this question.
    """
    count = min(size or DEFAULT_SIZE, LARGEST_SIZE)
    last = _read(token, question) if token else None
    if last is not None and tuple(map(type, last)) != kinds:
        raise _refuse(token)
    found = after(last, count + 1)
    chosen = found[:count]
    return chosen, _write(key(chosen[-1]), question) if len(found) > count else ""


def _write(key: Key, question: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([question, *key]).encode()).decode()


def _read(token: str, question: str) -> Key:
    try:
        about, *key = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError):
        raise _refuse(token) from None
    if about != question:
        raise _refuse(token)
    return tuple(key)


def _refuse(token: str) -> InputError:
    return InputError(
        f"Expected the page token that came with the page before, for the same question, but got "
        f"{token[:80]!r}. Leave it out to start at the first page."
    )
