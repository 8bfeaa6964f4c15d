"""Limits on concurrent calls: per owner for agents, per address for enrolment."""

from collections.abc import Iterable, Mapping
from typing import cast

import grpc

from disinherit.common import limits
from disinherit.common.limits import Limit
from disinherit.server.agents.authority import OWNER_URN
from disinherit.server.ports.doors import Continuation, Door, Handler, Watchdog, host_of


def certified(context: grpc.ServicerContext, name: str) -> tuple[bytes, ...]:
    """Return a property of a caller's certificate.

    Args:
        context: the call's context.
        name: gRPC's name of the property.
    """
    # types-grpcio declares bytes; gRPC returns several values.
    properties = cast("Mapping[str, Iterable[bytes]]", context.auth_context())
    return tuple(properties.get(name, ()))


def owner_of(context: grpc.ServicerContext) -> str:
    """Return the owner named in the caller's certificate.

    Aborts a call without an agent's certificate.

    Args:
        context: the call's context.
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
    """Limits per owner: streams of agents, and their downloads.

    Args:
        agents: maximum number of connected agents.
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
    """Limits per address: callers have no certificate yet."""

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
