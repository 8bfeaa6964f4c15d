"""What tells a change of a root from others."""

import hashlib

from disinherit.common.deltas.alternatives import by_digests
from disinherit.common.tensors.checkpoints import tensor_bytes


def test_changes_without_values_are_not_told_by_their_tensors() -> None:
    withheld = hashlib.sha256(tensor_bytes({})).hexdigest()
    assert [*by_digests(withheld, "", "")] == []
    assert [*by_digests(withheld, "a", "b")] == ["a:b"]
    assert [*by_digests("c" * 64, "a", "b")] == [f"tensors:{'c' * 64}", "a:b"]
