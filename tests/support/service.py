"""A coordinator service on a free loopback port, over a federation with real owners."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from disinherit.server.service.hosting import Service
from disinherit.server.service.listening import TlsFiles
from disinherit.server.service.settings import ServeSettings
from disinherit.server.transport.routing import Route
from disinherit.v1 import coordinator_pb2_grpc
from disinherit.v1 import unlearning_pb2 as pb
from tests.support import campaign

TOKENS = {
    "viewer": "viewer",
    "operator": "operator",
    "approver": "approver",
    "anna": "owner:anna",
    "ben": "owner:ben",
}
CALLS = {
    "RegisterModel",
    "RegisterModels",
    "WithdrawModel",
    "ListModels",
    "GetGraph",
    "PlanRequest",
    "SubmitRequest",
    "ApproveRequest",
    "PauseRequest",
    "ResumeRequest",
    "ResendRequest",
    "AbortRequest",
    "GetRequest",
    "ListRequests",
    "WatchRequest",
    "GetCoverage",
    "ExportAudit",
    "RollBackRequest",
    "GetSigningKeys",
    "GetReport",
    "GetAttestation",
    "ListOwners",
    "WatchFleet",
    "WhoAmI",
    "GetSystem",
}
TIMEOUT = 30.0


def secret(who: str) -> str:
    return f"secret of {who}".replace(" ", "-")


def write_tokens(path: Path) -> Path:
    path.write_text(
        "".join(
            f'[[token]]\nname = "{who}"\nrole = "{role}"\n'
            f'sha256 = "{hashlib.sha256(secret(who).encode()).hexdigest()}"\n'
            for who, role in TOKENS.items()
        )
    )
    return path


class Client:
    """Calls the service as somebody.

    Args:
        channel: to the service.
        token: shown with every call; `""` for none.
    """

    def __init__(self, channel: Any, token: str) -> None:
        self._stub = coordinator_pb2_grpc.CoordinatorStub(channel)
        self._metadata = [("authorization", f"Bearer {token}")] if token else []

    def __getattr__(self, call: str) -> Callable[..., Any]:
        return lambda request, timeout=TIMEOUT: getattr(self._stub, call)(
            request, timeout=timeout, metadata=self._metadata
        )


class Running:
    """A service that runs.

    Attributes:
        world: the federation behind it.
        service: the service.
        address: where it listens.
    """

    def __init__(self, world: campaign.World, service: Service, channel: Any) -> None:
        self.world = world
        self.service = service
        self.address = f"127.0.0.1:{service.port}"
        self.channel = channel

    def client(self, who: str) -> Client:
        return Client(self.channel, secret(who))


def speak_as(who: str, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the command line talk to a service as somebody."""
    monkeypatch.setenv("DISINHERIT_SERVER", running.address)
    monkeypatch.setenv("DISINHERIT_TOKEN", secret(who))


@contextmanager
def serving(
    root: Path,
    tls: TlsFiles | None = None,
    approval: bool = True,
    channel: Any = None,
    database: str | None = None,
) -> Iterator[Running]:
    """Serve what `campaign.build` made in a folder.

    Args:
        root: the folder.
        tls: as in the settings.
        approval: as in the settings.
        channel: makes a channel to an address; plaintext by default.
        database: the URL of a database other than the one in the folder.
    """
    with campaign.World(root, database) as world:
        settings = ServeSettings(
            world.place,
            write_tokens(root / "tokens.toml"),
            "127.0.0.1:0",
            packets=world.packets,
            signing_key=root / "signing.pem",
            tls=tls,
            approval=approval,
        )
        service = Service(settings, [Route(world.transport, lambda _: True)], health_seconds=0.05)
        service.start()
        try:
            with (channel or grpc.insecure_channel)(f"127.0.0.1:{service.port}") as opened:
                yield Running(world, service, opened)
        finally:
            service.stop(grace=0.5)


def make_request(request_id: str = "q") -> pb.UnlearningRequest:
    return campaign.make_request({"r1": ("cat",)}, request_id)
