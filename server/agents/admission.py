"""Numbers of calls that one owner's agents, or one address that enrols, may have at a time."""

from collections.abc import Iterable, Mapping
from typing import cast

import grpc

from disinherit.common import limits
from disinherit.common.limits import Limit
from disinherit.server.agents.authority import OWNER_URN
from disinherit.server.ports.doors import Continuation, Door, Handler, Watchdog, host_of


def certified(context: grpc.ServicerContext, name: str) -> tuple[bytes, ...]:
    """Return what a caller's certificate says.

    Args:
        context: of the call.
        name: of the property, as gRPC names it.
    """
    # types-grpcio has it as bytes; gRPC returns several.
    properties = cast("Mapping[str, Iterable[bytes]]", context.auth_context())
    return tuple(properties.get(name, ()))


def owner_of(context: grpc.ServicerContext) -> str:
    """Return whose agent calls: what its certificate says, and nothing else.

    A call without an agent's certificate is ended.

    Args:
        context: of the call.
    """
    names = certified(context, "x509_subject_alternative_name")
    owners = [name.decode() for name in names if name.startswith(OWNER_URN.encode())]
    if len(owners) != 1:
        context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "Expected an agent's certificate, but got none. Enrol first: disinherit agent --enrol.",
        )
    return owners[0].removeprefix(OWNER_URN)


class AgentDoors(grpc.ServerInterceptor):
    """Counts by owner: the streams that serve agents, and what they download.

    Args:
        agents: how many may be connected at once.
    """

    def __init__(self, agents: int) -> None:
        watchdog = Watchdog(limits.GREETING.most)
        most = Limit("agents", agents, "agents", "agents connected at a time")
        self._serves = Door("agents", most, limits.OWNER_SERVES, watchdog, "streams")
        self._rest = Door("fetches", limits.FETCHES, limits.OWNER_FETCHES, watchdog)

    def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Put a door before the handler of a call."""
        handler = continuation(details)
        if handler is None:
            return None
        door = self._serves if handler.request_streaming else self._rest
        return door.guard(handler, owner_of)

    def close(self) -> None:
        """Let all threads end."""
        self._serves.close()
        self._rest.close()


class EnrolmentDoor(grpc.ServerInterceptor):
    """Counts by address, as nobody says yet who calls."""

    def __init__(self) -> None:
        watchdog = Watchdog(limits.GREETING.most)
        self._door = Door("enrolment", limits.ENROLMENTS, limits.HOST_ENROLMENTS, watchdog)

    def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Put the door before the handler of a call."""
        handler = continuation(details)
        return None if handler is None else self._door.guard(handler, host_of)

    def close(self) -> None:
        """Let all threads end."""
        self._door.close()
