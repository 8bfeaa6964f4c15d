"""The problem of a root, from its owner's store and data."""

from collections.abc import Sequence

from disinherit.client.dampening.known_heads import find_structure
from disinherit.client.owner.owner import Batches, Owner, load_network
from disinherit.client.privacy.remaining import split_training_data, training_data
from disinherit.client.roots.root_method import RootProblem
from disinherit.common.errors import ScopeError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.method import Method
from disinherit.common.models.scope import resolve_scope
from disinherit.common.models.scope_text import is_head_scope


def root_problem(
    owner: Owner,
    record: ModelRecord,
    method: Method,
    request_id: str,
    samples: Sequence[str] | None,
) -> RootProblem:
    """Return the problem of a root.

    Samples to forget of a model whose training data is gone cannot be told by their ids, so they
    are `None` as the data is.

    Args:
        owner: the owner of the root.
        record: its version.
        method: how to unlearn.
        request_id: seed of random choices.
        samples: ids of the samples to forget; `None` for all of its direct training data.

    Raises:
        DataError: if the owner has no sample ids, or cannot provide the samples.
        ScopeError: if the model has nothing in scope.
        CheckpointError: if the stored weights are missing, damaged or do not fit the network.
    """
    weights = owner.store.weights(record.id)
    network = load_network(owner, record, weights)
    head = None
    if is_head_scope(method.scope):
        structure = find_structure(owner, record, network)
        head = structure.head
        if head is None:
            raise ScopeError(structure.reason)
    names = resolve_scope(network, method.scope, head)
    forget: Batches | None
    retain: Batches | None
    forget, retain = training_data(owner, record), None
    if samples is not None and owner.training_data(record) is not None:
        forget, retain = split_training_data(owner, record, samples)
    return RootProblem(owner, record, weights, names, forget, retain, samples, method, request_id)
