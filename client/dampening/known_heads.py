"""Discovery of the head of an owner's model.

Forward passes find the head once, at registration; the data may be gone later.
"""

from collections.abc import Iterable, Mapping
from itertools import chain

from torch import Tensor, nn

from disinherit.client.owner.owner import Owner, load_network, outline_network
from disinherit.client.store.structure import Structure, tied_names
from disinherit.common.errors import LabelError, ScopeError
from disinherit.common.graph.labels import has_classes
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.heads import find_head
from disinherit.common.models.inputs import Inputs, first_inputs
from disinherit.common.tensors.stored import kinds_of


def find_structure(owner: Owner, record: ModelRecord, network: nn.Module) -> Structure:
    """Return the stored structure of a model, else find it with a few samples of its owner.

    Args:
        owner: the owner of the model.
        record: the model.
        network: its module with its weights.

    Raises:
        LabelError: if the head has more or fewer rows than the model has labels.
        FisherError: if its data is not pairs of inputs and targets, or it returns no logits.
    """
    kept = owner.store.structure(record.id)
    if kept is not None and kept.ties == tied_names(network):
        return kept
    batches = any_data(owner, record)
    if batches is None:
        return Structure(
            None,
            f"Expected some data of model {record.id!r}, to find the layers of its logits, but got "
            "none, and it was not registered with data before. Give another scope.",
            tied_names(network),
            seen=False,
        )
    inputs, _ = first_inputs(batches)
    return seen_structure(record, network, inputs)


def outlined_network(
    owner: Owner, record: ModelRecord, weights: Mapping[str, Tensor]
) -> tuple[nn.Module, bool]:
    """Return a model's module for questions of structure, with its weights only if one needs them.

    Args:
        owner: the owner of the model.
        record: the model.
        weights: its weights; none is read unless its structure is still to be found.

    Returns:
        The module, and whether it has the weights.

    Raises:
        CheckpointError: if the owner's network has other names or shapes.
    """
    network, kept = outline_network(owner, record), owner.store.structure(record.id)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    fits = shapes == {name: tuple(shape) for name, (_, shape) in kinds_of(weights).items()}
    known = kept is not None and kept.ties == tied_names(network)
    if fits and (known or any_data(owner, record) is None):
        return network, False
    del network  # before there is another one
    return load_network(owner, record, weights), True


def seen_structure(record: ModelRecord, network: nn.Module, inputs: Inputs) -> Structure:
    """Return the structure of a model, found with a few samples.

    Args:
        record: the model.
        network: its module with its weights.
        inputs: the inputs of the samples.

    Raises:
        LabelError: if the head has more or fewer rows than the model has labels.
        FisherError: if the module returns no logits of them.
    """
    ties = tied_names(network)
    if not has_classes(record.labels):
        return Structure(
            None,
            f"Expected another scope than the head for {record.id!r}, which is a language model "
            "and has no classes, such as 'all'.",
            ties,
        )
    try:
        head = find_head(network, inputs)
    except ScopeError as error:
        return Structure(None, str(error), ties)
    rows = len(network.get_parameter(head.layers[0].weight))
    if rows != len(record.labels):
        raise LabelError(
            f"Expected a label for each of the {rows} rows of the head ({head}) of model "
            f"{record.id!r}, but got {len(record.labels)} labels. Add the model again under a new "
            "id, with as many labels."
        )
    return Structure(head, "", ties)


def any_data(owner: Owner, record: ModelRecord) -> Iterable[object] | None:
    """Return batches with at least one sample of a model, if its owner has any.

    Args:
        owner: the owner of the model.
        record: the model.
    """
    for find in (owner.training_data, owner.tuning_data, owner.evaluation_data):
        batches = find(record)
        if batches is not None:
            iterator = iter(batches)
            first = next((item for item in iterator if not _is_empty(item)), None)
            if first is not None:
                return chain([first], iterator)
    return None


def _is_empty(item: object) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and not len(item[1])
