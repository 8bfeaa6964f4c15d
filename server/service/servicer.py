"""gRPC servicer of the coordinator: unpacks messages, calls handlers, packs results."""

import logging
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar, cast

import grpc

from disinherit.common.audit.dsse import envelope_line
from disinherit.common.audit.line_messages import pack_lines
from disinherit.common.errors import DisinheritError
from disinherit.common.graph.proto import record_to_proto
from disinherit.common.limits import REASON, clipped
from disinherit.server.ports.doors import Handler
from disinherit.server.service.authentication import caller
from disinherit.server.service.documents import Records
from disinherit.server.service.feed import Feed
from disinherit.server.service.models import Models, received_version
from disinherit.server.service.owners import Owners
from disinherit.server.service.packing import (
    coverage_to_proto,
    event_for,
    listed_to_proto,
    model_report_to_proto,
    status_for,
    status_to_proto,
    summary_for,
    summary_to_proto,
)
from disinherit.server.service.paging import fitting
from disinherit.server.service.plans import Plans
from disinherit.server.service.refusals import status_of
from disinherit.server.service.requests import Requests
from disinherit.server.service.setup import Setup
from disinherit.server.states import CampaignEvent
from disinherit.server.store.notifications import ModelTimes
from disinherit.v1 import coordinator_pb2 as pb
from disinherit.v1 import coordinator_pb2_grpc, graph_pb2

_LOG = logging.getLogger(__name__)

_PART_BYTES = 1 << 20

T = TypeVar("T")


class CoordinatorServicer(coordinator_pb2_grpc.CoordinatorServicer):
    """Answers the calls of `disinherit.v1.Coordinator`.

    Args:
        models: handles calls about models.
        requests: handles calls about requests.
        records: handles calls about records.
        setup: handles calls about callers and settings.
        owners: handles calls about owners.
        plans: handles calls about what a submission would do.
        feed: tells what happens.
    """

    def __init__(
        self,
        models: Models,
        requests: Requests,
        records: Records,
        setup: Setup,
        owners: Owners,
        plans: Plans,
        feed: Feed,
    ) -> None:
        self._feed = feed
        self._setup = setup
        self._models = models
        self._requests = requests
        self._records = records
        self._owners = owners
        self._plans = plans

    def WhoAmI(  # noqa: N802
        self, request: pb.WhoAmIRequest, context: grpc.ServicerContext
    ) -> pb.WhoAmIResponse:
        """Return who the caller is."""
        return _answered(context, lambda: self._setup.who(caller()))

    def GetSystem(  # noqa: N802
        self, request: pb.GetSystemRequest, context: grpc.ServicerContext
    ) -> pb.System:
        """Return how the coordinator is set up."""
        return _answered(context, self._setup.system)

    def RegisterModel(  # noqa: N802
        self, request: pb.RegisterModelRequest, context: grpc.ServicerContext
    ) -> pb.RegisterModelResponse:
        """Add a version, or complete its record."""

        def answer() -> pb.RegisterModelResponse:
            record = self._models.register(caller(), *received_version(request))
            return pb.RegisterModelResponse(record=record_to_proto(record))

        return _answered(context, answer)

    def RegisterModels(  # noqa: N802
        self, requests: Iterator[pb.RegisterModelsRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.RegisterModelsResponse]:
        """Add versions message by message, each in one transaction."""
        who = caller()
        return _streamed(
            context, (self._models.register_all(who, request.models) for request in requests)
        )

    def WithdrawModel(  # noqa: N802
        self, request: pb.WithdrawModelRequest, context: grpc.ServicerContext
    ) -> pb.WithdrawModelResponse:
        """Withdraw a registration."""

        def answer() -> pb.WithdrawModelResponse:
            record = self._models.withdraw(caller(), request.id)
            return pb.WithdrawModelResponse(record=record_to_proto(record))

        return _answered(context, answer)

    def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """List versions."""
        return _answered(
            context,
            lambda: self._models.list(
                caller(), request.owner, request.page_size, request.page_token
            ),
        )

    def GetGraph(  # noqa: N802
        self, request: pb.GetGraphRequest, context: grpc.ServicerContext
    ) -> Iterator[graph_pb2.Graph]:
        """Yield the whole graph in parts, which are encoded already (`add_to_server`)."""
        parts = cast("Iterator[graph_pb2.Graph]", self._models.graph())
        return _streamed(context, parts)

    def ListOwners(  # noqa: N802
        self, request: pb.ListOwnersRequest, context: grpc.ServicerContext
    ) -> pb.ListOwnersResponse:
        """List owners."""

        def answer() -> pb.ListOwnersResponse:
            owners, token = self._owners.list(request.owner, request.page_size, request.page_token)
            return pb.ListOwnersResponse(owners=owners, next_page_token=token)

        return _answered(context, answer)

    def WatchFleet(  # noqa: N802
        self, request: pb.WatchFleetRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.FleetEvent]:
        """Yield what happens in the fleet."""
        after = request.after_sequence if request.HasField("after_sequence") else None
        context.add_callback(self._feed.wake)
        events = self._feed.events(after, request.request_id, context.is_active)
        who = caller()
        return _streamed(context, (event_for(who, event) for event in events))

    def SubmitRequest(  # noqa: N802
        self, request: pb.SubmitRequestRequest, context: grpc.ServicerContext
    ) -> pb.RequestStatus:
        """Plan and store a request."""
        return _answered(
            context,
            lambda: status_to_proto(
                self._requests.submit(
                    request.request, request.deadline_seconds, caller(), again=request.again
                )
            ),
        )

    def PlanRequest(  # noqa: N802
        self, request: pb.PlanRequestRequest, context: grpc.ServicerContext
    ) -> pb.PlanRequestResponse:
        """Return a page of what a submission would do."""
        return _answered(
            context,
            lambda: self._plans.plan(request.request, request.page_size, request.page_token),
        )

    def ApproveRequest(  # noqa: N802
        self, request: pb.ControlRequest, context: grpc.ServicerContext
    ) -> pb.RequestStatus:
        """Approve a campaign."""
        return _answered(
            context,
            lambda: status_to_proto(
                self._requests.approve(request.id, request.plan_sha256, caller())
            ),
        )

    def PauseRequest(  # noqa: N802
        self, request: pb.ControlRequest, context: grpc.ServicerContext
    ) -> pb.RequestStatus:
        """Pause a campaign."""
        return self._moved(CampaignEvent.PAUSE, request, context)

    def ResumeRequest(  # noqa: N802
        self, request: pb.ResumeRequestRequest, context: grpc.ServicerContext
    ) -> pb.RequestStatus:
        """Resume a campaign that is paused, halted or partial."""
        seconds = request.deadline_seconds if request.HasField("deadline_seconds") else None
        return self._moved(CampaignEvent.RESUME, request, context, seconds)

    def ResendRequest(  # noqa: N802
        self, request: pb.ControlRequest, context: grpc.ServicerContext
    ) -> pb.RequestStatus:
        """Send all tasks of a request again."""
        return _answered(
            context, lambda: status_to_proto(self._requests.resend(request.id, caller()))
        )

    def AbortRequest(  # noqa: N802
        self, request: pb.ControlRequest, context: grpc.ServicerContext
    ) -> pb.RequestStatus:
        """Abort a campaign."""
        return self._moved(CampaignEvent.ABORT, request, context)

    def RollBackRequest(  # noqa: N802
        self, request: pb.RollBackRequestRequest, context: grpc.ServicerContext
    ) -> pb.RequestStatus:
        """Restore the versions that a request superseded."""
        return _answered(
            context,
            lambda: status_to_proto(
                self._requests.roll_back(request.id, request.reason, request.model_ids, caller())
            ),
        )

    def GetRequest(  # noqa: N802
        self, request: pb.GetRequestRequest, context: grpc.ServicerContext
    ) -> pb.RequestStatus:
        """Return the status of a request."""
        return _answered(
            context,
            lambda: status_for(caller(), status_to_proto(self._requests.show(request.id))),
        )

    def ListRequests(  # noqa: N802
        self, request: pb.ListRequestsRequest, context: grpc.ServicerContext
    ) -> pb.ListRequestsResponse:
        """List requests."""

        def answer() -> pb.ListRequestsResponse:
            listed, token = self._requests.list(
                request.owner, request.page_size, request.page_token
            )
            shown = [status_for(caller(), status) for status in listed]
            return pb.ListRequestsResponse(requests=shown, next_page_token=token)

        return _answered(context, answer)

    def WatchRequest(  # noqa: N802
        self, request: pb.GetRequestRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.RequestStatus]:
        """Yield the status of a request, now and after every change, until its campaign ends."""
        context.add_callback(self._feed.wake)
        statuses = self._requests.watch(request.id, context.is_active)
        who = caller()
        return _streamed(context, (status_for(who, listed_to_proto(one)) for one in statuses))

    def ExportAudit(  # noqa: N802
        self, request: pb.ExportAuditRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.AuditLine]:
        """Yield the lines of the audit log."""

        def messages() -> Iterator[pb.AuditLine]:
            lines = self._records.audit_lines(request.request_id)
            yield from pack_lines(lines, _PART_BYTES if request.several else 0)

        return _streamed(context, messages())

    def GetReport(  # noqa: N802
        self, request: pb.GetReportRequest, context: grpc.ServicerContext
    ) -> pb.GetReportResponse:
        """Return a page of a campaign's report."""

        def answer() -> pb.GetReportResponse:
            report, models, token = self._records.report(
                request.id, request.page_size, request.page_token
            )
            packed = [model_report_to_proto(model) for model in models]
            count = fitting(packed)
            if count < len(packed):
                token = packed[count - 1].coverage.model_id
            summary = summary_for(caller(), summary_to_proto(report, self._records.log_end()))
            return pb.GetReportResponse(
                summary=summary, models=packed[:count], next_page_token=token
            )

        return _answered(context, answer)

    def GetAttestation(  # noqa: N802
        self, request: pb.GetAttestationRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.AttestationPart]:
        """Yield the parts of a signed attestation."""

        def parts() -> Iterator[pb.AttestationPart]:
            data = envelope_line(self._records.attestation(request.id))
            for start in range(0, len(data), _PART_BYTES):
                yield pb.AttestationPart(data=data[start : start + _PART_BYTES])

        return _streamed(context, parts())

    def GetSigningKeys(  # noqa: N802
        self, request: pb.GetSigningKeysRequest, context: grpc.ServicerContext
    ) -> pb.GetSigningKeysResponse:
        """Return the public keys of the coordinator's signatures."""

        def answer() -> pb.GetSigningKeysResponse:
            keys = [
                pb.SigningKey(
                    key_id=key.key_id,
                    public_pem=key.public_pem,
                    since_us=key.since_us,
                    until_us=key.until_us,
                    revoked_us=key.revoked_us,
                )
                for key in self._records.signing_keys()
            ]
            return pb.GetSigningKeysResponse(keys=keys)

        return _answered(context, answer)

    def GetCoverage(  # noqa: N802
        self, request: pb.GetCoverageRequest, context: grpc.ServicerContext
    ) -> pb.GetCoverageResponse:
        """Return a page of a campaign's coverage."""

        def answer() -> pb.GetCoverageResponse:
            page, times = self._requests.coverage(request.id, request.page_size, request.page_token)
            models = [
                coverage_to_proto(covered, times.get(covered.model_id, ModelTimes()))
                for covered in page.models
            ]
            count = fitting(models)
            token = page.next_page_token if count == len(models) else models[count - 1].model_id
            return pb.GetCoverageResponse(models=models[:count], next_page_token=token)

        return _answered(context, answer)

    def _moved(
        self,
        event: CampaignEvent,
        request: pb.ControlRequest | pb.ResumeRequestRequest,
        context: grpc.ServicerContext,
        deadline_seconds: int | None = None,
    ) -> pb.RequestStatus:
        return _answered(
            context,
            lambda: status_to_proto(
                self._requests.move(event, request.id, caller(), deadline_seconds)
            ),
        )


def add_to_server(servicer: CoordinatorServicer, server: grpc.Server) -> None:
    """Have a server answer the calls of the service.

    Args:
        servicer: answers them.
        server: the server, which has not started yet.
    """
    coordinator_pb2_grpc.add_CoordinatorServicer_to_server(servicer, server)
    # Without a serializer gRPC sends the bytes that the handler yields.
    encoded: Handler = grpc.unary_stream_rpc_method_handler(
        servicer.GetGraph, request_deserializer=pb.GetGraphRequest.FromString
    )
    service = pb.DESCRIPTOR.services_by_name["Coordinator"].full_name
    server.add_registered_method_handlers(service, {"GetGraph": encoded})


def _answered(context: grpc.ServicerContext, answer: Callable[[], T]) -> T:
    """Return the answer, unless the call's deadline has passed."""
    remaining = context.time_remaining()
    if remaining is not None and remaining <= 0:
        context.abort(
            grpc.StatusCode.DEADLINE_EXCEEDED, "Expected to be called before the deadline."
        )
    try:
        return answer()
    except Exception as error:  # every error gets a one-line answer
        _abort(context, error)


def _streamed(context: grpc.ServicerContext, messages: Iterator[T]) -> Iterator[T]:
    try:
        yield from messages
    except Exception as error:  # every error gets a one-line answer
        _abort(context, error)


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    if isinstance(error, DisinheritError):
        context.abort(status_of(error), clipped(" ".join(str(error).split()), REASON))
    _LOG.error("a call failed", exc_info=error)
    context.abort(grpc.StatusCode.INTERNAL, "The coordinator failed; see its log.")
