"""The ClientApp called directly: every action unpacks, calls its handler, and packs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest
from google.protobuf.message import Message as Protobuf

from disinherit.client.actions.evaluate import evaluate, preview
from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.client_app import build_client_app
from disinherit.client.dampening.summaries import register
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import CampaignError, InputError
from disinherit.common.wire.flower import pack, unpack
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.flower_messages import ClientApp, Context, RecordDict, call
from tests.support.owner import LABELS, PointsOwner

METHOD = make_method()

P = TypeVar("P", bound=Protobuf)


class Organisation:
    """Owners "anna" and "bert" in one folder; counts how many of their stores are open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open = 0

    @contextmanager
    def owner(self, context: Context) -> Iterator[PointsOwner]:
        name = str(context.node_config["owner"])
        with PointsOwner(self.root / name, name) as owner:
            self.open += 1
            try:
                yield owner
            finally:
                self.open -= 1


@pytest.fixture
def organisation(tmp_path: Path) -> Organisation:
    for name in ("anna", "bert"):
        with PointsOwner(tmp_path / name, name) as owner:
            owner.train("m", LABELS, 1)
            owner.train("n", LABELS[:3], 2, start=[owner.store.weights("m")])
    return Organisation(tmp_path)


@pytest.fixture
def app(organisation: Organisation) -> ClientApp:
    return build_client_app(organisation.owner)


def ask(app: ClientApp, action: str, task: Protobuf, kind: type[P], owner: str = "anna") -> P:
    reply = call(app, action, pack(task), owner=owner)
    assert not reply.has_error()
    return unpack(reply.content, kind)


@pytest.mark.parametrize("name", ["anna", "bert"])
def test_node_identifies_its_owner(app: ClientApp, name: str) -> None:
    assert ask(app, "query.identify", pb.Identity(), pb.Identity, name).owner == name


def test_a_request_from_registration_to_verification(
    app: ClientApp, organisation: Organisation
) -> None:
    registered = ask(app, "query.register", pb.RegisterTask(scope="head"), pb.RegisterReply)
    assert [model.id for model in registered.models] == ["m", "n"]
    assert all(model.fisher_digest for model in registered.models)

    roots = [pb.Root(model_id="m", classes=["cat"])]
    fisher_task = pb.FisherTask(request_id="forget", roots=roots, method=METHOD.to_proto())
    answer = ask(app, "query.fisher", fisher_task, pb.FisherReply)
    (packet,) = answer.roots[0].packets

    with PointsOwner(organisation.root / "anna", "anna") as owner:
        task = make_task(owner, ["n"], packet, METHOD)
    expected = ask(app, "evaluate.preview", task, pb.EvaluateReply).models[0]
    (result,) = ask(app, "train.unlearn", task, pb.UnlearnReply).models
    assert result.outcome == pb.OUTCOME_APPLIED
    (again,) = ask(app, "train.unlearn", task, pb.UnlearnReply).models
    assert again.outcome == pb.OUTCOME_ALREADY_APPLIED

    check = pb.EvaluateTask(model_ids=[result.successor.id])
    (found,) = ask(app, "evaluate.panel", check, pb.EvaluateReply).models
    assert found.digest == result.successor.digest == expected.digest
    assert found.confusion == expected.confusion
    assert organisation.open == 0

    with PointsOwner(organisation.root / "bert", "bert") as other:
        assert [record.id for record in other.store.records()] == ["m", "n"]


def test_replies_are_those_of_the_handlers(app: ClientApp, organisation: Organisation) -> None:
    with PointsOwner(organisation.root / "anna", "anna") as owner:
        panel = pb.EvaluateTask(model_ids=["m", "nobody"])
        roots = pb.FisherTask(
            roots=[pb.Root(model_id="m", classes=["owl"])], method=METHOD.to_proto()
        )
        task = make_task(owner, ["m"], collect(owner, "m", ["owl"], METHOD), METHOD)
        expected = [evaluate(owner, panel), preview(owner, task)]
        packets = forget_fishers(owner, roots).roots[0].packets
    assert ask(app, "evaluate.panel", panel, pb.EvaluateReply) == expected[0]
    assert ask(app, "evaluate.preview", task, pb.EvaluateReply) == expected[1]
    assert ask(app, "query.fisher", roots, pb.FisherReply).roots[0].packets == packets
    reply = ask(app, "train.unlearn", task, pb.UnlearnReply)
    with PointsOwner(organisation.root / "anna", "anna") as owner:
        repeated = unlearn(owner, task)
        assert reply.models[0].successor == repeated.models[0].successor
        register_task = pb.RegisterTask(scope="head", model_ids=["n"])
        registered = ask(app, "query.register", register_task, pb.RegisterReply)
        assert registered == register(owner, register_task)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("query.register", "RegisterTask"),
        ("query.fisher", "FisherTask"),
        ("train.unlearn", "UnlearnTask"),
        ("evaluate.panel", "EvaluateTask"),
        ("evaluate.preview", "UnlearnTask"),
    ],
)
def test_a_wrong_schema_is_refused_by_name(
    app: ClientApp, organisation: Organisation, action: str, expected: str
) -> None:
    message = rf"carries disinherit\.v1\.{expected}, but got 'disinherit\.v1\.Identity'"
    with pytest.raises(InputError, match=message):
        call(app, action, pack(pb.Identity(owner="anna")), owner="anna")
    with pytest.raises(InputError, match=rf"carries disinherit\.v1\.{expected}, but got \[\]"):
        call(app, action, RecordDict(), owner="anna")
    assert organisation.open == 0


def test_an_error_of_the_whole_message_closes_the_owner(
    app: ClientApp, organisation: Organisation
) -> None:
    task = pb.RegisterTask(scope="head", model_ids=["nobody"])
    with pytest.raises(Exception, match="but got 'nobody', which is not there"):
        call(app, "query.register", pack(task), owner="anna")
    assert organisation.open == 0


@pytest.mark.parametrize("where", ["opening", "weights"])
def test_errors_of_owner_code_are_not_sent_by_flower(
    where: str, organisation: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = FileNotFoundError(2, "No such file", "/data/patients/jane-doe-1971.png")

    def fails(*_: object) -> NoReturn:
        raise said

    if where == "opening":
        app = build_client_app(fails)
    else:
        app = build_client_app(organisation.owner)
        monkeypatch.setattr(ModelStore, "records", fails)
    with pytest.raises(CampaignError, match="got FileNotFoundError.*under reference") as caught:
        call(app, "query.register", pack(pb.RegisterTask(scope="head")), owner="anna")
    assert "jane" not in str(caught.value)
    assert caught.value.__cause__ is said  # for the node's own log


def test_an_unknown_action_is_flowers_own_error(app: ClientApp) -> None:
    with pytest.raises(ValueError, match="No query function registered with name 'weights'"):
        call(app, "query.weights", pack(pb.Identity()), owner="anna")
