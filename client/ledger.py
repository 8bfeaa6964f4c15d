"""What the ledger of unlearning records.

Dampening twice is not dampening once.  So there is at most one entry per version: a message that
comes again finds its own, and another request has to be applied to the successor.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from disinherit.common.fisher import ClassFishers
from disinherit.common.records import ModelRecord


@dataclass(frozen=True, slots=True, eq=False)
class Application:
    """What `ModelStore.apply` is to record.

    Attributes:
        request_id: the request it was done for.
        model_id: the version that was dampened.
        expected_digest: the `weights_digest` it had when it was dampened.
        successor: the version made of it; without a Fisher digest, which the store fills in.
        weights: weights of the successor by parameter name.
        result: the serialised reply.
        fishers: per-class Fisher sums of the successor, `[C, *shape]` by parameter name.
        fisher_scope: the scope they were computed in.
    """

    request_id: str
    model_id: str
    expected_digest: str
    successor: ModelRecord
    weights: Mapping[str, Tensor]
    result: bytes
    fishers: ClassFishers | None = None
    fisher_scope: str = ""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One version that was unlearned in.

    Attributes:
        request_id: the request it was done for.
        model_id: the version that was dampened.
        digest_before: its `weights_digest`.
        successor_id: the version made of it.
        digest_after: `weights_digest` of that.
        result: the serialised reply, to be sent again when the message comes again.
    """

    request_id: str
    model_id: str
    digest_before: str
    successor_id: str
    digest_after: str
    result: bytes

    def answers(self, request_id: str, digest: str) -> bool:
        """Whether this is what a request did to a version with this digest."""
        return (self.request_id, self.digest_before) == (request_id, digest)


@dataclass(frozen=True, slots=True)
class Destruction:
    """The tombstone of a version whose weights and Fisher summary are gone.

    Attributes:
        request_id: the request that superseded it.
        model_id: the version.
        digest: the `weights_digest` it had.
        held_by: another version that had the very same weights then, and kept them; `""` for none.
    """

    request_id: str
    model_id: str
    digest: str
    held_by: str


@dataclass(frozen=True, slots=True)
class RollBack:
    """One request that is undone in a version, and is never to be applied to it again.

    Attributes:
        request_id: the request.
        model_id: the version that is current again.
        digest: its `weights_digest`.
        retired_id: the version that the request had made of it; `""` if it was not applied yet.
    """

    request_id: str
    model_id: str
    digest: str
    retired_id: str
