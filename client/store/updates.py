"""Changes of many models by one task: what they share, and what becomes different."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from disinherit.client.store.ledger import Forgotten, LedgerEntry
from disinherit.common.fisher.diagonal import ClassFishers
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.checkpoints import Manifest


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A version in which nothing was unlearned yet; of its weights only some are read.

    Attributes:
        record: the version.
        base: digest of the object, written out, that its weights are like.
        tensors: its parameters in scope, by name.
        carried: other tensors in which it differs from `base`.
        manifest: of all its weights.
        fishers: its Fisher summary.
        fisher_scope: the scope of that.
        fisher_base: digest of the object, written out, that its Fisher summary is like.
        cleared: classes that `fisher_base` has and its Fisher summary has not.
    """

    record: ModelRecord
    base: str
    tensors: Mapping[str, Tensor]
    carried: Mapping[str, Tensor]
    manifest: Manifest
    fishers: ClassFishers
    fisher_scope: str
    fisher_base: str
    cleared: tuple[int, ...]

    def without_fishers(self) -> Self:
        """Return the same without the Fisher sums, which are much larger than the parameters."""
        return replace(self, fishers=ClassFishers({}, self.fishers.counts))


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What `ModelStore.apply_changes` is to record of one version: a `Commit` in brief.

    Attributes:
        request_id: the request it was done for.
        origin: the version that was dampened.
        successor: the version made of it, with the digest of its Fisher summary.
        changed: the tensors in which its weights differ from the origin's base.
        cleared: classes that the origin's `fisher_base` has and its Fisher summary has not.
        result: the serialised reply.
        request_digest: SHA-256 of what the request asks for; `""` if nobody said.
        forgotten: what the successor has forgotten by it.
    """

    request_id: str
    origin: Snapshot
    successor: ModelRecord
    changed: Mapping[str, Tensor]
    cleared: tuple[int, ...]
    result: bytes
    request_digest: str = ""
    forgotten: Forgotten = field(default_factory=Forgotten)

    @property
    def entry(self) -> LedgerEntry:
        """The entry in the ledger."""
        return LedgerEntry(
            request_id=self.request_id,
            model_id=self.origin.record.id,
            digest_before=self.origin.record.digest,
            successor_id=self.successor.id,
            digest_after=self.successor.digest,
            result=self.result,
            request_digest=self.request_digest,
            forgotten=self.forgotten,
        )
