"""Enrolment, admission, revocation and downloads of agents, over real TLS."""

import hashlib
import queue
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from disinherit.client.agent import AgentConfig, Identity, enrol, load_identity
from disinherit.common.errors import CampaignError, DisinheritError, InputError
from disinherit.common.wire.messages import PROTOCOL
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.server.agents.blobs import CHUNK_BYTES
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.agents.hub import Session
from disinherit.server.store.presence import MeasuredDownload
from disinherit.server.transport.base import Ask
from disinherit.v1 import agents_pb2 as pb
from disinherit.v1 import unlearning_pb2
from disinherit.v1.agents_pb2_grpc import AgentsStub
from tests.acceptance.chaos.wire import Wire
from tests.support.agent import AgentsSide, wait_for

BLOB = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(BLOB).hexdigest()


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentsSide]:
    with AgentsSide(tmp_path_factory.mktemp("side")) as side:
        yield side


@pytest.fixture(scope="module")
def anna(side: AgentsSide) -> Identity:
    return side.enrolled("anna")


class Caller:
    """A client of the service with some identity."""

    def __init__(self, side: AgentsSide, identity: Identity) -> None:
        address = f"127.0.0.1:{side.server.port}"
        self.channel = grpc.secure_channel(address, identity.credentials())
        self.stub = AgentsStub(self.channel)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def serve(self, *messages: pb.FromAgent) -> list[pb.ToAgent]:
        return list(self.stub.Serve(iter(messages), timeout=20.0))

    def fetch(self, digest: str, offset: int = 0) -> bytes:
        chunks = self.stub.Fetch(pb.FetchRequest(digest=digest, offset=offset), timeout=20.0)
        return b"".join(chunk.data for chunk in chunks)


def hello(owner: str, protocol: int = PROTOCOL) -> pb.FromAgent:
    return pb.FromAgent(hello=pb.Hello(protocol=protocol, owner=owner))


def certificate_request() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def code_of(call: Any, *args: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call(*args)
    code: grpc.StatusCode = raised.value.code()
    return code


def test_enrolment_returns_an_identity_in_private_files(side: AgentsSide, tmp_path: Path) -> None:
    config = replace(side.config("dora"), state=tmp_path / "state")
    with pytest.raises(InputError, match="has enrolled"):
        load_identity(config)
    identity = enrol(config, side.enrolment.invite("dora"))
    assert load_identity(config) == identity
    assert (config.state / "agent.key").stat().st_mode & 0o777 == 0o600
    with Caller(side, identity) as caller:
        (welcome,) = caller.serve(hello("dora"))
    assert welcome.HasField("welcome")


def elsewhere(side: AgentsSide, tmp_path: Path, owner: str = "dora") -> AgentConfig:
    return replace(side.config(owner), state=tmp_path / "elsewhere")


def test_a_token_is_valid_for_one_key_only_also_repeatedly(
    side: AgentsSide, tmp_path: Path
) -> None:
    config = replace(side.config("dora"), state=tmp_path / "state")
    token = side.enrolment.invite("dora")
    first = enrol(config, token)
    again = enrol(config, token)  # as after an answer that was lost
    assert again.key == first.key
    with pytest.raises(InputError, match="unknown, spent or expired"):
        enrol(elsewhere(side, tmp_path), token)


def test_an_unknown_or_expired_token_is_refused(side: AgentsSide, tmp_path: Path) -> None:
    config = elsewhere(side, tmp_path)
    with pytest.raises(InputError, match="unknown, spent or expired"):
        enrol(config, "no-such-token")
    past = Enrolment(side.database, side.authority, clock=lambda: time.time() - 3600.0)
    with pytest.raises(InputError, match="unknown, spent or expired"):
        enrol(config, past.invite("dora", seconds=3599.0))
    token = past.invite("dora", seconds=3700.0)
    assert enrol(config, token).certificate
    files = list(side.root.glob("tokens.db*"))
    assert files
    assert not any(token.encode() in path.read_bytes() for path in files)


def test_a_revoked_agent_is_disconnected_and_only_a_new_key_is_admitted(
    side: AgentsSide, tmp_path: Path
) -> None:
    config = replace(side.config("dora"), state=tmp_path / "state")
    identity = enrol(config, side.enrolment.invite("dora"))
    spare = side.enrolment.invite("dora")
    other = side.enrolled("ella")
    answers: queue.SimpleQueue[pb.FromAgent | None] = queue.SimpleQueue()
    answers.put(hello("dora"))
    with Caller(side, identity) as caller, side.agent("ella"):
        stream = caller.stub.Serve(iter(answers.get, None), timeout=60.0)
        assert next(stream).HasField("welcome")
        side.enrolment.revoke("dora")
        with pytest.raises(grpc.RpcError) as raised:  # without another word from the agent
            next(stream)
        answers.put(None)
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "revoked" in str(raised.value.details())
        assert side.connected() == ["ella"]
        assert code_of(caller.serve, hello("dora")) is grpc.StatusCode.UNAUTHENTICATED
        assert code_of(caller.fetch, "00") is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(InputError, match="unknown, spent or expired"):
        enrol(elsewhere(side, tmp_path), spare)
    token = side.enrolment.invite("dora")
    with pytest.raises(InputError, match="valid key, but this one was revoked"):
        enrol(config, token)  # with the key that was lost
    again = enrol(elsewhere(side, tmp_path), token)
    with Caller(side, again) as caller:
        assert caller.serve(hello("dora"))
    with Caller(side, identity) as caller:
        assert code_of(caller.serve, hello("dora")) is grpc.StatusCode.UNAUTHENTICATED
    with Caller(side, other) as caller:
        assert caller.serve(hello("ella"))
    with pytest.raises(InputError, match="that was invited, but got 'nobody'"):
        side.enrolment.revoke("nobody")


def test_refused_tokens_are_unauthenticated_and_bad_requests_spend_none(side: AgentsSide) -> None:
    address = f"127.0.0.1:{side.server.enrol_port}"
    credentials = grpc.ssl_channel_credentials(side.authority.certificate)
    with grpc.secure_channel(address, credentials) as channel:
        stub = AgentsStub(channel)
        token = side.enrolment.invite("dora")
        bad = pb.EnrolRequest(token=token, certificate_request=b"give me one")
        assert code_of(stub.Enrol, bad) is grpc.StatusCode.INVALID_ARGUMENT
        unknown = pb.EnrolRequest(token="unknown", certificate_request=certificate_request())
        assert code_of(stub.Enrol, unknown) is grpc.StatusCode.UNAUTHENTICATED
        good = pb.EnrolRequest(token=token, certificate_request=certificate_request())
        assert stub.Enrol(good).owner == "dora"
        # There is no way in beside a certificate.
        fetch = pb.FetchRequest(digest=DIGEST)
        assert code_of(list, stub.Fetch(fetch)) is grpc.StatusCode.UNAUTHENTICATED
        serving = stub.Serve(iter([hello("anna")]))
        assert code_of(list, serving) is grpc.StatusCode.UNAUTHENTICATED
    assert side.connected() == []


def test_a_token_of_another_owner_is_refused(side: AgentsSide, tmp_path: Path) -> None:
    config = elsewhere(side, tmp_path, "emil")
    with pytest.raises(InputError, match="one for 'dora'"):
        enrol(config, side.enrolment.invite("dora"))
    assert not (config.state / "agent.pem").exists()


def test_agents_verify_the_coordinators_authority(
    side: AgentsSide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    false = CertificateAuthority.open(tmp_path / "false")
    assert false.certificate != side.authority.certificate
    config = replace(elsewhere(side, tmp_path), ca=tmp_path / "false" / "ca.pem")
    monkeypatch.setattr(f"{enrol.__module__}._AGAIN_SECONDS", 0.0)
    with pytest.raises(CampaignError, match="its certificate is not signed by the authority"):
        enrol(config, side.enrolment.invite("dora"))


def test_an_agent_enrols_once_the_coordinator_is_back(
    side: AgentsSide,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Wire(side.server.enrol_port, Random(0)) as wire:
        wire.cut()
        monkeypatch.setattr(f"{enrol.__module__}.time.sleep", lambda _: wire.heal())
        config = replace(elsewhere(side, tmp_path), enrol_server=f"127.0.0.1:{wire.port}")
        assert enrol(config, side.enrolment.invite("dora")).certificate
    assert [one.message[:16] for one in caplog.records] == ["Not enrolled yet"]


def test_a_certificate_of_another_authority_is_refused(
    side: AgentsSide, anna: Identity, tmp_path: Path
) -> None:
    other = CertificateAuthority.open(tmp_path / "other")
    pair = other.issue_server(["127.0.0.1"])
    with Caller(side, Identity(pair.key, pair.certificate, anna.ca)) as caller:
        assert code_of(caller.serve, hello("anna")) is grpc.StatusCode.UNAVAILABLE


def test_the_coordinators_certificate_is_refused_for_an_agent(
    side: AgentsSide, anna: Identity
) -> None:
    pair = side.authority.issue_server(["127.0.0.1"])
    server = Identity(pair.key, pair.certificate, anna.ca)
    with Caller(side, server) as caller:
        code = code_of(caller.serve, hello("anna"))
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)


def test_an_agent_acts_for_the_owner_of_its_certificate_alone(
    side: AgentsSide, anna: Identity
) -> None:
    with Caller(side, anna) as caller:
        assert code_of(caller.serve, hello("ben")) is grpc.StatusCode.PERMISSION_DENIED
        assert side.connected() == []
        with side.blobs.offered("ben", {DIGEST: BLOB}):
            assert code_of(caller.fetch, DIGEST) is grpc.StatusCode.NOT_FOUND


def test_an_agent_cannot_answer_tasks_of_another_owner(side: AgentsSide, anna: Identity) -> None:
    session = Session("ben")
    side.hub.connect(session)
    replies: list[object] = []
    task_id = side.hub.post("ben", pb.AgentTask(action="query.identify"), replies.append)
    assert task_id is not None
    forged = pb.FromAgent(answer=pb.AnswerPart(task_id=task_id, data=b"forged", last=True))
    with Caller(side, anna) as caller:
        caller.serve(hello("anna"), forged)
    assert replies == []
    side.hub.receive(session, pb.AnswerPart(task_id=task_id, data=b"own", last=True))
    assert len(replies) == 1
    side.hub.leave(session)


def test_an_agent_with_a_wrong_hello_gets_an_error(side: AgentsSide, anna: Identity) -> None:
    with Caller(side, anna) as caller:
        wrong = hello("anna", PROTOCOL + 1)
        assert code_of(caller.serve, wrong) is grpc.StatusCode.FAILED_PRECONDITION
        answer = pb.FromAgent(answer=pb.AnswerPart(task_id="x"))
        assert code_of(caller.serve, answer) is grpc.StatusCode.INVALID_ARGUMENT
        assert code_of(caller.serve) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_second_agent_of_an_owner_takes_over(
    side: AgentsSide, anna: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    with Caller(side, anna) as caller, side.agent("anna"):
        before = len(side.arrivals)
        stream = caller.stub.Serve(iter([hello("anna")]), timeout=20.0)
        assert next(stream).HasField("welcome")
        # The agent that was replaced comes back in its turn.
        wait_for(lambda: len(side.arrivals) == before + 2)
        assert side.connected() == ["anna"]
    message = [line for line in caplog.messages if "another agent took over owner=anna" in line]
    assert message
    for line in message:
        assert re.search(r" peer=ipv4:\S+ before=ipv4:\S+ key_sha256=[0-9a-f]{64}$", line)


def test_a_blob_is_fetched_from_any_offset_while_offered(side: AgentsSide, anna: Identity) -> None:
    with Caller(side, anna) as caller:
        with side.blobs.offered("anna", {DIGEST: BLOB}):
            assert len(BLOB) > 3 * CHUNK_BYTES
            for offset in (0, 1, CHUNK_BYTES, len(BLOB) - 1, len(BLOB)):
                assert caller.fetch(DIGEST, offset) == BLOB[offset:]
            beyond = code_of(caller.fetch, DIGEST, len(BLOB) + 1)
            assert beyond is grpc.StatusCode.OUT_OF_RANGE
            with side.blobs.offered("anna", {DIGEST: BLOB}):
                pass
            assert caller.fetch(DIGEST) == BLOB  # the other offer still stands
        assert code_of(caller.fetch, DIGEST) is grpc.StatusCode.NOT_FOUND


def test_long_downloads_tell_how_fast_an_owner_is(side: AgentsSide, anna: Identity) -> None:
    long = BLOB * 64
    digest = hashlib.sha256(long).hexdigest()
    ended = threading.Event()

    def messages() -> Iterator[pb.FromAgent]:
        slow = hello("anna")
        slow.hello.bytes_per_second = 5_000_000
        yield slow
        ended.wait(60.0)

    with Caller(side, anna) as caller, side.blobs.offered("anna", {DIGEST: BLOB, digest: long}):
        stream = caller.stub.Serve(messages(), timeout=60.0)
        assert next(stream).HasField("welcome")
        assert caller.fetch(DIGEST) == BLOB  # too short to tell
        assert side.hub.present()["anna"].download == MeasuredDownload()
        chunks = caller.stub.Fetch(pb.FetchRequest(digest=digest, offset=1), timeout=60.0)
        received = len(next(chunks).data)
        time.sleep(0.5)  # the rest waits on its way
        received += sum(len(chunk.data) for chunk in chunks)
        assert received == len(long) - 1
        wait_for(lambda: side.hub.present()["anna"].download.size == received)
        known = side.hub.present()["anna"]
        assert known.bytes_per_second == 5_000_000
        assert known.download.taken_us >= 400_000
        ended.set()
        stream.cancel()


def test_a_task_is_sent_without_tensors_and_a_damaged_answer_is_refused(
    side: AgentsSide, anna: Identity
) -> None:
    task = unlearning_pb2.UnlearnTask(
        request_id="q",
        fishers=[unlearning_pb2.FisherPacket(digest=DIGEST, sources=["r1"])],
    )
    queued = threading.Event()
    session = Session("anna", wake=queued.set)
    side.hub.connect(session)
    answers = side.transport.ask([Ask("anna", "train.unlearn", task, {DIGEST: BLOB})], 20.0)

    def agent() -> None:
        assert queued.wait(20.0)
        (sent,) = session.taken()
        light = unlearning_pb2.UnlearnTask.FromString(sent.task)
        assert light.fishers[0].digest == DIGEST
        assert light.fishers[0].sources == ["r1"]
        assert not light.fishers[0].tensors
        with Caller(side, anna) as caller:
            assert caller.fetch(DIGEST) == BLOB
        for data, last in ((b"\xff", False), (b"\xff", True)):
            part = pb.AnswerPart(task_id=sent.task_id, data=data, last=last)
            side.hub.receive(session, part)

    thread = threading.Thread(target=agent)
    thread.start()
    (answer,) = answers
    thread.join()
    side.hub.leave(session)
    assert answer.error.startswith("owner anna answered wrongly: Expected a well-formed")
    assert not answer.unreachable


def test_an_unusable_address_is_a_campaign_error(side: AgentsSide) -> None:
    with pytest.raises(DisinheritError, match="serve agents at"):
        AgentsSide(side.root, port=side.server.port)
