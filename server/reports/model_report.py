"""What was done to one affected version."""

from dataclasses import dataclass

from disinherit.common.audit.chain import Json
from disinherit.server.planning.coverage import Covered
from disinherit.server.store.audit_events import result_words, selection_words
from disinherit.v1.unlearning_pb2 import ModelResult


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What was done to one affected version.

    Attributes:
        covered: where it stands.
        result: what its owner reported when it applied the request, or found that it would not
            help; `None` if it has not, or if that was taken back.
        fishers: SHA-256 of the merged Fisher packets that it was dampened with.
        told_us: when its owner was known to have got word, in microseconds since the epoch; 0 if
            it was not.
        destroyed_us: when the log says that its owner destroyed it; 0 for not.
        held_by: a version of the same owner with the very same weights, which kept them then;
            `""` for none.
    """

    covered: Covered
    result: ModelResult | None
    fishers: tuple[str, ...]
    told_us: int
    destroyed_us: int = 0
    held_by: str = ""

    def words(self) -> dict[str, Json]:
        """Return what attestations say of it."""
        covered, result = self.covered, self.result
        return {
            "id": covered.model_id,
            "owner": covered.owner,
            "state": covered.state.value,
            "late": not covered.updated_us,
            "digest_before": covered.digest_before,
            "successor": covered.successor or None,
            "digest_after": covered.digest_after or None,
            "parameters": None if result is None else result_words(result),
            "fishers": list(self.fishers),
            "selected": None if result is None else selection_words(result),
            "out_of_scope": None if result is None else list(result.out_of_scope),
            "notified_us": self.told_us or None,
            "destroyed_us": self.destroyed_us or None,
            "held_by": self.held_by or None,
        }
