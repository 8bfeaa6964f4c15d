"""From a module to its record in the inheritance graph."""

from collections.abc import Iterable

from torch import nn

from disinherit.common.checkpoints import weights_digest
from disinherit.common.records import ModelRecord, Provenance
from disinherit.common.scope import architecture_fingerprint


def describe_model(
    id: str,
    model: nn.Module,
    *,
    owner: str,
    labels: Iterable[str],
    created_us: int,
    provenance: Provenance | None = None,
) -> ModelRecord:
    """Return the record of a model version.

    Args:
        id: of the version.
        model: the module; its weights are hashed.
        owner: who holds it.
        labels: class names in the order of the head's rows.
        created_us: creation time in microseconds; later than that of its parents.
        provenance: what it was trained on directly.

    Raises:
        GraphError: if a value is malformed.

    Example:
        >>> describe_model("m", nn.Linear(2, 2), owner="me", labels=["a", "b"], created_us=1).owner
        'me'
    """
    weights = model.state_dict()
    return ModelRecord(
        id=id,
        owner=owner,
        architecture=architecture_fingerprint(weights),
        labels=tuple(labels),
        digest=weights_digest(weights),
        created_us=created_us,
        provenance=provenance,
    )
