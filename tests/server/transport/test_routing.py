"""Routing over several transports: one answer to every message, even if a route fails."""

from collections.abc import Iterator, Sequence

import pytest

from disinherit.server.transport.base import Answer, Ask
from disinherit.server.transport.routing import Route, RoutedTransport
from disinherit.v1 import unlearning_pb2 as pb


class Echo:
    """Answers everything, and remembers whom it asked."""

    def __init__(self, fails_after: int | None = None, forgets: Sequence[str] = ()) -> None:
        self.asked: list[str] = []
        self._fails_after = fails_after
        self._forgets = forgets

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        for count, ask in enumerate(asks):
            if count == self._fails_after:
                raise OSError("cable cut")
            if ask.owner not in self._forgets:
                self.asked.append(ask.owner)
                yield Answer(ask, pb.Identity(owner=ask.owner))


def ask(*owners: str) -> list[Ask]:
    return [Ask(owner, "query.identify", pb.Identity()) for owner in owners]


def answers(transport: RoutedTransport, asks: list[Ask]) -> dict[str, Answer]:
    found = list(transport.ask(asks, 5.0))
    assert len(found) == len(asks)
    return {answer.ask.owner: answer for answer in found}


def test_each_owner_is_asked_over_its_first_route() -> None:
    first, second = Echo(), Echo()
    transport = RoutedTransport(
        [Route(first, {"a", "b"}.__contains__), Route(second, {"b", "c"}.__contains__)]
    )
    found = answers(transport, ask("a", "b", "c", "d"))
    assert sorted(first.asked) == ["a", "b"]
    assert second.asked == ["c"]
    assert [owner for owner, answer in found.items() if answer.reply is None] == ["d"]
    assert found["d"].unreachable
    assert found["d"].error == "owner d is not connected"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Echo(fails_after=1), "owner b: its transport failed: cable cut"),
        (Echo(forgets=["b"]), "owner b: its transport gave no answer"),
    ],
)
def test_a_failed_route_loses_only_its_open_asks(
    broken: Echo, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = Echo()
    transport = RoutedTransport(
        [Route(broken, {"a", "b"}.__contains__), Route(good, {"c"}.__contains__)]
    )
    found = answers(transport, ask("a", "b", "c"))
    assert found["a"].reply is not None
    assert found["c"].reply is not None
    assert found["b"].error == reason
    assert found["b"].unreachable
    assert ("OSError: cable cut" in caplog.text) == ("failed" in reason)


def test_no_asks_yield_no_answers() -> None:
    assert answers(RoutedTransport([]), []) == {}
