"""Hostile input, in four tables: refused with the right status, logged, and nothing changed.

Calls go to a real service on loopback, with and without TLS; answers come from owners that lie
towards the real coordinator; messages go to the real Flower ClientApp.  What needs more than a
table is in `campaign.test_distrust`, `agents.test_servicer`, `service.test_security` and
`flower.test_owners` of tests/server.
"""

import hashlib
import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from disinherit.client.agent import Identity
from disinherit.client.client_app import build_client_app
from disinherit.common.wire.flower import pack, unpack
from disinherit.common.wire.packets import decode_fisher, encode_fisher
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.states import TaskState
from disinherit.v1 import agents_pb2, coordinator_pb2
from disinherit.v1 import graph_pb2 as graph
from disinherit.v1 import unlearning_pb2 as pb
from disinherit.v1.agents_pb2_grpc import AgentsStub
from tests.server.agents.test_servicer import Caller, certificate_request, hello
from tests.support.agent import AgentsSide, wait_for
from tests.support.campaign import AFFECTED, OWNERS, World, copy, lying, make_request
from tests.support.client_tasks import collect, files_of, make_method, make_task
from tests.support.flower_messages import ClientApp, Context, call
from tests.support.owner import LABELS, PointsOwner
from tests.support.service import Client, Running, secret, serving

TRAVERSING = "../../etc/passwd"
GIGABYTE = 2**30


def refused(act: Callable[[], Any]) -> str:
    """The status with which a call is refused."""

    def whole() -> None:
        list(act())  # a stream is refused when it is read

    with pytest.raises(grpc.RpcError) as raised:
        whole()
    return str(raised.value.code().name)


def audit(world: World) -> list[bytes]:
    """The entries of the audit log, without the line about the export."""
    return list(world.store.audit_lines())[1:]


# --- 1. Calls of the control plane


@pytest.fixture(scope="module")
def running(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = shutil.copytree(built, tmp_path_factory.mktemp("served") / "root")
    with serving(root) as running:
        digest = hashlib.sha256(secret("old").encode()).hexdigest()
        with (root / "tokens.toml").open("a") as tokens:
            tokens.write(
                f'[[token]]\nname = "old"\nrole = "viewer"\nsha256 = "{digest}"\n'
                "expires = 2020-01-01T00:00:00Z\n"
            )
        running.client("operator").SubmitRequest(
            coordinator_pb2.SubmitRequestRequest(request=make_request())
        )
        yield running


def record(**changes: str) -> coordinator_pb2.RegisterModelRequest:
    values: dict[str, Any] = {
        "id": "new",
        "owner": "ben",
        "architecture": "ab",
        "digest": "ab" * 32,
        **changes,
    }
    return coordinator_pb2.RegisterModelRequest(
        record=graph.ModelRecord(labels=LABELS, created_us=99, **values)
    )


def submit(request: pb.UnlearningRequest) -> coordinator_pb2.SubmitRequestRequest:
    return coordinator_pb2.SubmitRequestRequest(request=request)


def at_root(model_id: str) -> pb.UnlearningRequest:
    request = make_request({"m": ("cat",)}, "w")
    request.roots[0].model_id = model_id
    return request


def renamed(request_id: str) -> pb.UnlearningRequest:
    request = make_request()
    request.id = request_id
    return request


def huge(running: Running) -> Any:
    """A message of a gigabyte, sent for real."""
    send = running.channel.unary_unary(
        "/disinherit.v1.Coordinator/SubmitRequest", request_serializer=bytes
    )
    metadata = [("authorization", f"Bearer {secret('operator')}")]
    return send(GIGABYTE, metadata=metadata, timeout=60.0)


Calls = dict[str, tuple[Callable[[Running], Any], str, str]]
CALLS: Calls = {
    "no token": (
        lambda r: Client(r.channel, "").ListModels(coordinator_pb2.ListModelsRequest()),
        "UNAUTHENTICATED",
        "Expected a token",
    ),
    "a token that nobody has": (
        lambda r: Client(r.channel, "guess").ListModels(coordinator_pb2.ListModelsRequest()),
        "UNAUTHENTICATED",
        "Expected a valid token",
    ),
    "an expired token": (
        lambda r: r.client("old").ListModels(coordinator_pb2.ListModelsRequest()),
        "UNAUTHENTICATED",
        "'old' expired",
    ),
    "a viewer that submits": (
        lambda r: r.client("viewer").SubmitRequest(submit(make_request(request_id="w"))),
        "PERMISSION_DENIED",
        "the token of an operator to submit a request, but that of 'viewer' is of a viewer",
    ),
    "an owner that asks for another's models": (
        lambda r: r.client("ben").ListModels(coordinator_pb2.ListModelsRequest(owner="anna")),
        "PERMISSION_DENIED",
        "anna",
    ),
    "an owner that registers another's model": (
        lambda r: r.client("ben").RegisterModel(record(owner="anna")),
        "PERMISSION_DENIED",
        "anna",
    ),
    "an owner that asks for the graph": (
        lambda r: r.client("ben").GetGraph(coordinator_pb2.GetGraphRequest()),
        "PERMISSION_DENIED",
        "the token of a viewer or an operator or an approver to see the inheritance graph",
    ),
    "a path as the id of a model": (
        lambda r: r.client("ben").RegisterModel(record(id=TRAVERSING)),
        "INVALID_ARGUMENT",
        "well-formed model id",
    ),
    "a path as a root": (
        lambda r: r.client("operator").SubmitRequest(submit(at_root(TRAVERSING))),
        "INVALID_ARGUMENT",
        "etc/passwd",
    ),
    "a path as the id of a request": (
        lambda r: r.client("operator").SubmitRequest(submit(renamed(TRAVERSING))),
        "INVALID_ARGUMENT",
        "well-formed request id",
    ),
    "ids of samples in the place of digests": (
        lambda r: r.client("operator").SubmitRequest(
            submit(
                pb.UnlearningRequest(
                    id="w",
                    roots=[pb.Root(model_id="r1", samples=["patient-7"], sample_salt="0" * 32)],
                    method=make_method().to_proto(),
                )
            )
        ),
        "INVALID_ARGUMENT",
        "something of 9 characters",
    ),
    # gRPC refuses it by the length that it begins with: it is neither read nor in our log.
    "a gigabyte": (huge, "RESOURCE_EXHAUSTED", ""),
}


@pytest.mark.parametrize(("act", "status", "logged"), CALLS.values(), ids=CALLS.keys())
def test_calls(
    act: Callable[[Running], Any],
    status: str,
    logged: str,
    running: Running,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files, known = running.world.files(), running.world.knowledge()
    log = audit(running.world)
    assert refused(lambda: act(running)) == status
    assert running.world.files() == files
    assert running.world.knowledge() == known
    assert audit(running.world) == log
    if logged:
        # An asynchronous server writes the line once the caller has the status.
        wait_for(lambda: "refused call=" in caplog.text)
        (line,) = [r.getMessage() for r in caplog.records if "refused call=" in r.getMessage()]
        assert f"status={status}" in line
        assert logged in line
        assert "patient-7" not in line


# --- 2. Agents: certificates and enrolment


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsSide]:
    with AgentsSide(tmp_path_factory.mktemp("agents")) as side:
        yield side


@pytest.fixture(scope="module")
def anna(side: AgentsSide) -> Identity:
    return side.enrolled("anna")


def expired_enrolment(side: AgentsSide, anna: Identity) -> Any:
    past = Enrolment(side.database, side.authority, clock=lambda: time.time() - 3600.0)
    credentials = grpc.ssl_channel_credentials(anna.ca)
    request = agents_pb2.EnrolRequest(
        token=past.invite("dora", seconds=60.0), certificate_request=certificate_request()
    )
    with grpc.secure_channel(f"127.0.0.1:{side.server.enrol_port}", credentials) as channel:
        return AgentsStub(channel).Enrol(request, timeout=20.0)


def without_certificate(side: AgentsSide, anna: Identity) -> Any:
    credentials = grpc.ssl_channel_credentials(anna.ca)
    with grpc.secure_channel(f"127.0.0.1:{side.server.port}", credentials) as channel:
        return list(AgentsStub(channel).Serve(iter([hello("anna")]), timeout=20.0))


def wrong_certificate(side: AgentsSide, anna: Identity) -> Any:
    other = CertificateAuthority.open(side.root / "other")
    pair = other.issue_server(["127.0.0.1"])
    with Caller(side, Identity(pair.key, pair.certificate, anna.ca)) as caller:
        return caller.serve(hello("anna"))


def as_another(side: AgentsSide, anna: Identity) -> Any:
    with Caller(side, anna) as caller:
        return caller.serve(hello("ben"))


def another_ones_packet(side: AgentsSide, anna: Identity) -> Any:
    with side.blobs.offered("ben", {"ab" * 32: b"merged"}), Caller(side, anna) as caller:
        return caller.fetch("ab" * 32)


AGENTS = {
    # Where TLS ends a connection, there is no call, and no line of ours.
    "no certificate": (without_certificate, "UNAVAILABLE", ""),
    "a certificate of another authority": (wrong_certificate, "UNAVAILABLE", ""),
    "an expired enrolment token": (expired_enrolment, "UNAUTHENTICATED", "expired"),
    "an agent that takes itself for another": (as_another, "PERMISSION_DENIED", "'ben'"),
    "a Fisher packet meant for another": (another_ones_packet, "NOT_FOUND", "ab"),
}


@pytest.mark.parametrize(("act", "status", "logged"), AGENTS.values(), ids=AGENTS.keys())
def test_agents(
    act: Callable[[AgentsSide, Identity], Any],
    status: str,
    logged: str,
    side: AgentsSide,
    anna: Identity,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert refused(lambda: act(side, anna)) == status
    assert side.connected() == []
    if logged:
        # An asynchronous server writes the line once the caller has the status.
        wait_for(lambda: "refused call=" in caplog.text)
        (line,) = [r.getMessage() for r in caplog.records if "refused call=" in r.getMessage()]
        assert f"status={status}" in line
        assert logged in line


# --- 3. Answers of owners


def values(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[pb.FisherReply], None]:
    """The root's owner sends other values, well packed."""

    def lie(reply: pb.FisherReply) -> None:
        packet = reply.roots[0].packets[0]
        found = dict(decode_fisher(packet))
        other = encode_fisher(
            change(found) or found,
            labels=packet.labels,
            head_weight=packet.head_weight,
            head_bias=packet.head_bias,
            sources=packet.sources,
            classes=packet.classes,
            samples=packet.samples,
        )
        packet.CopyFrom(other)

    return lie


def raw(data: bytes) -> Callable[[pb.FisherReply], None]:
    """The root's owner sends other bytes, under their digest."""

    def lie(reply: pb.FisherReply) -> None:
        packet = reply.roots[0].packets[0]
        packet.tensors, packet.digest = data, hashlib.sha256(data).hexdigest()

    return lie


def times(factor: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda found: {name: value * factor for name, value in found.items()}


def with_value(value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda found: found["2.weight"][0].fill_(value) is None


def as_pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save({"2.weight": torch.ones(4, 12)}, buffer)
    return buffer.getvalue()


def fewer_samples(reply: pb.FisherReply) -> None:
    """A hundred times too large, and said to be of one sample, for the sum to be small."""
    values(times(100.0))(reply)
    reply.roots[0].packets[0].samples = 1


BY_OWNERS = "[4, 99]"
"""Shapes that only owners know to be wrong."""

ANSWERS = {
    "fewer rows": (
        values(lambda f: {"2.weight": torch.zeros(2, 12), "2.bias": torch.zeros(2)}),
        "Expected 4 rows",
    ),
    "wrong shapes": (
        values(lambda f: {**f, "2.weight": torch.zeros(4, 99)}),
        BY_OWNERS,
    ),
    "NaN": (values(with_value(float("nan"))), "finite values >= 0"),
    "infinity": (values(with_value(float("inf"))), "finite values >= 0"),
    "negative values": (values(with_value(-1.0)), "finite values >= 0"),
    "100 times too large": (values(times(100.0)), "more than 2 times as much"),
    "and of one sample": (fewer_samples, "more than 2 times as much"),
    "a pickle": (raw(as_pickle()), "pickle"),
    "no safetensors": (raw(b"\xff" * 64), "safetensors"),
    "a path as the root's id": (
        lambda reply: setattr(reply.roots[0], "model_id", TRAVERSING),
        "sent no Fisher information",
    ),
}


@pytest.mark.parametrize(("lie", "reason"), ANSWERS.values(), ids=ANSWERS.keys())
def test_answers(
    lie: Callable[[Any], None],
    reason: str,
    built: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with copy(built, tmp_path / "world") as world:
        world.coordinator.submit(make_request({"r1": ("cat",)}))
        files, models = world.files(), world.store.graph().models()
        world.transport.twists["anna", "query.fisher"] = lying(lie)
        assert world.coordinator.run("q").outcome == "failed"
        assert world.states() == dict.fromkeys(AFFECTED, TaskState.FAILED)
        # What the coordinator refuses is said at its owner's models, and at no other owner's.
        told = AFFECTED if reason == BY_OWNERS else [m for m in AFFECTED if OWNERS[m] == "anna"]
        assert [model for model in AFFECTED if reason in world.reason(model)] == list(told)
        assert world.files() == files
        assert world.store.graph().models() == models
        failed = [line for line in audit(world) if b'"kind":"failed"' in line]
        assert len(failed) == len(AFFECTED)
        world.transport.twists.clear()
        if reason != BY_OWNERS:  # the coordinator cannot know that it is wrong, and keeps it
            assert world.coordinator.run("q").outcome == "complete"
    assert reason in caplog.text


# --- 4. Messages to owners


@pytest.fixture
def organisation(tmp_path: Path) -> Iterator[PointsOwner]:
    with PointsOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", LABELS, 1)
        yield owner


def unlearn_task(owner: PointsOwner, **changes: Any) -> pb.UnlearnTask:
    packet = collect(owner, "m", ["cat"], make_method())
    task = make_task(owner, ["m"], packet, make_method())
    for name, value in changes.items():
        setattr(task, name, value)
    return task


def spoiled(
    change: Callable[[pb.FisherReply], None],
) -> Callable[[PointsOwner], tuple[str, Any]]:
    """A merged packet with something wrong in it."""

    def make(owner: PointsOwner) -> tuple[str, Any]:
        task = unlearn_task(owner)
        holder = pb.FisherReply(roots=[pb.RootFisher(packets=[task.fishers[0]])])
        change(holder)
        task.fishers[0].CopyFrom(holder.roots[0].packets[0])
        return "train.unlearn", task

    return make


def with_model(model: str) -> Callable[[PointsOwner], tuple[str, Any]]:
    def make(owner: PointsOwner) -> tuple[str, Any]:
        task = unlearn_task(owner)
        task.models[0].model_id = model
        return "train.unlearn", task

    return make


MESSAGES: dict[str, tuple[Callable[[PointsOwner], tuple[str, Any]], str]] = {
    "NaN": (spoiled(values(with_value(float("nan")))), "finite values >= 0"),
    "negative values": (spoiled(values(with_value(-1.0))), "finite values >= 0"),
    "wrong shapes": (spoiled(values(lambda f: {**f, "2.weight": torch.ones(4, 99)})), "[4, 99]"),
    "a pickle": (spoiled(raw(as_pickle())), "pickle"),
    "another's model": (with_model("r7-of-ben"), "which is not there"),
    "a path as the id of a model": (with_model(TRAVERSING), "etc/passwd"),
    "a path as the id of a request": (
        lambda owner: ("train.unlearn", unlearn_task(owner, request_id=TRAVERSING)),
        "well-formed request id",
    ),
    "a path as a root": (
        lambda owner: (
            "query.fisher",
            pb.FisherTask(
                roots=[pb.Root(model_id=TRAVERSING, classes=["cat"])],
                method=make_method().to_proto(),
            ),
        ),
        "etc/passwd",
    ),
    "a path to be read back": (
        lambda owner: ("evaluate.panel", pb.EvaluateTask(model_ids=[TRAVERSING])),
        "etc/passwd",
    ),
}
REPLIES: dict[str, Any] = {
    "train.unlearn": pb.UnlearnReply,
    "query.fisher": pb.FisherReply,
    "evaluate.panel": pb.EvaluateReply,
}


@pytest.mark.parametrize(("make", "reason"), MESSAGES.values(), ids=MESSAGES.keys())
def test_messages(
    make: Callable[[PointsOwner], tuple[str, Any]], reason: str, organisation: PointsOwner
) -> None:
    def open_owner(context: Context) -> Any:
        return PointsOwner(organisation.store.root, "anna")

    app: ClientApp = build_client_app(open_owner)
    action, task = make(organisation)
    files = files_of(organisation.store.root)
    reply: Any = unpack(call(app, action, pack(task)).content, REPLIES[action])
    (answer,) = reply.roots if action == "query.fisher" else reply.models
    assert reason in answer.error
    assert files_of(organisation.store.root) == files
