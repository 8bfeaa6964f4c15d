"""Messages to Flower nodes and the replies to them, for grids that lose messages.

Flower delivers at most once and makes some errors itself, so replies are matched to messages by the
id they reply to.  A node that is offline when its reply is looked for loses the message: so nobody
looks then, and the message waits for the node.  One that has been away since it got a message may
have died over it: its message is given up at once, to be sent again.
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
"""The presence of a node that is there as long as the run is."""

_NO_TURN = nullcontext()


def error_line(reply: Message) -> str:
    """Return what a reply with an error says, in one line: Flower's code and its last words.

    Args:
        reply: a message that has an error.
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
        grid: the way to the nodes.
        messages: what to send, by a key of the caller's.
        timeout: seconds without any reply after which missing ones are given up.  While replies
            come in, a slow machine makes progress, and the others may be waiting for their turn.
        presence: as in a `Directory`.
        poll_seconds: between two looks for replies.
        turn: entered whenever the grid is used.

    Yields:
        Key and reply, or key and `None` for a message that could not be sent, or whose reply did
        not come.
    """
    if not messages:
        return
    given = {key: presence(message.metadata.dst_node_id) for key, message in messages.items()}
    with turn:
        sent = set(grid.push_messages(list(messages.values())))
    # A grid leaves out, or leaves empty, the ids of messages to nodes that are gone.  It gives
    # every message its id first, so that is what tells them apart.
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
            # One that was away when the message was sent gets it now.
            if id in waiting and (given[waiting[id]] or there[id]) != there[id]:
                yield waiting.pop(id), None
            elif id in waiting:
                given[waiting[id]] = there[id]
        if waiting:
            time.sleep(poll_seconds)
    for key in waiting.values():
        yield key, None
