"""Registrations in batches: as one by one, but in one transaction and with few statements."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from sqlalchemy import event

from disinherit.common import limits
from disinherit.common.graph.proto import inheritance_to_proto, record_to_proto
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord
from disinherit.common.wire.received import received_edges, received_record
from disinherit.server.service.models import Models
from disinherit.server.service.principals import Principal, Role
from disinherit.server.store.store import CoordinatorStore
from disinherit.v1 import coordinator_pb2 as pb
from tests.support.service import Running

Code = grpc.StatusCode
OPERATOR = Principal("operator", Role.OPERATOR)
ANNA = Principal("anna", Role.OWNER, "anna")
MANY = 40


def version(id: str, owner: str = "anna", *parents: str) -> pb.RegisterModelRequest:
    record = ModelRecord(id, owner, "aa", ("cat", "dog"), "ab" * 32, 0)
    edges = [Inheritance(parent, id, InheritanceKind.INCREMENTAL) for parent in parents]
    return pb.RegisterModelRequest(
        record=record_to_proto(record), parents=map(inheritance_to_proto, edges)
    )


MESSAGES = [
    version("a"),
    version("b", "anna", "a"),
    version("c", "ben", "b"),
    version("wrong", "anna", "nobody"),
    version("d", "anna", "c", "a"),
    version("a"),  # once more
    version("a", "ben"),  # which is anna's
    pb.RegisterModelRequest(),
    version("e", "anna", "wrong"),
    version("f", "anna", "d"),
]


@pytest.fixture
def store(tmp_path: Path, database: str | None) -> Iterator[CoordinatorStore]:
    store = CoordinatorStore(database or tmp_path / "c.db")
    yield store
    store.close()


def one_by_one(store: CoordinatorStore, caller: Principal) -> list[str]:
    models, whys = Models(store, lambda _: None), []
    for message in MESSAGES:
        try:
            record = received_record(message.record)
            models.register(caller, record, received_edges(message.parents))
        except ValueError as error:
            whys.append(str(error))
        else:
            whys.append("")
    return whys


@pytest.mark.parametrize("caller", [OPERATOR, ANNA], ids=["operator", "owner"])
def test_a_batch_is_what_one_by_one_is(
    store: CoordinatorStore, tmp_path: Path, caller: Principal
) -> None:
    heard: list[str] = []
    answer = Models(store, heard.append).register_all(caller, MESSAGES)
    slow = CoordinatorStore(tmp_path / "slow.db")
    assert [one.refused for one in answer.models] == one_by_one(slow, caller)
    assert [one.id for one in answer.models] == [message.record.id for message in MESSAGES]
    quick_graph, slow_graph = store.graph(), slow.graph()
    assert quick_graph.edges() == slow_graph.edges()
    records = [record_to_proto(record) for record in quick_graph.models()]
    times = {record.id: record.created_us for record in records}
    assert times == {one.id: one.created_us for one in answer.models if not one.refused}
    for record, other in zip(records, map(record_to_proto, slow_graph.models()), strict=True):
        other.created_us = record.created_us
        assert record == other
    assert sorted(heard) == sorted({record.owner for record in records})
    again = Models(store, heard.append).register_all(caller, MESSAGES)
    assert again == answer
    slow.close()


def test_a_version_of_a_batch_takes_few_statements(store: CoordinatorStore) -> None:
    statements: list[str] = []

    def count(*args: object) -> None:
        statements.append(str(args[2]))

    models = Models(store, lambda _: None)
    models.register_all(OPERATOR, [version("m0")])
    event.listen(store._database._writer, "before_cursor_execute", count)
    batch = [version(f"m{i}", "anna", f"m{i - 1}") for i in range(1, MANY)]
    models.register_all(OPERATOR, batch)
    event.remove(store._database._writer, "before_cursor_execute", count)
    # A savepoint and its end, the version, its edge and its entry in the log.
    assert len(statements) <= 5 * MANY + 10


def test_each_message_of_a_stream_is_answered_once_it_is_stored(running: Running) -> None:
    anna, answered = running.client("anna"), list[str]()

    def messages() -> Iterator[pb.RegisterModelsRequest]:
        for begin in range(0, 30, 10):
            ids = [f"new{i}" for i in range(begin, begin + 10)]
            yield pb.RegisterModelsRequest(models=[version(id) for id in ids])

    for answer in anna.RegisterModels(messages()):
        assert not any(one.refused for one in answer.models)
        answered += [one.id for one in answer.models]
        assert set(answered) <= set(running.world.store.records(answered))
    assert answered == [f"new{i}" for i in range(30)]
    other = iter([pb.RegisterModelsRequest(models=[version("x", "ben")])])
    ((only,),) = [answer.models for answer in anna.RegisterModels(other)]
    assert "'anna'" in only.refused


def test_a_message_with_too_many_registrations_is_refused(running: Running) -> None:
    many = pb.RegisterModelsRequest(models=[version("x")] * (limits.BATCH.most + 1))
    with pytest.raises(grpc.RpcError) as refused:
        list(running.client("anna").RegisterModels(iter([many])))
    assert refused.value.code() is Code.INVALID_ARGUMENT
    assert "(batch)" in str(refused.value.details())
    assert not running.world.store.records(["x"])
