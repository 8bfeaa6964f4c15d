"""Who may call what: an interceptor in front of the servicer.

=============  ======================================================================
role           calls
=============  ======================================================================
viewer         all that only look
operator       those, and RegisterModel, SubmitRequest, PauseRequest, ResumeRequest, AbortRequest,
               ExportAudit
approver       those that look, and ApproveRequest, ResumeRequest, AbortRequest, RollBackRequest,
               ExportAudit
owner:<name>   RegisterModel and ListModels, for its own models only
=============  ======================================================================

What submits cannot approve: a campaign that needs an approval needs two tokens, and if it is halted
an approver lets it go on.  The audit log says who did what, which is for those who answer for it
and not for every viewer.  Health and reflection are open, as they tell nothing of the models; the
agents' service knows its callers by their certificates.
"""

import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import grpc

from disinherit.server.service.principals import Principal, Role, TokenFile
from disinherit.server.service.refusals import NotAllowedError, NotKnownError, status_of

_LOOK = frozenset(
    {"ListModels", "GetGraph", "GetRequest", "ListRequests", "WatchRequest", "GetCoverage"}
    | {"GetReport", "GetAttestation", "GetSigningKeys"}
)
_ALLOWED: dict[Role, frozenset[str]] = {
    Role.VIEWER: _LOOK,
    Role.OPERATOR: _LOOK
    | {"RegisterModel", "SubmitRequest", "PauseRequest", "ResumeRequest", "AbortRequest"}
    | {"ExportAudit"},
    Role.APPROVER: _LOOK
    | {"ApproveRequest", "ResumeRequest", "AbortRequest", "RollBackRequest", "ExportAudit"},
    Role.OWNER: frozenset({"RegisterModel", "ListModels"}),
}
_GUARDED = "/disinherit.v1.Coordinator/"
_CALLER: ContextVar[Principal] = ContextVar("caller")

Servicer = Callable[[Any, Any], Any]


def caller() -> Principal:
    """Return who makes the call that is being answered."""
    return _CALLER.get()


class Authentication:
    """A server interceptor that lets through who may.

    Args:
        tokens: knows the callers.
    """

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Put a check before the handler of a guarded call."""
        handler = continuation(details)
        if handler is None or not details.method.startswith(_GUARDED):
            return handler
        method = details.method.removeprefix(_GUARDED)
        if handler.response_streaming:
            checked = functools.partial(self._streamed, method, handler.unary_stream)
            make = grpc.unary_stream_rpc_method_handler
        else:
            checked = functools.partial(self._checked, method, handler.unary_unary)
            make = grpc.unary_unary_rpc_method_handler
        return make(checked, handler.request_deserializer, handler.response_serializer)

    def _checked(self, method: str, behaviour: Servicer, request: Any, context: Any) -> Any:
        try:
            principal = self._principal(dict(context.invocation_metadata()))
            if method not in _ALLOWED[principal.role]:
                raise NotAllowedError(
                    f"Expected a role that may call {method}, but {principal.name!r} is "
                    f"{principal.role.value}."
                )
        except (NotAllowedError, NotKnownError) as refused:
            context.abort(status_of(refused), str(refused))
        # The thread answers one call at a time.
        _CALLER.set(principal)
        return behaviour(request, context)

    def _streamed(
        self, method: str, behaviour: Servicer, request: Any, context: Any
    ) -> Iterator[Any]:
        """Answer as long as the caller is known: a stream may outlive its token."""
        answers = self._checked(method, behaviour, request, context)
        return self._while_known(answers, context)

    def _while_known(self, answers: Iterator[Any], context: Any) -> Iterator[Any]:
        metadata = dict(context.invocation_metadata())
        for answer in answers:
            try:
                self._principal(metadata)
            except NotKnownError as refused:
                context.abort(status_of(refused), str(refused))
            yield answer

    def _principal(self, metadata: dict[str, Any]) -> Principal:
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise NotKnownError(
                "Expected a token as metadata 'authorization: Bearer <token>', but got none."
            )
        return self._tokens.principal(token.strip())
