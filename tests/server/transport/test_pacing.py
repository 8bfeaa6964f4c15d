"""Intervals between equal asks: at most six in the first minute, then every five minutes."""

import itertools
import threading
from collections.abc import Iterator, Sequence

import pytest

from disinherit.server.transport.base import Answer, Ask
from disinherit.server.transport.mailbox import Mailbox
from disinherit.server.transport.pacing import Pacing
from disinherit.v1 import unlearning_pb2 as pb

REFUSED = pb.FisherReply(roots=[pb.RootFisher(model_id="r", error="no such sample")])
WITHHELD = pb.FisherReply(roots=[pb.RootFisher(model_id="r", error="too few", withheld=True)])


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def fisher(owner: str = "anna", request: str = "q") -> Ask:
    return Ask(owner, "query.fisher", pb.FisherTask(request_id=request))


def asked_at(pacing: Pacing, clock: Clock, reply: pb.FisherReply, seconds: int) -> list[int]:
    """The seconds at which a pass that comes every second has the same question sent."""
    times = []
    ask = fisher()
    for second in range(seconds):
        clock.now = float(second)
        standing = pacing.last("key", ask)
        if standing is not None:
            assert standing.reply == reply  # state and reason stay what they are
            continue
        times.append(second)
        pacing.sent("key", ask)
        pacing.answered("key", Answer(ask, reply=reply))
    return times


def test_the_wait_doubles_to_five_minutes() -> None:
    clock = Clock()
    times = asked_at(Pacing(clock), clock, REFUSED, 2000)
    assert times[:9] == [0, 1, 3, 7, 15, 31, 63, 127, 255]
    assert len([time for time in times if time < 60]) == 6
    assert {later - time for time, later in itertools.pairwise(times[9:])} == {300}


def test_withheld_information_waits_for_a_person_or_news() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    assert asked_at(pacing, clock, WITHHELD, 5000) == [0]
    pacing.release("another")
    assert pacing.last("key", fisher()) is not None
    pacing.release("q")
    assert pacing.last("key", fisher()) is None
    assert asked_at(Pacing(clock, withheld=60.0), clock, WITHHELD, 150) == [0, 60, 120]


def test_an_owner_with_news_is_asked_at_once_but_at_a_limited_rate() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    times = []
    for second in range(120):
        clock.now = float(second)
        pacing.hear("anna")  # it connects every second
        if pacing.last("key", fisher()) is None:
            times.append(second)
            pacing.sent("key", fisher())
            pacing.answered("key", Answer(fisher(), reply=REFUSED))
    assert times == [0, 1, 3, 7, 15, 31, 60]  # once at once, and then it waits as long as before
    pacing.hear("ben")
    assert pacing.last("key", fisher()) is not None


def test_a_partly_answered_ask_is_sent_at_once_and_keeps_its_interval() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    times: list[int] = []
    for second in range(60):
        clock.now = float(second)
        key = "both models" if not times else "one model"
        while pacing.last(key, fisher()) is None:
            times.append(second)
            pacing.sent(key, fisher())
            pacing.answered(key, Answer(fisher(), reply=REFUSED))
            key = "one model"
    assert times == [0, 0, 2, 6, 14, 30]


def test_early_news_take_effect_later() -> None:
    clock = Clock()
    pacing = Pacing(clock)
    pacing.hear("anna")
    pacing.sent("key", fisher())
    pacing.answered("key", Answer(fisher(), reply=WITHHELD))
    clock.now = 10.0
    pacing.hear("anna")  # with another release policy
    assert pacing.last("key", fisher()) is not None
    clock.now = 60.0
    assert pacing.last("key", fisher()) is None


def test_an_unreachable_owner_is_asked_when_it_is_back() -> None:
    pacing = Pacing(Clock())
    for _ in range(5):
        assert pacing.last("key", fisher()) is None
        pacing.sent("key", fisher())
        pacing.answered("key", Answer(fisher(), error="not connected", unreachable=True))


def test_asks_by_a_person_are_not_delayed() -> None:
    pacing = Pacing(Clock())
    register = Ask("anna", "query.register", pb.RegisterTask())
    for _ in range(5):
        assert pacing.last("key", register) is None
        pacing.sent("key", register)
        pacing.answered("key", Answer(register, error="owner anna: no"))


def test_large_useless_answers_are_not_kept() -> None:
    pacing = Pacing(Clock())
    reply = pb.FisherReply(roots=[pb.RootFisher(packets=[pb.FisherPacket(tensors=bytes(10**6))])])
    pacing.sent("key", fisher())
    pacing.answered("key", Answer(fisher(), reply=reply))
    standing = pacing.last("key", fisher())
    assert standing is not None
    assert standing.reply is None
    assert "its last answer, of 1,000," in standing.error


@pytest.mark.parametrize("reply", [REFUSED, None])
def test_passes_started_by_answers_do_not_ask_endlessly(
    reply: pb.FisherReply | None,
) -> None:
    """As the driver does: each answer that arrives makes the next pass at once."""
    out: list[Ask] = []
    arrived = threading.Event()

    class Refusing:
        def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
            out.extend(asks)
            for ask in asks:
                yield Answer(ask, reply=reply, error="" if reply else "owner anna: no")

    mailbox = Mailbox(Refusing(), arrived.set, wait=5.0)
    other = fisher("ben", "another")
    for _ in range(300):
        (answer,) = mailbox.ask([fisher()], 1.0)
        assert (answer.reply, answer.unreachable) == (reply, False)
    assert len([ask for ask in out if ask.owner == "anna"]) <= 3  # within a second or so
    list(mailbox.ask([other], 1.0))
    assert out[-1] == other  # nobody else waits for it
