"""Routing of messages over several transports, by owner."""

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from disinherit.server.transport.base import Answer, Ask, Transport, not_connected

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """A transport and the owners it reaches.

    Attributes:
        transport: carries the messages.
        reaches: returns whether the transport reaches an owner now.
    """

    transport: Transport
    reaches: Callable[[str], bool]


class RoutedTransport:
    """Sends every message by the first route that reaches its owner; all routes in parallel.

    An owner without a route is unreachable for now.  So is an owner on a route that fails or gives
    no answer, since the message may or may not have arrived.

    Args:
        routes: the routes, the preferred one first.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Send all messages in parallel and yield exactly one answer for each.

        Args:
            asks: at most one message to an owner at a time.
            timeout: seconds after which a missing answer becomes an error.

        Yields:
            The answers, as they arrive.
        """
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        by_route: dict[int, list[Ask]] = {}
        for ask in asks:
            number = self._number(ask.owner)
            if number is None:
                answers.put(not_connected(ask))
            else:
                by_route.setdefault(number, []).append(ask)
        for number, mine in by_route.items():
            threading.Thread(
                target=carry,
                args=(self._routes[number].transport, mine, timeout, answers.put),
                name=f"route-{number}",
                daemon=True,
            ).start()
        for _ in asks:
            answer = answers.get()
            yield answer if answers.empty() else replace(answer, more=True)

    def _number(self, owner: str) -> int | None:
        reaching = (i for i, route in enumerate(self._routes) if route.reaches(owner))
        return next(reaching, None)


def carry(
    transport: Transport, asks: Sequence[Ask], timeout: float, put: Callable[[Answer], None]
) -> None:
    """Hand over exactly one answer for every ask, even if the transport fails.

    Args:
        transport: carries the messages.
        asks: at most one message to an owner at a time.
        timeout: seconds after which a missing answer becomes an error.
        put: receives the answers as they arrive.
    """
    open_asks = {id(ask): ask for ask in asks}
    reason = "its transport gave no answer"
    try:
        for answer in transport.ask(asks, timeout):
            if open_asks.pop(id(answer.ask), None) is not None:
                put(answer)
    except Exception as error:  # one route's failure must not end the others
        _log.exception("a transport to owners failed")
        reason = f"its transport failed: {error}"
    for ask in open_asks.values():
        put(Answer(ask, error=f"owner {ask.owner}: {reason}", unreachable=True))
