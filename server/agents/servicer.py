"""gRPC servicer of the agents' service, over the hub.

It runs in the event loop of asynchronous servers.  What waits for the database runs in threads, a
few for those that have a certificate, and others for those that have none yet.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, TypeVar

import grpc

from disinherit.common.errors import (
    DisinheritError,
    InputError,
    KeyRefusedError,
    NotOnOfferError,
    OffsetError,
    TokenError,
)
from disinherit.common.text import one_line
from disinherit.common.wire.messages import PROTOCOL
from disinherit.server.agents.admission import certified, owner_of
from disinherit.server.agents.blobs import Blobs
from disinherit.server.agents.enrolment import Enrolment
from disinherit.server.agents.hub import Hub, Session
from disinherit.server.agents.revocation import certified_key
from disinherit.server.ports.gates import AsyncContext, arriving, received
from disinherit.server.store.presence import Details, MeasuredDownload
from disinherit.v1 import agents_pb2 as pb

_T = TypeVar("_T")
_LONGEST_RELEASE = 64
_LARGEST_LIMIT = 2**63 - 1
LONG_DOWNLOAD = 1 << 20
"""Bytes of a download that tells how fast an owner is: less fits into buffers on the way."""

_THREADS = 4
"""Threads that wait for the database, of each kind of callers."""

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


class AgentsServicer:
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
        self._checking = ThreadPoolExecutor(_THREADS, "certificates")
        self._enrolling = ThreadPoolExecutor(_THREADS, "enrolment")

    def close(self) -> None:
        """Shut the threads down; call it after the servers have stopped."""
        self._checking.shutdown(wait=False, cancel_futures=True)
        self._enrolling.shutdown(wait=False, cancel_futures=True)

    async def Enrol(self, request: pb.EnrolRequest, context: AsyncContext) -> pb.EnrolResponse:  # noqa: N802
        """Exchange a certificate signing request for a certificate."""
        token, asked = request.token, request.certificate_request
        work = self._enrolling, lambda: self._enrolment.enrol(token, asked)
        enrolled = await _answered(context, *work)
        return pb.EnrolResponse(certificate=enrolled.certificate, owner=enrolled.owner)

    async def Serve(self, _: object, context: AsyncContext) -> None:  # noqa: N802
        """Send an agent its tasks and receive its answers while it is connected."""
        owner, key = await self._caller(context)
        first = await arriving(context) or pb.FromAgent()
        await _check_hello(first, owner, context)
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        session = Session(
            owner,
            key,
            context.peer(),
            _details(first.hello),
            lambda: loop.call_soon_threadsafe(news.set),
        )
        session.certificate = _shown(context)
        self._hub.connect(session)
        receiving = asyncio.create_task(self._receive(context, session))
        try:
            await context.write(pb.ToAgent(welcome=pb.Welcome(time_us=time.time_ns() // 1000)))
            while not session.closed:
                await news.wait()
                news.clear()
                for task in session.taken():
                    await context.write(pb.ToAgent(task=task))
            if session.replaced:
                await context.abort(
                    grpc.StatusCode.ABORTED, f"Another agent of owner {owner} took over."
                )
            if session.refused:
                await _refuse(context, _revoked(owner))
        finally:
            receiving.cancel()
            self._hub.leave(session)
            await asyncio.gather(receiving, return_exceptions=True)

    async def Fetch(self, request: pb.FetchRequest, context: AsyncContext) -> None:  # noqa: N802
        """Send a blob from an offset on; without a digest, nothing: that asks for access only."""
        owner = await owner_of(context)
        if not self._is_connected(owner, context):
            await self._caller(context)
        if not request.digest:
            return
        began, size = time.monotonic_ns(), 0
        try:
            for chunk in self._blobs.chunks(owner, request.digest, request.offset):
                size += len(chunk.data)
                await context.write(chunk)
        except DisinheritError as error:
            await _refuse(context, error)
        if size >= LONG_DOWNLOAD:
            taken_us = max(1, (time.monotonic_ns() - began) // 1000)
            self._hub.measured(owner, MeasuredDownload(size, taken_us))

    def _is_connected(self, owner: str, context: AsyncContext) -> bool:
        """Return whether the caller's certificate is that of its owner's open stream.

        It was looked up when it connected, and a revocation ends the stream.
        """
        shown = _shown(context)
        return any(one.certificate == shown for one in self._hub.sessions([owner]))

    async def _caller(self, context: AsyncContext) -> tuple[str, str]:
        """Return the caller's owner and its key's SHA-256; abort if its certificate was revoked."""
        owner = await owner_of(context)
        (certificate,) = certified(context, "x509_pem_cert")
        key = certified_key(certificate)
        work = self._checking, lambda: self._enrolment.is_revoked(owner, key)
        if await _answered(context, *work):
            await _refuse(context, _revoked(owner))
        return owner, key

    async def _receive(self, context: AsyncContext, session: Session) -> None:
        """Take answers until the agent sends no more, or the connection is lost."""
        try:
            while (message := await received(context)) is not None:
                if message.HasField("answer"):
                    self._hub.receive(session, message.answer)
        finally:
            self._hub.leave(session)


async def _answered(
    context: AsyncContext, threads: ThreadPoolExecutor, work: Callable[[], _T]
) -> _T:
    """Do in a thread what waits for the database; abort the call if it fails."""
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    except DisinheritError as error:
        await _refuse(context, error)


def _shown(context: AsyncContext) -> bytes:
    """Return the SHA-256 of the caller's certificate."""
    (certificate,) = certified(context, "x509_pem_cert")
    return hashlib.sha256(certificate).digest()


def _revoked(owner: str) -> TokenError:
    return TokenError(
        f"Expected a valid certificate, but this one of owner {owner} was revoked. Delete "
        "agent.key in the agent's state folder, and enrol again with a new token."
    )


async def _check_hello(first: pb.FromAgent, owner: str, context: AsyncContext) -> None:
    if not first.HasField("hello"):
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, "Expected a hello first, but got none."
        )
    if first.hello.protocol != PROTOCOL:
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"Expected an agent that speaks protocol {PROTOCOL}, but got {first.hello.protocol}. "
            "Install the coordinator's release of Disinherit on the device.",
        )
    if first.hello.owner != owner:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"Expected an agent of owner {owner}, named in its certificate, but it is configured "
            f"for {one_line(first.hello.owner)!r}. Correct `owner` in its configuration.",
        )


def _details(hello: pb.Hello) -> Details:
    """Return what an agent says of itself, as far as it can be shown."""
    release = one_line(hello.release)[:_LONGEST_RELEASE]
    hours = hello.hours if _HOURS.fullmatch(hello.hours) else ""
    return Details(release, hours, min(hello.bytes_per_second, _LARGEST_LIMIT))


async def _refuse(context: AsyncContext, error: DisinheritError) -> NoReturn:
    code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
    await context.abort(code, one_line(str(error)))
