"""Entries of the ledger of unlearning.

Dampening twice is not dampening once.  So there is at most one entry per version: a message that
comes again finds its own, and another request has to be applied to the successor.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from torch import Tensor

from disinherit.common.fisher.diagonal import ClassFishers
from disinherit.common.graph.records import ModelRecord
from disinherit.v1 import unlearning_pb2 as pb


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a request made a version forget.

    Attributes:
        classes: names of classes, as the version calls them.
        samples: digests of samples.
        salt: of these digests.
    """

    classes: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    salt: str = ""

    def to_text(self) -> str:
        """Return it as the ledger keeps it."""
        return json.dumps([self.classes, self.samples, self.salt])

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Return what the ledger keeps; `None` where an older Disinherit did not say.

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
    """One version that was unlearned in.

    Attributes:
        request_id: the request it was done for.
        model_id: the version that was dampened.
        digest_before: its `weights_digest`.
        successor_id: the version made of it.
        digest_after: `weights_digest` of that.
        result: the serialised reply, to be sent again when the message comes again.
        request_digest: SHA-256 of what the request asked for; `""` where it is not known.
        forgotten: what the successor has forgotten by it; `None` where it is not known.
    """

    request_id: str
    model_id: str
    digest_before: str
    successor_id: str
    digest_after: str
    result: bytes
    request_digest: str = ""
    forgotten: Forgotten | None = None

    @property
    def outcome(self) -> pb.Outcome.ValueType:
        """What the owner reported that it came to."""
        return pb.ModelResult.FromString(self.result).outcome

    def answers(self, request_id: str, digest: str) -> bool:
        """Whether this is what a request did to a version with this digest."""
        return (self.request_id, self.digest_before) == (request_id, digest)


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
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
        request_digest: SHA-256 of what the request asks for; `""` if nobody said.
        forgotten: what the successor has forgotten by it.
    """

    request_id: str
    model_id: str
    expected_digest: str
    successor: ModelRecord
    weights: Mapping[str, Tensor]
    result: bytes
    fishers: ClassFishers | None = None
    fisher_scope: str = ""
    request_digest: str = ""
    forgotten: Forgotten = field(default_factory=Forgotten)

    @property
    def entry(self) -> LedgerEntry:
        """The entry in the ledger."""
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
    """The tombstone of a version whose weights and Fisher summary are gone.

    Attributes:
        request_id: the request that superseded it.
        model_id: the version.
        digest: the `weights_digest` it had.
        held_by: another version that had the very same weights then, and kept them; `""` for none.
        request_digest: SHA-256 of what the request asked for; `""` where it is not known.
    """

    request_id: str
    model_id: str
    digest: str
    held_by: str
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class RollBack:
    """One request that is undone in a version, and is never to be applied to it again.

    Attributes:
        request_id: the request.
        model_id: the version that is current again.
        digest: its `weights_digest`.
        retired_id: the version that the request had made of it; `""` if it was not applied yet.
        request_digest: SHA-256 of what the request asked for; `""` where it is not known.
    """

    request_id: str
    model_id: str
    digest: str
    retired_id: str
    request_digest: str = ""
