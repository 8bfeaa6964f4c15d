"""Limits on concurrent calls: per owner for agents, per address for enrolment."""

import grpc

from disinherit.common import limits
from disinherit.common.limits import Limit
from disinherit.server.agents.authority import OWNER_URN
from disinherit.server.ports.doors import Handler, host_of
from disinherit.server.ports.gates import AsyncContext, AsyncContinuation, Gate


def certified(context: AsyncContext, name: str) -> tuple[bytes, ...]:
    """Return a property of a caller's certificate.

    Args:
        context: the call's context.
        name: gRPC's name of the property.
    """
    return tuple(context.auth_context().get(name, ()))


async def owner_of(context: AsyncContext) -> str:
    """Return the owner named in the caller's certificate.

    Aborts a call without an agent's certificate.

    Args:
        context: the call's context.
    """
    names = certified(context, "x509_subject_alternative_name")
    owners = [name.decode() for name in names if name.startswith(OWNER_URN.encode())]
    if len(owners) != 1:
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            "Expected an agent's certificate, but got none. Enrol first: disinherit agent --enrol.",
        )
    return owners[0].removeprefix(OWNER_URN)


class AgentGates(grpc.aio.ServerInterceptor):
    """Limits per owner: streams of agents, and their downloads.

    Args:
        agents: maximum number of connected agents.
    """

    def __init__(self, agents: int) -> None:
        most = Limit("agents", agents, "agents", "agents connected at a time")
        # An agent may come again before its lost connection is noticed, also where all are here.
        self._serves = Gate(most, limits.OWNER_SERVES, "streams", of_callers=True)
        # Ten thousand may be told at once to fetch the packet of a campaign.
        self._rest = Gate(limits.FETCHES, limits.OWNER_FETCHES, patience=None)

    async def intercept_service(
        self, continuation: AsyncContinuation, details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Put a gate before the handler of a call."""
        handler = await continuation(details)
        if handler is None:
            return None
        gate = self._serves if handler.request_streaming else self._rest
        return gate.guard(handler, owner_of)


class EnrolmentGate(grpc.aio.ServerInterceptor):
    """Limits per address: callers have no certificate yet."""

    def __init__(self) -> None:
        self._gate = Gate(limits.ENROLMENTS, limits.HOST_ENROLMENTS, patience=limits.MESSAGE.most)

    async def intercept_service(
        self, continuation: AsyncContinuation, details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Put the gate before the handler of a call."""
        handler = await continuation(details)
        return None if handler is None else self._gate.guard(handler, _host)


async def _host(context: AsyncContext) -> str:
    return host_of(context)
