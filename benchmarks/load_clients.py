"""Clients that load a coordinator: what they register, submit and ask."""

import hashlib
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from disinherit.common.wire.requests import Request
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import graph_pb2
from disinherit.v1.coordinator_pb2_grpc import CoordinatorStub

LABELS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "owl", "pig")
GROUP = 20
CALL_SECONDS = 30.0
THIRDS = 3
BARE_BYTES = 400
"""Size of a message to the bare server, about that of a version."""

"""Parts of the time after which memory is looked at: what is kept for ever grows in each alike."""

WRITES = ("RegisterModel", "PauseRequest", "ResumeRequest", "SubmitRequest", "ApproveRequest")
"""Calls that wait for the disk, of those below."""

LOOKS = ("ListModels, own", "GetRequest", "GetCoverage", "ListModels, all", "ListRequests")
"""Calls of which nobody waits for a writer."""

WEIGHTS = {
    "ListModels, own": 20,
    "RegisterModel": 15,
    "GetRequest": 15,
    "GetCoverage": 10,
    "ListModels, all": 10,
    "ListRequests": 8,
    "PauseRequest": 4,
    "ResumeRequest": 4,
    "SubmitRequest": 4,
    "ApproveRequest": 4,
    "GetReport": 3,
    "ExportAudit, one": 2,
    "GetGraph": 1,
}
"""Call -> how often it is made, of a hundred."""


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    owners: int
    versions: int
    clients: int
    seconds: float
    requests: int


@dataclass
class Times:
    """What the calls of one kind took, in seconds, and how those that failed did."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


class Clients:
    """Calls of many threads at one service.

    Args:
        address: where it listens.
        size: how large the run is.
    """

    def __init__(self, address: str, size: Size) -> None:
        self.address = address
        self.size = size
        self.times: dict[str, Times] = defaultdict(Times)
        self.acknowledged: set[str] = set()
        self.dice = [random.Random(number) for number in range(size.clients)]
        self.registered: Counter[int] = Counter()
        self._turn = threading.Lock()

    def run(
        self, work: Callable[[int, CoordinatorStub], None], addresses: Sequence[str] = ()
    ) -> float:
        """Let every client do its work, each on a connection of its own; return the seconds.

        Args:
            work: what it does, with its number.
            addresses: of several services, which share the clients; empty for the one.
        """
        served = addresses or (self.address,)

        def one(number: int) -> None:
            # Without this option, channels of one process share one connection.
            options = (("grpc.use_local_subchannel_pool", 1),)
            with grpc.insecure_channel(served[number % len(served)], options) as channel:
                work(number, CoordinatorStub(channel))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(self.size.clients)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    def call(self, kind: str, who: str, call: Any, message: Any, stream: bool = False) -> Any:
        """Make a call as somebody, and note how it went; return the answer or `None`.

        A caller with as many calls as one may have is refused, also while an answered one has not
        left yet; it tries again, as it is told to, and the time counts.
        """
        metadata = [("authorization", f"Bearer {secret(who)}")]
        started, error, answer = time.perf_counter(), "", None
        while True:
            try:
                answer = call(message, timeout=CALL_SECONDS, metadata=metadata)
                answer = list(answer) if stream else answer
            except grpc.RpcError as failed:
                error = f"{failed.code().name}: {failed.details()}"
                busy = failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                if busy and time.perf_counter() - started < CALL_SECONDS:
                    time.sleep(0.01)
                    continue
            else:
                error = ""
            break
        seconds = time.perf_counter() - started
        with self._turn:
            times = self.times[kind]
            times.seconds.append(seconds)
            if error:
                times.errors[error] += 1
        return answer

    def register(
        self, stub: CoordinatorStub, kind: str, owner: int, version: int, alone: bool = False
    ) -> bool:
        """Register one version as its owner; remember and return whether it was acknowledged."""
        message = registration(owner, version, alone)
        if self.call(kind, f"owner-{owner}", stub.RegisterModel, message) is None:
            return False
        with self._turn:
            self.acknowledged.add(message.record.id)
        return True


def fill(clients: Clients, number: int, stub: CoordinatorStub) -> None:
    """Register the versions of this client's share of the groups, the oldest first."""
    size = clients.size
    for group in range(number, -(-size.owners // GROUP), size.clients):
        for version in range(size.versions):
            for owner in range(group * GROUP, min((group + 1) * GROUP, size.owners)):
                clients.register(stub, "register", owner, version)


def submit_all(clients: Clients) -> None:
    """Submit the requests that are asked about, and approve every other one."""
    with grpc.insecure_channel(clients.address) as channel:
        stub = CoordinatorStub(channel)
        for i in range(clients.size.requests):
            message = submission(f"q{i}", i, clients.size)
            clients.call("SubmitRequest", "operator", stub.SubmitRequest, message)
            if i % 2 == 0:
                control = pb.ControlRequest(id=f"q{i}")
                clients.call("ApproveRequest", "approver", stub.ApproveRequest, control)


def batches(clients: Clients, stub: CoordinatorStub, count: int, each: int) -> float:
    """Register new versions by one stream, `each` in a message; return the seconds."""

    def messages() -> Iterator[pb.RegisterModelsRequest]:
        for begin in range(0, count, each):
            some = range(begin, min(begin + each, count))
            yield pb.RegisterModelsRequest(models=[one_more(number) for number in some])

    started = time.perf_counter()
    metadata = (("authorization", f"Bearer {secret('operator')}"),)
    for answer in stub.RegisterModels(messages(), metadata=metadata):
        for one in answer.models:
            if one.refused:
                raise ValueError(f"Expected no refused version, but {one.refused}")
            clients.acknowledged.add(one.id)
    return time.perf_counter() - started


def one_more(number: int) -> pb.RegisterModelRequest:
    """Return the registration of a version that is derived from the one before it."""
    message = registration(0, number, alone=True)
    message.record.id = f"more{number}"
    for edge in message.parents:
        edge.parent, edge.child = f"more{number - 1}", f"more{number}"
    return message


def call_bare(address: str, times: Times, seconds: float) -> None:
    """Call the bare server without a pause."""
    until = time.monotonic() + seconds
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(address, options) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/Bare/Call")
        while time.monotonic() < until:
            started = time.perf_counter()
            call(b"x" * BARE_BYTES)
            times.seconds.append(time.perf_counter() - started)


def mix(
    clients: Clients, number: int, stub: CoordinatorStub, only: Sequence[str] = tuple(WEIGHTS)
) -> None:
    """Make calls of all kinds, or of some, until a part of the time is over."""
    until = time.monotonic() + clients.size.seconds / THIRDS
    dice = clients.dice[number]
    kinds, weights = list(only), [WEIGHTS[kind] for kind in only]
    size, token = clients.size, ""

    while time.monotonic() < until:
        (kind,) = dice.choices(kinds, weights)
        id = f"q{dice.randrange(size.requests)}"
        running = f"q{2 * dice.randrange(size.requests // 2)}"
        owner = dice.randrange(size.owners)
        if kind == "RegisterModel":
            # An owner of its own, so that versions come in order.
            owner = number % size.owners
            version = size.versions + clients.registered[number]
            clients.registered[number] += clients.register(stub, kind, owner, version, alone=True)
        elif kind == "ListModels, own":
            clients.call(kind, f"owner-{owner}", stub.ListModels, pb.ListModelsRequest())
        elif kind == "ListModels, all":
            page = pb.ListModelsRequest(page_size=100, page_token=token)
            answer = clients.call(kind, "viewer", stub.ListModels, page)
            token = answer.next_page_token if answer is not None else ""
        elif kind == "GetRequest":
            clients.call(kind, "viewer", stub.GetRequest, pb.GetRequestRequest(id=id))
        elif kind == "ListRequests":
            clients.call(kind, "viewer", stub.ListRequests, pb.ListRequestsRequest(page_size=20))
        elif kind == "GetCoverage":
            clients.call(kind, "viewer", stub.GetCoverage, pb.GetCoverageRequest(id=id))
        elif kind == "GetReport":
            clients.call(kind, "viewer", stub.GetReport, pb.GetReportRequest(id=id))
        elif kind == "ExportAudit, one":
            export = pb.ExportAuditRequest(request_id=id, several=True)
            clients.call(kind, "operator", stub.ExportAudit, export, stream=True)
        elif kind == "GetGraph":
            clients.call(kind, "viewer", stub.GetGraph, pb.GetGraphRequest(), True)
        elif kind == "SubmitRequest":  # some are new, most are repeated
            i = dice.randrange(2 * size.requests)
            message = submission(f"q{i}", i, size)
            clients.call(kind, "operator", stub.SubmitRequest, message)
        elif kind == "ApproveRequest":
            control = pb.ControlRequest(id=f"q{1 + 2 * dice.randrange(size.requests // 2)}")
            clients.call(kind, "approver", stub.ApproveRequest, control)
        elif kind == "PauseRequest":
            clients.call(kind, "operator", stub.PauseRequest, pb.ControlRequest(id=running))
        else:
            resumed = pb.ResumeRequestRequest(id=running)
            clients.call(kind, "operator", stub.ResumeRequest, resumed)


def registration(owner: int, version: int, alone: bool) -> pb.RegisterModelRequest:
    """Return the registration of a version, with what it was derived from.

    Args:
        owner: whose.
        version: from 0.
        alone: whether only from the owner's own.
    """
    id, name = f"m{owner}.{version}", f"owner-{owner}"
    record = graph_pb2.ModelRecord(
        id=id,
        owner=name,
        architecture=hashlib.sha256(b"network").hexdigest(),
        labels=LABELS,
        digest=hashlib.sha256(id.encode()).hexdigest(),
        provenance=graph_pb2.Provenance(
            dataset=f"data of {name}", samples_per_class=dict.fromkeys(LABELS, 100)
        ),
        fisher_digest=hashlib.sha256(f"Fisher of {id}".encode()).hexdigest(),
    )
    first = owner - owner % GROUP
    parents = [owner] if alone or version % 2 else [owner, first + (owner + 1) % GROUP]
    edges = [
        graph_pb2.Inheritance(
            parent=f"m{parent}.{version - 1}",
            child=id,
            kind=graph_pb2.INHERITANCE_KIND_FEDERATED,
            weight=1 / len(parents),
        )
        for parent in parents
        if version
    ]
    return pb.RegisterModelRequest(record=record, parents=edges)


def submission(id: str, number: int, size: Size) -> pb.SubmitRequestRequest:
    """Return a request to forget a class where one owner's first version learnt it."""
    root = f"m{number * 7 % size.owners}.0"
    request = Request(id=id, reason="load", forget={root: [LABELS[number % 10]]})
    return pb.SubmitRequestRequest(request=request.to_proto(), again=True)


def secret(who: str) -> str:
    """Return the token of somebody."""
    return f"secret-of-{who}"
