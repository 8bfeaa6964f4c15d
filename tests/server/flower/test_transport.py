"""The Flower transport on a grid that loses, delays, mixes up and invents messages."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from flwr.app import Error, Message, RecordDict

from disinherit.common.errors import CampaignError
from disinherit.common.wire.flower import pack, unpack
from disinherit.server.flower.exchange import exchange
from disinherit.server.flower.owners import NamedOwners
from disinherit.server.flower.transport import FlowerTransport
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.fake_grid import FakeGrid, Node, content

IDENTITY = pb.Identity.DESCRIPTOR.full_name
REPLY = pb.EvaluateReply.DESCRIPTOR.full_name


def owner(name: str, then: Node | None = None) -> Node:
    """A node that reports its owner's name, and answers other messages with `then`."""

    def node(message: Message) -> Message | None:
        if message.metadata.message_type == "query.identify":
            return Message(pack(pb.Identity(owner=name)), reply_to=message)
        return (then or evaluated(name))(message)

    return node


def evaluated(name: str) -> Node:
    """Answers an evaluation with the models that were asked for, and its own name as digest."""

    def node(message: Message) -> Message:
        task = unpack(message.content, pb.EvaluateTask)
        models = [pb.Evaluation(model_id=model, digest=name) for model in task.model_ids]
        return Message(pack(pb.EvaluateReply(models=models)), reply_to=message)

    return node


def says(reply: RecordDict) -> Node:
    return lambda message: Message(reply, reply_to=message)


def fails(code: int, reason: str | None = "no") -> Node:
    return lambda message: Message(Error(code, reason), reply_to=message)


def silent(_: Message) -> None:
    return None


def ask_for(name: str, *models: str) -> Ask:
    return Ask(name, "evaluate.panel", pb.EvaluateTask(model_ids=models))


def connect(grid: FakeGrid, expected: int = 1) -> FlowerTransport:
    return FlowerTransport(grid, NamedOwners(grid, expected, timeout=1.0))


def only_answer(then: Node, timeout: float = 0.2) -> Answer:
    transport = connect(FakeGrid({7: owner("anna", then)}))
    (answer,) = transport.ask([ask_for("anna", "m")], timeout)
    assert answer.ask == ask_for("anna", "m")
    return answer


class SlowGrid(FakeGrid):
    """Gives out at most one reply in so many seconds."""

    def __init__(self, nodes: dict[int, Node], seconds: float) -> None:
        super().__init__(nodes)
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        if time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + self._seconds
        return super().pull_messages(message_ids)


def test_an_answer_that_is_too_large_is_not_read() -> None:
    transport = connect(FakeGrid({7: owner("anna")}))
    (answer,) = transport.ask([replace(ask_for("anna", "m"), most_bytes=5)], 0.2)
    assert answer.reply is None
    assert answer.error.startswith("owner anna: Expected an answer of at most 5 bytes")


# --- who is there


def test_owners_are_found_by_reported_names() -> None:
    grid = FakeGrid({7: owner("anna"), 3: owner("ben")})
    assert NamedOwners(grid, expected=2, timeout=1.0).nodes == {"anna": 7, "ben": 3}


@pytest.mark.parametrize(
    "other",
    [
        silent,
        fails(2),
        says(RecordDict()),
        says(content("someone.Else", b"")),
        says(content(IDENTITY, b"\xff")),
        says(content(IDENTITY, "text")),
        says(pack(pb.Identity())),
        says(pack(pb.Identity(owner="../anna"))),
    ],
)
def test_a_node_without_an_owners_name_is_left_out(other: Node) -> None:
    grid = FakeGrid({1: other, 7: owner("anna")})
    assert NamedOwners(grid, expected=2, timeout=0.2).nodes == {"anna": 7}


def test_two_nodes_of_one_owner_are_refused() -> None:
    grid = FakeGrid({7: owner("anna"), 8: owner("anna")})
    with pytest.raises(CampaignError, match=r"one node for owner 'anna', but two .*[78] and [78]"):
        NamedOwners(grid, expected=2, timeout=1.0)


@pytest.mark.parametrize(("nodes", "found"), [({}, 0), ({1: fails(2), 2: silent}, 2)])
def test_without_any_owner_there_is_no_campaign(nodes: dict[int, Node], found: int) -> None:
    with pytest.raises(CampaignError, match=f"of {found} none reported its owner"):
        NamedOwners(FakeGrid(nodes), timeout=0.1)


def test_the_error_without_owners_has_every_nodes_reason() -> None:
    nodes = {
        1: fails(2),
        2: silent,
        3: says(RecordDict()),
        4: says(pack(pb.Identity(owner="../a"))),
    }
    with pytest.raises(CampaignError) as raised:
        NamedOwners(FakeGrid(nodes), expected=4, timeout=0.1)
    message = str(raised.value)
    assert "of 4 none reported its owner" in message
    assert "node 1: Flower error 2: " in message
    assert "node 2: it did not answer, and no other node did for 0.1 s" in message
    assert "node 3: it does not run Disinherit's ClientApp: " in message
    assert "node 4: it does not run Disinherit's ClientApp: " in message
    assert len(message.splitlines()) == 1


def test_no_node_is_given_up_while_answers_arrive() -> None:
    """A slow machine answers one node after the other: each answer gives the others more time."""
    grid = SlowGrid({n: owner(f"owner-{n}") for n in range(6)}, seconds=0.5)
    started = time.monotonic()
    assert len(NamedOwners(grid, expected=6, timeout=2.0).nodes) == 6
    assert time.monotonic() - started > 2.0  # longer than any single wait may take


def test_late_nodes_are_waited_for() -> None:
    class Growing(FakeGrid):
        looks = 0

        def get_node_ids(self) -> list[int]:
            self.looks += 1
            return list(self.nodes)[: self.looks]

    grid = Growing({7: owner("anna"), 8: owner("ben"), 9: owner("cleo")})
    assert NamedOwners(grid, expected=3, timeout=5.0).nodes.keys() == {"anna", "ben", "cleo"}


def test_missing_nodes_are_waited_for_until_the_timeout() -> None:
    started = time.monotonic()
    owners = NamedOwners(FakeGrid({7: owner("anna")}), expected=5, timeout=0.2)
    assert owners.nodes == {"anna": 7}
    assert 0.2 <= time.monotonic() - started < 2.0


# --- questions and answers


def test_every_message_is_answered_by_its_own_reply() -> None:
    # Replies come one by one and last first, and all of them claim to be of one node.
    def anonymous(name: str) -> Node:
        def node(message: Message) -> Message:
            reply = evaluated(name)(message)
            assert reply is not None
            reply.metadata.__dict__["_src_node_id"] = 1
            return reply

        return node

    names = ["anna", "ben", "cleo", "dora"]
    grid = FakeGrid({i: owner(name, anonymous(name)) for i, name in enumerate(names, start=1)})
    transport = connect(grid, 4)
    asks = [ask_for(name, f"model-of-{name}") for name in names]

    answers = list(transport.ask(asks, 5.0))

    assert [answer.ask.owner for answer in answers] == list(reversed(names))
    for answer in answers:
        assert answer.ask in asks
        assert (answer.error, answer.unreachable) == ("", False)
        assert isinstance(answer.reply, pb.EvaluateReply)
        name = answer.ask.owner
        assert answer.reply.models[0] == pb.Evaluation(model_id=f"model-of-{name}", digest=name)


def test_a_message_has_action_node_and_time_to_live() -> None:
    grid = FakeGrid({7: owner("anna")})
    list(connect(grid).ask([ask_for("anna", "m")], 12.0))
    metadata = grid.pushed[-1].metadata
    assert (metadata.dst_node_id, metadata.message_type, metadata.ttl) == (7, "evaluate.panel", 12)


def test_answers_come_as_they_arrive() -> None:
    # The silent owner is not waited for before the other's answer is handed on.
    grid = FakeGrid({7: owner("anna", silent), 8: owner("ben")})
    answers = connect(grid, 2).ask([ask_for("anna", "m"), ask_for("ben", "n")], 0.5)
    started = time.monotonic()
    assert next(answers).ask.owner == "ben"
    assert time.monotonic() - started < 0.4
    assert [answer.ask.owner for answer in answers] == ["anna"]


@pytest.mark.parametrize(
    ("code", "unreachable"), [(0, False), (2, False), (3, True), (5, True), (7, False), (8, False)]
)
def test_flower_errors_decide_whether_the_owner_may_answer_later(
    code: int, unreachable: bool
) -> None:
    answer = only_answer(fails(code, "Traceback:\n  line 1\nValueError: no room\x1b[2J\n"))
    assert answer.reply is None
    assert answer.unreachable is unreachable
    assert answer.error == (
        f"owner anna could not handle evaluate.panel: Flower error {code}: ValueError: no room [2J"
    )


@pytest.mark.parametrize("reason", ["", None, "  \n "])
def test_an_error_without_a_reason_is_reported_as_such(reason: str | None) -> None:
    assert only_answer(fails(2, reason)).error.endswith("Flower error 2: no reason given")


def test_an_owner_that_does_not_answer_in_time_may_answer_later() -> None:
    started = time.monotonic()
    answer = only_answer(silent, timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 2.0
    assert answer.reply is None
    assert answer.unreachable
    assert "did not answer within 0.3 s" in answer.error


def test_an_owner_that_is_not_connected_is_not_asked() -> None:
    grid = FakeGrid({7: owner("anna")})
    transport = connect(grid)
    sent = len(grid.pushed)
    nobody, anna = transport.ask([ask_for("nobody", "m"), ask_for("anna", "n")], 1.0)
    assert nobody == Answer(
        ask_for("nobody", "m"),
        error="owner nobody is not connected",
        unreachable=True,
        sent=False,
    )
    assert anna.reply is not None
    assert len(grid.pushed) == sent + 1


@pytest.mark.parametrize("missing", [(), ("",), (None,)])
def test_a_node_that_is_gone_is_not_waited_for(missing: tuple[str | None, ...]) -> None:
    # Answers of Flower's simulation and deployment to an undeliverable message.
    grid = FakeGrid({7: owner("anna"), 8: owner("ben")}, missing)
    transport = connect(grid, 2)
    del grid.nodes[7]
    started = time.monotonic()
    answers = {
        answer.ask.owner: answer
        for answer in transport.ask([ask_for("anna", "m"), ask_for("ben", "n")], 60.0)
    }
    assert time.monotonic() - started < 10.0
    assert answers["anna"].unreachable
    assert "could not be reached" in answers["anna"].error
    assert answers["ben"].reply == pb.EvaluateReply(
        models=[pb.Evaluation(model_id="n", digest="ben")]
    )


def test_replies_to_nothing_are_ignored() -> None:
    grid = FakeGrid({7: owner("anna")})
    transport = connect(grid)
    list(transport.ask([ask_for("anna", "old")], 1.0))
    old = grid.pushed[-1]
    grid.stray = [Message(pack(pb.EvaluateReply()), reply_to=old)] * 2
    (answer,) = transport.ask([ask_for("anna", "new")], 1.0)
    assert isinstance(answer.reply, pb.EvaluateReply)
    assert [evaluation.model_id for evaluation in answer.reply.models] == ["new"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (RecordDict(), f"carries {REPLY}"),
        (pack(pb.Identity(owner="anna")), f"but got '{IDENTITY}'"),
        (content(REPLY, "text"), f"bytes of {REPLY}"),
        (content(REPLY, b"\xff\xff"), "damaged"),
    ],
)
def test_an_answer_of_the_wrong_schema_is_an_error_of_its_owner(
    reply: RecordDict, reason: str
) -> None:
    answer = only_answer(says(reply))
    assert answer.reply is None
    assert not answer.unreachable
    assert answer.error.startswith("owner anna answered wrongly: ")
    assert reason in answer.error


@pytest.mark.parametrize("kind", [silent, evaluated("anna"), fails(5), says(RecordDict())])
def test_there_is_exactly_one_answer_to_each_question(kind: Callable[[Message], Message]) -> None:
    grid = FakeGrid({7: owner("anna", kind), 8: owner("ben")})
    transport = connect(grid, 2)
    asks = [ask_for(name, "m") for name in ("anna", "nobody", "ben")]
    answers = list(transport.ask(asks, 0.2))
    assert sorted(answer.ask.owner for answer in answers) == ["anna", "ben", "nobody"]
    assert all((answer.reply is None) == bool(answer.error) for answer in answers)


def test_no_asks_give_no_answers() -> None:
    assert list(exchange(FakeGrid({}), {}, 60.0)) == []
