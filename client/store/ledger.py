"""Entries of the ledger of unlearning.

Dampening is not idempotent, so a version has at most one entry.  A repeated message finds its
entry; another request must be applied to the successor.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from torch import Tensor

from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Classes or samples that a version has forgotten for a request.

    Attributes:
        classes: class names in the version's label space.
        samples: digests of samples.
        salt: salt of these digests.
    """

    classes: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    salt: str = ""

    def to_text(self) -> str:
        """Return the text for the ledger."""
        return json.dumps([self.classes, self.samples, self.salt])

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Return the value of a text of the ledger; `None` for entries of older releases.

        Example:
            >>> Forgotten.from_text(Forgotten(("cat",)).to_text())
            Forgotten(classes=('cat',), samples=(), salt='')
        """
        if not text:
            return None
        classes, samples, salt = json.loads(text)
        return cls(tuple(classes), tuple(samples), salt)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Unlearning of one request in one version.

    Attributes:
        request_id: the request.
        model_id: the version that was dampened.
        digest_before: digest of its weights.
        successor_id: its successor.
        digest_after: digest of the successor's weights.
        result: the serialised reply, sent again for a repeated message.
        request_digest: SHA-256 of the request's content; `""` if unknown.
        forgotten: classes and samples that the successor has forgotten; `None` if unknown.
    """

    request_id: str
    model_id: str
    digest_before: str
    successor_id: str
    digest_after: str
    result: bytes = field(repr=False)
    request_digest: str = ""
    forgotten: Forgotten | None = None

    @property
    def outcome(self) -> pb.Outcome.ValueType:
        """The outcome that the owner reported."""
        return pb.ModelResult.FromString(self.result).outcome

    def answers(self, request_id: str, digest: str) -> bool:
        """Whether this is the entry of a request for a version with this digest.

        Args:
            request_id: the request.
            digest: digest of the weights of the version before it.
        """
        return (self.request_id, self.digest_before) == (request_id, digest)


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """Unlearning in one version, for `ModelStore.apply`.

    Attributes:
        request_id: the request.
        model_id: the version that was dampened.
        expected_digest: digest of its weights when it was dampened.
        successor: its successor; without a Fisher digest, which the store sets.
        weights: parameter name -> weights of the successor.
        result: the serialised reply.
        fishers: per-class Fisher sums of the successor, `[C, *shape]` by parameter name.
        fisher_scope: scope of the Fisher sums.
        keeps_summary: whether the successor has the version's own Fisher summary, unchanged.
        keeps_curvature: whether it has the version's registered curvature, if there is one.
        keeps_prepared: whether the weights that were made for the request stay beside the
            successor's, which has more in it.
        request_digest: SHA-256 of the request's content; `""` if unknown.
        forgotten: classes and samples that the successor has forgotten.
    """

    request_id: str
    model_id: str
    expected_digest: str
    successor: ModelRecord
    weights: Mapping[str, Tensor] = field(repr=False)
    result: bytes = field(repr=False)
    fishers: ClassFishers | None = None
    fisher_scope: str = ""
    keeps_summary: bool = False
    keeps_curvature: bool = False
    keeps_prepared: bool = False
    request_digest: str = ""
    forgotten: Forgotten = field(default_factory=Forgotten)

    @property
    def entry(self) -> LedgerEntry:
        """The ledger entry of the commit."""
        return LedgerEntry(
            request_id=self.request_id,
            model_id=self.model_id,
            digest_before=self.expected_digest,
            successor_id=self.successor.id,
            digest_after=self.successor.digest,
            result=self.result,
            request_digest=self.request_digest,
            forgotten=self.forgotten,
        )


@dataclass(frozen=True, slots=True)
class Destruction:
    """Tombstone of a version with destroyed weights and Fisher summary.

    Attributes:
        request_id: the request that superseded it.
        model_id: the version.
        digest: its former `weights_digest`.
        held_by: another version that kept the same weights; `""` for none.
        request_digest: SHA-256 of the request's content; `""` if unknown.
    """

    request_id: str
    model_id: str
    digest: str
    held_by: str
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class RollBack:
    """Roll-back of a request in a version, which must not be applied to it again.

    Attributes:
        request_id: the request.
        model_id: the version that is current again.
        digest: its `weights_digest`.
        retired_id: the retired successor; `""` if the request was not applied.
        request_digest: SHA-256 of the request's content; `""` if unknown.
    """

    request_id: str
    model_id: str
    digest: str
    retired_id: str
    request_digest: str = ""
