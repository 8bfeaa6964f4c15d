"""Exchange of messages and replies with Flower nodes, over grids that lose messages.

Flower delivers at most once and creates some error replies itself, so replies are matched by the id
of their message.  Flower drops a message if its reply is pulled while the node is offline: replies
are therefore pulled only for online nodes.  A node that went offline after it got a message may
have crashed over it: the exchange gives the message up at once, so that it is sent again.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from disinherit.common.text import one_line

K = TypeVar("K", bound=Hashable)

POLL_SECONDS = 0.05

ALWAYS = "always"
"""The presence of a node that stays connected during the whole run."""

_NO_TURN = nullcontext()


def error_line(reply: Message) -> str:
    """Return a reply's error as one line: Flower's code and the last line of the reason.

    Args:
        reply: a message with an error.
    """
    lines = (reply.error.reason or "").strip().splitlines() or ["no reason given"]
    return f"Flower error {reply.error.code}: {one_line(lines[-1])}"


def exchange(
    grid: Grid,
    messages: Mapping[K, Message],
    timeout: float,
    presence: Callable[[int], str | None] = lambda _: ALWAYS,
    poll_seconds: float = POLL_SECONDS,
    turn: AbstractContextManager[object] = _NO_TURN,
) -> Iterator[tuple[K, Message | None]]:
    """Push messages and yield each one's reply as it arrives.

    Args:
        grid: Flower's grid.
        messages: key of the caller's choice -> message.
        timeout: seconds without any reply after which missing replies are given up.  Each reply
            restarts it, since a slow machine serves nodes one after the other.
        presence: as in a `Directory`.
        poll_seconds: interval of polling for replies.
        turn: entered for each use of the grid.

    Yields:
        Key and reply; key and `None` for a message that was not sent or not answered.
    """
    if not messages:
        return
    given = {key: presence(message.metadata.dst_node_id) for key, message in messages.items()}
    with turn:
        sent = set(grid.push_messages(list(messages.values())))
    # For nodes that are gone, a grid returns no id or an empty one.  It assigns every message its
    # id before that, so the messages' own ids identify them.
    ids = {key: message.metadata.message_id for key, message in messages.items()}
    waiting = {message_id: key for key, message_id in ids.items() if message_id in sent}
    for key, message_id in ids.items():
        if message_id not in sent:
            yield key, None
    deadline = time.monotonic() + timeout
    while waiting and time.monotonic() < deadline:
        there = {id: presence(messages[key].metadata.dst_node_id) for id, key in waiting.items()}
        present = [id for id, since in there.items() if since is not None]
        replies: list[Message] = []
        if present:
            with turn:
                replies = list(grid.pull_messages(present))
        for reply in replies:
            answered = reply.metadata.reply_to_message_id
            if answered in waiting:
                deadline = time.monotonic() + timeout
                yield waiting.pop(answered), reply
        for id in present:
            # A node that was offline at sending time gets the message now.
            if id in waiting and (given[waiting[id]] or there[id]) != there[id]:
                yield waiting.pop(id), None
            elif id in waiting:
                given[waiting[id]] = there[id]
        if waiting:
            time.sleep(poll_seconds)
    for key in waiting.values():
        yield key, None
