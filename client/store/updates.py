"""Snapshots of versions before a task, and their updates by it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from disinherit.client.store.ledger import Forgotten, LedgerEntry
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.graph.records import ModelRecord
from disinherit.common.tensors.identity import Manifest


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A version without unlearning, with its parameters in scope.

    Attributes:
        record: the version.
        base: digest of the full object behind its weights.
        tensors: parameter in scope -> value.
        carried: other tensors that differ from `base`.
        manifest: manifest of all its weights.
        fishers: its Fisher summary.
        fisher_scope: scope of the summary.
        fisher_base: digest of the full object behind its Fisher summary.
        cleared: classes of `fisher_base` that are cleared in its Fisher summary.
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
        """Return it without the Fisher sums, which are much larger than the parameters."""
        return replace(self, fishers=ClassFishers({}, self.fishers.counts))


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """A change of one version for `ModelStore.apply_changes`: a `Commit` as differences.

    Attributes:
        request_id: the request.
        origin: the version that was dampened.
        successor: its successor, with the digest of its Fisher summary.
        changed: tensors of the successor that differ from the origin's base.
        cleared: classes of the origin's `fisher_base` that are cleared in its Fisher summary.
        result: the serialised reply.
        request_digest: SHA-256 of the request's content; `""` if unknown.
        forgotten: classes and samples that the successor has forgotten.
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
        """The ledger entry of the change."""
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
