"""gRPC servicer of the agents' service, over the hub."""

import re
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import grpc

from disinherit.common.errors import (
    DisinheritError,
    InputError,
    KeyRefusedError,
    NotOnOfferError,
    OffsetError,
    TokenError,
)
from disinherit.common.limits import GREETING
from disinherit.common.text import one_line
from disinherit.common.wire.messages import PROTOCOL
from disinherit.server.agents.admission import certified, owner_of
from disinherit.server.agents.blobs import Blobs
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.agents.hub import Hub, Session
from disinherit.server.agents.revocation import certified_key
from disinherit.server.ports.doors import Watchdog
from disinherit.server.store.presence import Details, MeasuredDownload
from disinherit.v1 import agents_pb2 as pb
from disinherit.v1 import agents_pb2_grpc

_LONGEST_RELEASE = 64
_LARGEST_LIMIT = 2**63 - 1
LONG_DOWNLOAD = 1 << 20
"""Bytes of a download that tells how fast an owner is: less fits into buffers on the way."""

_HOURS = re.compile(r"[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}")

_CODES: dict[type[DisinheritError], grpc.StatusCode] = {
    TokenError: grpc.StatusCode.UNAUTHENTICATED,
    KeyRefusedError: grpc.StatusCode.UNAUTHENTICATED,
    NotOnOfferError: grpc.StatusCode.NOT_FOUND,
    OffsetError: grpc.StatusCode.OUT_OF_RANGE,
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    DisinheritError: grpc.StatusCode.UNAVAILABLE,
}
"""Error -> status; the first match counts."""


class AgentsServicer(agents_pb2_grpc.AgentsServicer):
    """Serves `disinherit.v1.Agents`.

    Args:
        hub: the connected agents.
        blobs: packets for download.
        enrolment: exchanges tokens for certificates.
    """

    def __init__(self, hub: Hub, blobs: Blobs, enrolment: Enrolment) -> None:
        self._hub = hub
        self._blobs = blobs
        self._enrolment = enrolment
        self._greeting = Watchdog(GREETING.most)

    def Enrol(self, request: pb.EnrolRequest, context: grpc.ServicerContext) -> pb.EnrolResponse:  # noqa: N802
        """Exchange a certificate signing request for a certificate."""
        try:
            enrolled = self._enrolment.enrol(request.token, request.certificate_request)
        except DisinheritError as error:
            _refuse(context, error)
        return pb.EnrolResponse(certificate=enrolled.certificate, owner=enrolled.owner)

    def Serve(  # noqa: N802
        self, request_iterator: Iterator[pb.FromAgent], context: grpc.ServicerContext
    ) -> Iterator[pb.ToAgent]:
        """Send an agent its tasks and receive its answers while it is connected."""
        owner, key = self._caller(context)
        with self._greeting.watching(context):
            first = next(request_iterator, pb.FromAgent())
        _check_hello(first, owner, context)
        session = self._hub.connect(owner, key, context.peer(), _details(first.hello))
        if not context.add_callback(lambda: self._hub.leave(session)):
            self._hub.leave(session)  # already disconnected
        threading.Thread(
            target=self._receive,
            args=(request_iterator, session),
            name=f"from {owner}",
            daemon=True,
        ).start()
        yield pb.ToAgent(welcome=pb.Welcome(time_us=time.time_ns() // 1000))
        for task in session.tasks():
            yield pb.ToAgent(task=task)
        if session.replaced:
            context.abort(grpc.StatusCode.ABORTED, f"Another agent of owner {owner} took over.")
        if session.refused:
            _refuse(context, _revoked(owner))

    def Fetch(self, request: pb.FetchRequest, context: grpc.ServicerContext) -> Iterator[pb.Chunk]:  # noqa: N802
        """Send a blob from an offset on; without a digest, nothing: that asks for access only."""
        try:
            owner, _ = self._caller(context)
            if not request.digest:
                return
            began, size = time.monotonic_ns(), 0
            for chunk in self._blobs.chunks(owner, request.digest, request.offset):
                size += len(chunk.data)
                yield chunk
            if size >= LONG_DOWNLOAD:
                taken_us = max(1, (time.monotonic_ns() - began) // 1000)
                self._hub.measured(owner, MeasuredDownload(size, taken_us))
        except DisinheritError as error:
            _refuse(context, error)

    def _caller(self, context: grpc.ServicerContext) -> tuple[str, str]:
        """Return the caller's owner and its key's SHA-256; abort if its certificate was revoked."""
        owner = owner_of(context)
        (certificate,) = certified(context, "x509_pem_cert")
        key = certified_key(certificate)
        try:
            revoked = self._enrolment.is_revoked(owner, key)
        except DisinheritError as error:
            _refuse(context, error)
        if revoked:
            _refuse(context, _revoked(owner))
        return owner, key

    def _receive(self, incoming: Iterator[pb.FromAgent], session: Session) -> None:
        try:
            for message in incoming:
                if message.HasField("answer"):
                    self._hub.receive(session, message.answer)
        except grpc.RpcError:
            pass  # connection lost
        finally:
            self._hub.leave(session)


def _revoked(owner: str) -> TokenError:
    return TokenError(
        f"Expected a valid certificate, but this one of owner {owner} was revoked. Delete "
        "agent.key in the agent's state folder, and enrol again with a new token."
    )


def _check_hello(first: pb.FromAgent, owner: str, context: grpc.ServicerContext) -> None:
    if not first.HasField("hello"):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Expected a hello first, but got none.")
    if first.hello.protocol != PROTOCOL:
        context.abort(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"Expected an agent that speaks protocol {PROTOCOL}, but got {first.hello.protocol}. "
            "Install the coordinator's release of Disinherit on the device.",
        )
    if first.hello.owner != owner:
        context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"Expected an agent of owner {owner}, named in its certificate, but it is configured "
            f"for {one_line(first.hello.owner)!r}. Correct `owner` in its configuration.",
        )


def _details(hello: pb.Hello) -> Details:
    """Return what an agent says of itself, as far as it can be shown."""
    release = one_line(hello.release)[:_LONGEST_RELEASE]
    hours = hello.hours if _HOURS.fullmatch(hello.hours) else ""
    return Details(release, hours, min(hello.bytes_per_second, _LARGEST_LIMIT))


def _refuse(context: grpc.ServicerContext, error: DisinheritError) -> NoReturn:
    code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
    context.abort(code, one_line(str(error)))
