"""The mailbox: one answer per ask, and slow owners do not block others."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from disinherit.server.transport import mailbox as module
from disinherit.server.transport.base import Answer, Ask
from disinherit.server.transport.mailbox import Mailbox
from disinherit.v1 import unlearning_pb2 as pb


class Slow:
    """Answers an owner's message when that owner's gate is open."""

    def __init__(self, *owners: str) -> None:
        self.gates = {owner: threading.Event() for owner in owners}
        self.asked: list[tuple[str, str]] = []

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        self.asked += [(ask.owner, ask.action) for ask in asks]
        for ask in asks:
            assert self.gates[ask.owner].wait(20.0)
            yield Answer(ask, pb.Identity(owner=ask.owner))


class Arrivals:
    """Counts arrived answers."""

    def __init__(self) -> None:
        self._count = threading.Semaphore(0)

    def __call__(self) -> None:
        self._count.release()

    def wait(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._count.acquire(timeout=20.0)


def ask(*owners: str, action: str = "query.identify") -> list[Ask]:
    return [Ask(owner, action, pb.Identity()) for owner in owners]


def test_a_late_answer_is_returned_to_the_next_equal_ask() -> None:
    slow, arrived = Slow("anna"), Arrivals()
    mailbox = Mailbox(slow, arrived)
    for _ in range(3):
        (answer,) = mailbox.ask(ask("anna"), 30.0)
        assert answer.reply is None
        assert (answer.unreachable, answer.awaited, answer.sent) == (True, True, True)
    slow.gates["anna"].set()
    arrived.wait()
    question = ask("anna")
    (answer,) = mailbox.ask(question, 30.0)
    assert answer == Answer(question[0], pb.Identity(owner="anna"))
    assert answer.ask is question[0]
    assert slow.asked == [("anna", "query.identify")]


def test_an_ask_is_sent_again_after_its_answer_was_picked_up() -> None:
    slow, arrived = Slow("anna"), Arrivals()
    slow.gates["anna"].set()
    mailbox = Mailbox(slow, arrived, wait=20.0)
    for _ in range(2):
        (answer,) = mailbox.ask(ask("anna"), 30.0)
        assert answer.reply == pb.Identity(owner="anna")
    assert len(slow.asked) == 2


def test_a_slow_owner_does_not_hold_up_the_others_answers() -> None:
    slow, arrived = Slow("anna", "ben"), Arrivals()
    slow.gates["anna"].set()
    mailbox = Mailbox(slow, arrived, wait=0.2)
    answers = mailbox.ask(ask("anna", "ben"), 30.0)
    first, second = next(answers), next(answers)
    assert (first.ask.owner, first.reply) == ("anna", pb.Identity(owner="anna"))
    assert (second.ask.owner, second.awaited) == ("ben", True)
    slow.gates["ben"].set()


def test_a_waiting_ask_comes_before_repeated_ones() -> None:
    slow, arrived = Slow("anna"), Arrivals()
    mailbox = Mailbox(slow, arrived)
    many = [ask("anna", action=f"part {number}") for number in range(3)]
    small = ask("anna", action="small")
    list(mailbox.ask(many[0], 30.0))
    (turned_away,) = mailbox.ask(small, 30.0)
    assert not turned_away.sent
    slow.gates["anna"].set()
    arrived.wait()
    assert next(mailbox.ask(many[0], 30.0)).reply is not None
    (first,) = mailbox.ask(many[1], 30.0)  # at once, as a pass with many parts does
    assert not first.sent
    list(mailbox.ask(small, 30.0))
    arrived.wait()
    assert [action for _, action in slow.asked] == ["part 0", "small"]
    assert next(mailbox.ask(small, 30.0)).reply is not None
    list(mailbox.ask(many[1], 30.0))
    arrived.wait()
    assert slow.asked[-1] == ("anna", "part 1")


def test_an_abandoned_ask_loses_its_place_in_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, arrived = Slow("anna"), Arrivals()
    mailbox = Mailbox(slow, arrived)
    list(mailbox.ask(ask("anna"), 30.0))
    list(mailbox.ask(ask("anna", action="paused meanwhile"), 30.0))
    slow.gates["anna"].set()
    arrived.wait()
    list(mailbox.ask(ask("anna"), 30.0))
    monkeypatch.setattr("disinherit.server.transport.mailbox._IN_LINE_SECONDS", -1.0)
    list(mailbox.ask(ask("anna", action="next"), 30.0))
    arrived.wait()
    assert slow.asked[-1] == ("anna", "next")


def test_an_owner_has_one_open_ask_at_a_time() -> None:
    slow, arrived = Slow("anna"), Arrivals()
    mailbox = Mailbox(slow, arrived)
    list(mailbox.ask(ask("anna"), 30.0))
    (answer,) = mailbox.ask(ask("anna", action="query.register"), 30.0)
    assert (answer.sent, answer.unreachable, answer.awaited) == (False, True, False)
    assert "has not answered an earlier message" in answer.error
    slow.gates["anna"].set()
    arrived.wait()
    # Once it is free, the other goes out, and the first one's answer is still there.
    list(mailbox.ask(ask("anna", action="query.register"), 30.0))
    arrived.wait()
    assert [a.reply for a in mailbox.ask(ask("anna"), 30.0)] == [pb.Identity(owner="anna")]
    assert slow.asked == [("anna", "query.identify"), ("anna", "query.register")]


def test_the_creation_time_does_not_identify_a_message() -> None:
    slow, arrived = Slow("anna"), Arrivals()
    mailbox = Mailbox(slow, arrived)
    for created in (1, 2):
        task = pb.UnlearnTask(request_id="q", created_us=created)
        (answer,) = mailbox.ask([Ask("anna", "train.unlearn", task)], 30.0)
        assert answer.awaited
        assert task.created_us == created
    other = pb.UnlearnTask(request_id="other")
    (answer,) = mailbox.ask([Ask("anna", "train.unlearn", other)], 30.0)
    assert not answer.sent
    assert len(slow.asked) == 1
    slow.gates["anna"].set()


def test_a_failed_transport_answers_every_ask() -> None:
    class Broken:
        def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
            for _ in asks:
                raise OSError("cable cut")
            return iter(())

    found = list(Mailbox(Broken(), lambda: None, wait=20.0).ask(ask("anna", "ben"), 1.0))
    assert sorted(answer.ask.owner for answer in found) == ["anna", "ben"]
    assert all(answer.unreachable and "cable cut" in answer.error for answer in found)


def test_abandoned_answers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, arrived = Slow("anna"), Arrivals()
    slow.gates["anna"].set()
    mailbox = Mailbox(slow, arrived)
    list(mailbox.ask(ask("anna"), 30.0))
    arrived.wait()
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)
    time.sleep(0.01)
    list(mailbox.ask(ask("anna"), 30.0))
    arrived.wait()
    assert len(slow.asked) == 2


def test_a_pass_waits_longer_for_many_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of ten thousand was answered before the last had left, and none was taken in."""
    monkeypatch.setattr(module, "_SENT_MEANWHILE", 1)
    owners = [f"owner-{number}" for number in range(100)]
    slow = Slow(*owners)

    def answer_all() -> None:
        for gate in slow.gates.values():
            gate.set()

    leaves = threading.Timer(1.0, answer_all)
    leaves.start()
    mailbox = Mailbox(slow, lambda: None, wait=0.2)
    assert all(answer.reply is not None for answer in mailbox.ask(ask(*owners), 30.0))
    leaves.join()
