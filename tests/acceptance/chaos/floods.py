"""Bursts of calls and connections at a service's ports that come to nothing, held for a while."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import grpc

from disinherit.client.agent import load_identity, read_config
from disinherit.deploy.files import HOST, FleetFiles

_CONNECTIONS = 300
_CALLS = 160
_CHANNELS = 8
_LISTS = "/disinherit.v1.Coordinator/ListModels"
_ENROLS = "/disinherit.v1.Agents/Enrol"
_SERVES = "/disinherit.v1.Agents/Serve"


def silent_connections(files: FleetFiles, seconds: float) -> None:
    """Open connections to all three ports on which nothing is said.

    Args:
        files: of the fleet.
        seconds: how long they stay.
    """
    ports = (files.ports.service, files.ports.agents, files.ports.enrol)
    with ExitStack() as stack:
        for number in range(_CONNECTIONS):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((HOST, ports[number % len(ports)]))
        time.sleep(seconds)


def unfinished_calls(files: FleetFiles, seconds: float) -> None:
    """Begin calls at the operators' port, without a token, and at the port to enrol.

    Their messages never come.

    Args:
        files: of the fleet.
        seconds: how long they stay.
    """
    credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
    with ExitStack() as stack:
        for port, path in ((files.ports.service, _LISTS), (files.ports.enrol, _ENROLS)):
            _begin(stack, port, credentials, path)
        time.sleep(seconds)


def idle_streams(files: FleetFiles, owner: str, seconds: float) -> None:
    """Begin streams at the agents' port, as an agent that has enrolled, and never say hello.

    Args:
        files: of the fleet.
        owner: whose agent it is.
        seconds: how long they stay.
    """
    identity = load_identity(read_config(files.agent(owner)))
    with ExitStack() as stack:
        _begin(stack, files.ports.agents, identity.credentials(), _SERVES)
        time.sleep(seconds)


def _begin(stack: ExitStack, port: int, credentials: grpc.ChannelCredentials, path: str) -> None:
    ended = threading.Event()

    def nothing() -> Iterator[bytes]:
        ended.wait()
        yield from ()

    for number in range(_CHANNELS):
        options = [("grpc.use_local_subchannel_pool", 1), ("number", number)]
        channel = grpc.secure_channel(f"{HOST}:{port}", credentials, options)
        stack.callback(channel.close)
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        for _ in range(_CALLS // _CHANNELS):
            stack.callback(method(nothing()).cancel)
    stack.callback(ended.set)  # first of all
