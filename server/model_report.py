"""What was done to one affected version."""

from dataclasses import dataclass

from disinherit.server.coverage import Covered
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
    """

    covered: Covered
    result: ModelResult | None
    fishers: tuple[str, ...]
    told_us: int
