"""Roll-out of a request: the order in which owners are asked, in waves with gates between them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from disinherit.common.errors import RequestError
from disinherit.common.fields import check_type, settle
from disinherit.common.graph.identifiers import check_id
from disinherit.v1 import unlearning_pb2 as pb

MOST_WAVES = 100
MOST_OWNERS = 2**32 - 1
"""Bound on the owners of a wave, on the wire."""

_WAVE = re.compile(r"([0-9]{1,9})|([0-9]{1,3}(?:\.[0-9]{1,9})?)%")


@dataclass(frozen=True, slots=True)
class Wave:
    """Size of one wave of a staged roll-out: a share of all owners, or a number of them.

    Attributes:
        fraction: share of all owners, in (0, 1].
        count: number of owners.

    Raises:
        RequestError: if a value has another type, the wave would be empty, or both are given.
    """

    fraction: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Check the size."""
        settle(self, "a wave", RequestError)
        if self.fraction is not None and self.count is not None:
            raise RequestError("Expected a wave of a share or of a number of owners, but got both.")
        fits = (self.count or 0) > 0 if self.fraction is None else 0 < self.fraction <= 1
        if not fits:
            raise RequestError(
                "Expected waves of a share of the owners above 0 and up to 100%, or of at least "
                f"one owner, but got {self}."
            )
        if self.count is not None:
            _check_owners(self.count, "a wave")

    def __str__(self) -> str:
        """Return the size in the form that `parse` reads."""
        return str(self.count or 0) if self.fraction is None else f"{100 * self.fraction:g}%"

    def to_proto(self) -> pb.Wave:
        """Return the message for this wave."""
        if self.fraction is None:
            return pb.Wave(count=self.count or 0)
        return pb.Wave(fraction=self.fraction)

    @classmethod
    def parse(cls, size: str) -> "Wave":
        """Return the wave in a text.

        Raises:
            RequestError: if the text is neither a share nor a number.

        Example:
            >>> Wave.parse("10%")
            Wave(fraction=0.1, count=None)
        """
        check_type(size, str, "a wave such as '10%' or '25'", RequestError)
        match = _WAVE.fullmatch(size)
        if match is None:
            raise RequestError(f"Expected a wave such as 10% or 25, but got {size!r}.")
        return cls(count=int(match[1])) if match[1] else cls(fraction=float(match[2]) / 100)


@dataclass(frozen=True, slots=True)
class RollOut:
    """Order in which owners are asked to apply a request, and the gates between waves.

    Canary owners come first, then the waves, then all others.

    Attributes:
        canaries: owners in the first wave, by name.
        canary_count: number of owners in the first wave, instead of names; 0 for none.
        waves: further waves.
        min_success: share of a wave's models that must be verified before the next wave begins;
            `None` for all.
        max_retain_drop: points of accuracy on kept data that a model may lose; `None` for no limit.
        max_error_rate: share of a wave's models that may fail; `None` for no limit.

    Raises:
        RequestError: if a value has another type or is out of range, or a name is malformed.

    Example:
        >>> RollOut(canaries=["owner-3"], waves=[Wave.parse("10%"), Wave(count=25)]).canaries
        ('owner-3',)
    """

    canaries: Sequence[str] = ()
    canary_count: int = 0
    waves: Sequence[Wave] = ()
    min_success: float | None = None
    max_retain_drop: float | None = None
    max_error_rate: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        settle(self, "a roll-out", RequestError)
        for name in self.canaries:
            check_id(name, "owner name", RequestError)
        _check_owners(self.canary_count, "the first wave")
        if self.canaries and self.canary_count:
            raise RequestError(
                f"Expected canary owners by name or by number, but got {len(self.canaries)} names "
                f"and the number {self.canary_count}."
            )
        if len(self.waves) > MOST_WAVES:
            raise RequestError(f"Expected at most {MOST_WAVES} waves, but got {len(self.waves)}.")
        share = math.fsum(wave.fraction or 0 for wave in self.waves)
        if share > 1 + 1e-9:
            raise RequestError(
                f"Expected waves of at most 100% of the owners together, but got {100 * share:g}%."
            )
        if self.min_success is not None and not 0 < self.min_success <= 1:
            raise RequestError(
                "Expected a share of models to succeed above 0 and up to 1, but got "
                f"{self.min_success:g}."
            )
        if self.max_retain_drop is not None and not 0 <= self.max_retain_drop <= 100:
            raise RequestError(
                "Expected an allowed drop of retain accuracy from 0 to 100 points, but got "
                f"{self.max_retain_drop:g}."
            )
        if self.max_error_rate is not None and not 0 <= self.max_error_rate <= 1:
            raise RequestError(
                f"Expected an allowed error rate from 0 to 1, but got {self.max_error_rate:g}."
            )

    def to_proto(self) -> pb.RollOut:
        """Return the message for this roll-out."""
        return pb.RollOut(
            canaries=self.canaries,
            canary_count=self.canary_count,
            waves=[wave.to_proto() for wave in self.waves],
            min_success=self.min_success,
            max_retain_drop=self.max_retain_drop,
            max_error_rate=self.max_error_rate,
        )

    @classmethod
    def from_proto(cls, message: pb.RollOut) -> "RollOut":
        """Return the roll-out of a message.

        Raises:
            RequestError: if it is no such message, or a value is out of range.
        """
        check_type(message, pb.RollOut, "a message disinherit.v1.RollOut", RequestError)
        return cls(
            canaries=tuple(message.canaries),
            canary_count=message.canary_count,
            waves=[
                Wave(fraction=wave.fraction)
                if wave.HasField("fraction")
                else Wave(count=wave.count)
                for wave in message.waves
            ],
            min_success=message.min_success if message.HasField("min_success") else None,
            max_retain_drop=(
                message.max_retain_drop if message.HasField("max_retain_drop") else None
            ),
            max_error_rate=message.max_error_rate if message.HasField("max_error_rate") else None,
        )


def _check_owners(count: int, what: str) -> None:
    if not 0 <= count <= MOST_OWNERS:
        raise RequestError(f"Expected from 0 to {MOST_OWNERS} owners in {what}, but got {count}.")
