"""Requests and coverage as protobuf messages."""

from disinherit.server.coverage import Covered
from disinherit.server.service.requests import Standing
from disinherit.v1 import coordinator_pb2 as pb


def standing_to_proto(standing: Standing) -> pb.RequestStatus:
    """Convert how a request stands to its message."""
    campaign = standing.campaign
    return pb.RequestStatus(
        request=standing.request,
        state=f"CAMPAIGN_STATE_{campaign.state.name}",
        tasks=standing.tasks,
        created_us=campaign.created_us,
        updated_us=campaign.updated_us,
        deadline_us=campaign.deadline_us,
    )


def coverage_to_proto(covered: Covered) -> pb.ModelCoverage:
    """Convert how an affected version stands to its message."""
    return pb.ModelCoverage(
        model_id=covered.model_id,
        owner=covered.owner,
        state=covered.state.value,
        reason=covered.reason,
        successor_id=covered.successor,
        digest_before=covered.digest_before,
        digest_after=covered.digest_after,
        updated_us=covered.updated_us,
    )
