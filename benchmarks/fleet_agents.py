"""Light agents of a fleet: the real protocol on a connection each, without models behind it.

Each has a key and a certificate of its own, a TLS connection, the hello, the keep-alives and the
back-off of `disinherit agent`.  It fetches the packets that a task names, and answers what an owner
would that unlearns at once.
"""

import asyncio
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pass_worker import Owners, digest

from disinherit.client.agent.pacing import backoff
from disinherit.common.graph.identifiers import successor_id
from disinherit.common.graph.proto import record_from_proto
from disinherit.common.wire.messages import ACTIONS, PROTOCOL
from disinherit.server.agents.authority import CertificateAuthority
from disinherit.v1 import agents_pb2 as pb
from disinherit.v1 import unlearning_pb2
from disinherit.v1.agents_pb2_grpc import AgentsStub

_OPTIONS = (  # as those of an agent
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_AT_ONCE = 100
"""Agents that connect for the first time at once."""


@dataclass(frozen=True, slots=True)
class Key:
    """The key of an agent and its certificate, both PEM."""

    key: bytes
    certificate: bytes


def certify(authority: CertificateAuthority, owner: str) -> Key:
    """Return a new key of an owner's agent, with its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner[:64])])
    asked = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    certificate = authority.sign(asked.public_bytes(Encoding.PEM), owner)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Key(pem, certificate)


class Unlearning(Owners):
    """Owners that unlearn what they made before, too."""

    def train_unlearn(self, task: Any) -> Any:
        """Return a successor for every model, and hold it from now on."""
        reply = super().train_unlearn(task)
        for result in reply.models:
            made = successor_id(result.model_id, task.request_id)
            result.successor.id, result.successor.digest = made, digest(made)
            self._models[made] = record_from_proto(result.successor)
        return reply


class Agents:
    """Agents of many owners, in one loop of asyncio.

    Args:
        address: where they connect.
        ca: the fleet's authority, PEM.
        keys: owner -> its key.
        models: id -> version, for the answers.

    Attributes:
        connected: owner -> when it was welcomed last, in monotonic seconds, while it is connected.
        answered: action -> how often it was answered.
        failures: status -> how often a connection ended with it.
    """

    def __init__(
        self, address: str, ca: bytes, keys: Mapping[str, Key], models: dict[str, Any]
    ) -> None:
        self._address, self._ca, self._keys = address, ca, keys
        self._owners = Unlearning(models)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.connected: dict[str, float] = {}
        self.answered: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    async def start(self, owners: Sequence[str]) -> float:
        """Connect agents, some at a time; return the seconds until all were welcomed."""
        begun = time.monotonic()
        waiting = list(reversed(owners))
        while waiting or not self.connected.keys() >= set(owners):
            open_ones = len(self._tasks) - len(self.connected)
            for _ in range(min(len(waiting), _AT_ONCE - open_ones)):
                owner = waiting.pop()
                self._tasks[owner] = asyncio.create_task(self._live(owner))
            await asyncio.sleep(0.02)
        return time.monotonic() - begun

    async def stop(self, owners: Collection[str]) -> None:
        """Disconnect agents."""
        tasks = [self._tasks.pop(owner) for owner in owners]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for owner in owners:
            self.connected.pop(owner, None)

    async def are_back(self, count: int, since: float) -> bool:
        """Return whether so many agents were welcomed after a time, in monotonic seconds."""
        return sum(at > since for at in self.connected.values()) >= count

    async def _live(self, owner: str) -> None:
        """Be connected, again and again, as an agent is."""
        pair = self._keys[owner]
        credentials = grpc.ssl_channel_credentials(self._ca, pair.key, pair.certificate)
        opened: Any = grpc.aio.secure_channel(self._address, credentials, _OPTIONS)
        async with opened as channel:
            stub: Any = AgentsStub(channel)
            failures = 0
            while True:
                begun = time.monotonic()
                try:
                    await self._serve(owner, stub)
                except grpc.aio.AioRpcError as error:
                    self.failures[error.code().name] += 1
                except Exception as error:
                    print(f"The agent of {owner} failed: {error!r}", file=sys.stderr)
                    raise
                finally:
                    self.connected.pop(owner, None)
                failures = 0 if time.monotonic() - begun > 10.0 else failures + 1
                await asyncio.sleep(backoff(failures))

    async def _serve(self, owner: str, stub: Any) -> None:
        call = stub.Serve()
        hello = pb.Hello(protocol=PROTOCOL, owner=owner, release="0")
        await call.write(pb.FromAgent(hello=hello))
        while (message := await call.read()) is not grpc.aio.EOF:
            if message.HasField("welcome"):
                self.connected[owner] = time.monotonic()
                continue
            data = await self._answer(message.task, stub.Fetch)
            part = pb.AnswerPart(task_id=message.task.task_id, data=data, last=True)
            await call.write(pb.FromAgent(answer=part))
            self.answered[message.task.action] += 1

    async def _answer(self, sent: pb.AgentTask, fetch: Callable[..., Any]) -> bytes:
        task: Any = ACTIONS[sent.action].task.FromString(sent.task)
        for packet in getattr(task, "fishers", ()):
            if packet.digest not in sent.blobs:
                await _fetched(fetch, packet.digest)
        if sent.action == "query.notice":
            notice = unlearning_pb2.NoticeReply(model_ids=[one.model_id for one in task.models])
            return notice.SerializeToString()
        reply: Any = getattr(self._owners, sent.action.replace(".", "_"))(task)
        if "log_head" in task.DESCRIPTOR.fields_by_name:
            reply.log_head.CopyFrom(task.log_head)
        data: bytes = reply.SerializeToString()
        return data


async def _fetched(fetch: Callable[..., Any], digest: str) -> None:
    data = b""
    async for chunk in fetch(pb.FetchRequest(digest=digest)):
        data += chunk.data
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"Expected the packet {digest}, but got another one.")


async def until(holds: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """Wait until something holds, and return the seconds; infinity if it never did."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if await holds():
            return time.monotonic() - begun
        await asyncio.sleep(0.1)
    return float("inf")
