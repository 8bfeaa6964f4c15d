"""Authentication and authorisation of callers: an interceptor in front of the servicer.

=============  ======================================================================
role           calls
=============  ======================================================================
every          WhoAmI
viewer         read-only calls, except GetSystem and ExportAudit
operator       those, and GetSystem, ExportAudit, RegisterModel, RegisterModels, WithdrawModel,
               PlanRequest, SubmitRequest, PauseRequest, ResumeRequest, ResendRequest, AbortRequest
approver       those of a viewer, and GetSystem, ExportAudit, ApproveRequest, ResumeRequest,
               AbortRequest, RollBackRequest
owner:<name>   RegisterModel, RegisterModels, WithdrawModel and ListModels, for its own models only
=============  ======================================================================

A role that submits cannot approve: a campaign that needs an approval needs two tokens.  Only an
approver resumes it after a halt.  The audit log and the list of tokens name actors, so viewers may
not have them.  Health
checks need no token; watching health, and reflection, take any token.  The agents' service
identifies its callers by their certificates.

A caller is authenticated before its message is read, and a refused call takes no thread of others.
Operators and approvers share no threads with viewers and owners.
"""

from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import grpc

from disinherit.common import limits
from disinherit.common.errors import NotAllowedError, NotKnownError
from disinherit.server.ports.doors import (
    Continuation,
    Door,
    Handler,
    WaitingLine,
    Watchdog,
    behaviour_of,
    host_of,
)
from disinherit.server.service.principals import Principal, Role, TokenFile
from disinherit.server.service.refusals import status_of

_LOOK = frozenset(
    {"ListModels", "GetGraph", "GetRequest", "ListRequests", "WatchRequest", "GetCoverage"}
    | {"GetReport", "GetAttestation", "GetSigningKeys", "ListOwners", "WatchFleet", "WhoAmI"}
)
_ALLOWED: dict[Role, frozenset[str]] = {
    Role.VIEWER: _LOOK,
    Role.OPERATOR: _LOOK
    | {
        "RegisterModel",
        "RegisterModels",
        "WithdrawModel",
        "PlanRequest",
        "SubmitRequest",
        "PauseRequest",
        "ResumeRequest",
        "ResendRequest",
        "AbortRequest",
    }
    | {"GetSystem", "ExportAudit"},
    Role.APPROVER: _LOOK
    | {"ApproveRequest", "ResumeRequest", "AbortRequest", "RollBackRequest"}
    | {"GetSystem", "ExportAudit"},
    Role.OWNER: frozenset(
        {"RegisterModel", "RegisterModels", "WithdrawModel", "ListModels", "WhoAmI"}
    ),
}
_DEEDS = {
    "GetSystem": "see how the coordinator is set up",
    "RegisterModel": "register a model",
    "RegisterModels": "register models",
    "WithdrawModel": "withdraw a model",
    "ListModels": "list models",
    "GetGraph": "see the inheritance graph",
    "ListOwners": "list owners",
    "WatchFleet": "watch the fleet",
    "SubmitRequest": "submit a request",
    "PlanRequest": "plan a request",
    "ApproveRequest": "approve a request",
    "PauseRequest": "pause a request",
    "ResumeRequest": "resume a request",
    "AbortRequest": "abort a request",
    "ResendRequest": "resend a request",
    "RollBackRequest": "roll a request back",
    "GetRequest": "see a request",
    "ListRequests": "list requests",
    "WatchRequest": "watch a request",
    "GetCoverage": "see the coverage of a request",
    "GetReport": "see the report of a request",
    "GetAttestation": "attest a request",
    "ExportAudit": "export the audit log",
    "GetSigningKeys": "see the keys that sign the audit log",
}
"""Call -> what a person does by it, in words that need no protocol."""

_COORDINATOR = "/disinherit.v1.Coordinator/"
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_EXPORTS = frozenset({"ExportAudit", "GetGraph", "GetAttestation", "RegisterModels"})
"""Streams that end when everything is sent, and not when the caller has seen enough."""

_CALLER: ContextVar[Principal] = ContextVar("caller")


def caller() -> Principal:
    """Return the caller of the current call."""
    return _CALLER.get()


class Doors:
    """The doors of one group of callers.

    Args:
        group: prefix of the names of threads.
        watchdog: cancels calls without a message.
    """

    def __init__(self, group: str, watchdog: Watchdog) -> None:
        line = WaitingLine()
        self.calls = Door(f"{group} calls", limits.CALLS, limits.CALLER_CALLS, watchdog, line=line)
        self.watches = Door(
            f"{group} watches", limits.WATCHES, limits.CALLER_WATCHES, watchdog, "watches"
        )
        self.exports = Door(
            f"{group} exports", limits.EXPORTS, limits.CALLER_EXPORTS, watchdog, "exports", line
        )

    def of(self, method: str, handler: Handler) -> Door:
        """Return the door of a call."""
        if not handler.response_streaming:
            return self.calls
        return self.exports if method in _EXPORTS else self.watches

    def close(self) -> None:
        """Shut all threads down."""
        for door in (self.calls, self.watches, self.exports):
            door.close()


class Authentication(grpc.ServerInterceptor):
    """Server interceptor that authenticates callers and limits their calls.

    Args:
        tokens: the accepted tokens.
    """

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens
        watchdog = Watchdog(limits.MESSAGE.most)
        self._steering, self._looking = Doors("steering", watchdog), Doors("looking", watchdog)
        self._open = Door(
            "open", limits.PROBES, limits.HOST_PROBES, Watchdog(limits.GREETING.most), "probes"
        )

    def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Put a door before the handler of a call; gRPC calls this before it assigns a thread."""
        handler = continuation(details)
        if handler is None:
            return None
        if details.method == _HEALTH_CHECK:
            return self._open.guard(handler, host_of)
        metadata = dict(details.invocation_metadata)
        method = details.method.removeprefix(_COORDINATOR)
        try:
            principal = self._principal(metadata)
            if method != details.method and method not in _ALLOWED[principal.role]:
                raise NotAllowedError(_refusal(method, principal))
        except (NotAllowedError, NotKnownError) as refused:
            status, text = status_of(refused), str(refused)
            return self._open.refuse(lambda _, context: context.abort(status, text))
        _CALLER.set(principal)  # gRPC answers the call in this context
        steers = principal.role in (Role.OPERATOR, Role.APPROVER)
        door = (self._steering if steers else self._looking).of(method, handler)
        if handler.response_streaming:
            handler = self._while_known(handler, metadata)
        return door.guard(handler, lambda _: principal, watch=method in _EXPORTS)

    def close(self) -> None:
        """Shut all threads down; call it after the server has stopped."""
        self._steering.close()
        self._looking.close()
        self._open.close()

    def _while_known(self, handler: Handler, metadata: Mapping[str, str | bytes]) -> Handler:
        """Check the token before each answer: a stream may outlive its token."""
        behaviour = behaviour_of(handler)

        def known(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            for answer in behaviour(request, context):
                try:
                    self._principal(metadata)
                except NotKnownError as refused:
                    context.abort(status_of(refused), str(refused))
                yield answer

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        return make(known, handler.request_deserializer, handler.response_serializer)

    def _principal(self, metadata: Mapping[str, str | bytes]) -> Principal:
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise NotKnownError(
                "Expected a token as metadata 'authorization: Bearer <token>', but got none."
            )
        return self._tokens.principal(token.strip())


def _refusal(method: str, principal: Principal) -> str:
    """Return whose token does what this one does not."""
    roles = [role.as_person for role in Role if method in _ALLOWED[role]]
    return (
        f"Expected the token of {' or '.join(roles)} to {_DEEDS.get(method, 'do this')}, but that "
        f"of {principal.name!r} is of {principal.role.as_person}."
    )
