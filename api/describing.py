"""Description of a module as a record of the inheritance graph."""

import time
from collections.abc import Iterable

from torch import nn

from disinherit.common.errors import LabelError
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.models.heads import check_labels, count_logits
from disinherit.common.models.inputs import Inputs
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest


def describe_model(
    id: str,
    model: nn.Module,
    *,
    owner: str,
    labels: Iterable[str],
    created_us: int | None = None,
    provenance: Provenance | None = None,
    inputs: Inputs | None = None,
) -> ModelRecord:
    """Return the record of a model version.

    Args:
        id: of the version.
        model: the module; its weights are hashed.
        owner: who holds it.
        labels: class names in the order of the head's rows.
        created_us: creation time in microseconds, later than that of its parents; now by default.
        provenance: what it was trained on directly.
        inputs: a few samples, to see by a forward pass that there is a label for each logit.
            Without, only labels that fit no tensor of the model are refused.

    Raises:
        GraphError: if a value is malformed.
        LabelError: if there are more or fewer labels than logits.
        FisherError: if the model does not return logits of the inputs.

    Example:
        >>> describe_model("m", nn.Linear(2, 2), owner="me", labels=["a", "b"]).owner
        'me'
    """
    weights = model.state_dict()
    labels = tuple(labels)
    if inputs is not None:
        count = count_logits(model, inputs)
        if count != len(labels):
            raise LabelError(
                f"Expected a label for each of the {count} logits of model {id!r}, but got "
                f"{len(labels)}: {', '.join(labels)}."
            )
    else:
        check_labels(labels, weights, id)
    return ModelRecord(
        id=id,
        owner=owner,
        architecture=architecture_fingerprint(weights),
        labels=labels,
        digest=weights_digest(weights),
        created_us=time.time_ns() // 1000 if created_us is None else created_us,
        provenance=provenance,
    )
