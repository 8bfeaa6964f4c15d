"""Log lines of what happens to campaigns, and lines of the log as JSON.

One line at INFO for each decision about a campaign, each state that it comes into, each wave, and
each model that failed or has not forgotten.  What happens to every single model is in the audit
log.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from disinherit.common.limits import clipped
from disinherit.server.store.audit_events import COORDINATOR, DECISIONS, AuditKind
from disinherit.v1 import coordinator_pb2 as pb

_LOG = logging.getLogger(__name__)
_TOLD = DECISIONS.union(
    (
        AuditKind.FAILED,
        AuditKind.INEFFECTIVE,
        AuditKind.HARMFUL,
        AuditKind.ROLLBACK_REFUSED,
        AuditKind.DESTROY_REFUSED,
        AuditKind.FELL_BACK,
        AuditKind.UNAPPROVED,
        AuditKind.HISTORY_CONFIRMED,
        AuditKind.CLOCK_CONFIRMED,
        AuditKind.KEY_REVOKED,
        AuditKind.SIGNING_KEY,
    )
)
FIELDS = ("event", "request", "model", "owner", "state", "actor", "sequence")
"""Fields that log records have beside their message, where they apply."""


def log_events(events: Sequence[pb.FleetEvent]) -> None:
    """Log what people who run a coordinator want to know of some events."""
    for event in events:
        if event.kind not in _TOLD:
            continue
        about = f"request {event.request_id}: " if event.request_id else ""
        by = f", by {event.actor}" if event.actor not in ("", COORDINATOR) else ""
        _LOG.info("%s", clipped(f"{about}{event.text}{by}"), extra=_fields(event))


def _fields(event: pb.FleetEvent) -> Mapping[str, Any]:
    found = {
        "event": event.kind,
        "request": event.request_id,
        "model": event.model_id,
        "owner": event.owner,
        "state": event.state,
        "actor": event.actor,
        "sequence": event.sequence,
    }
    return {name: value for name, value in found.items() if value}


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON.

    It has `time` (ISO 8601, UTC), `level`, `logger` and `message`; where they apply, the fields of
    `FIELDS`, `settings` at the start, and `error` with a traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in (*FIELDS, "settings"):
            value = getattr(record, name, None)
            if value is not None:
                found[name] = value
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False)
