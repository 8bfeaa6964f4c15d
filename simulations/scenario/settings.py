"""Settings of a simulated run: the same settings give the same run."""

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from disinherit.common.errors import InputError, RequestError
from disinherit.common.method import Method
from disinherit.common.wire.requests import Request
from disinherit.simulations.data.backdoors import Backdoor
from disinherit.simulations.data.datasets import Dataset
from disinherit.simulations.data.partitions import NATURAL, PARTITION_KINDS
from disinherit.simulations.networks.networks import NetworkSpec, check_network
from disinherit.simulations.scenario.label_spaces import label_spaces
from disinherit.simulations.scenario.scenarios import (
    FEDERATED,
    topology_from_dict,
    topology_to_dict,
)
from disinherit.simulations.scenario.topology import Topology


@dataclass(frozen=True, slots=True)
class Settings:
    """A simulated run.

    Attributes:
        dataset: name or path of the data set.
        forget: root model -> names of its classes to forget there.
        scenario: who is derived from whom, and who holds which classes.
        network: name of the network.
        clients: number of owners.
        partition: how the training data is shared out among owners.
        concentration: of the Dirichlet partition.
        classes_per_client: of the pathological partition.
        epochs: of each model's training.
        learning_rate: of Adam.
        patience: epochs without a lower loss on the owner's tuning samples after which a training
            ends, with the weights of the lowest; `None` to train all epochs.
        batch_size: of training, Fisher and evaluation.
        limit: training samples per class at most; `None` for all.
        seed: of everything random.
        device: where owners compute.
        method: how to unlearn.
        compare_published: whether the plain published rule is evaluated beside it.
        backdoor: planted in an owner's training data, if any.

    Raises:
        InputError: if a value is out of range or a name is unknown.
    """

    dataset: str
    forget: Mapping[str, tuple[str, ...]]
    scenario: Topology = FEDERATED
    network: str = "cnn"
    clients: int = 5
    partition: str = "iid"
    concentration: float = 0.5
    classes_per_client: int = 2
    epochs: int = 4
    learning_rate: float = 1e-3
    batch_size: int = 64
    limit: int | None = None
    seed: int = 0
    device: str = "auto"
    method: Method = field(default_factory=Method)
    compare_published: bool = False
    backdoor: Backdoor | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("clients", 1),
            ("epochs", 1),
            ("batch_size", 1),
            ("classes_per_client", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"Expected {name} >= {least}, but got {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"Expected a learning rate > 0, but got {self.learning_rate:g}.")
        if not 0 < self.concentration < math.inf:
            raise InputError(f"Expected a concentration > 0, but got {self.concentration:g}.")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"Expected a patience of 1 epoch or more, but got {self.patience}.")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"Expected limit >= 1 sample per class, but got {self.limit}.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"Expected a seed from 0 to 2^63 - 1, but got {self.seed}.")
        check_network(self.network)
        if self.partition not in (*PARTITION_KINDS, NATURAL):
            known = ", ".join((*PARTITION_KINDS, NATURAL))
            raise InputError(f"Expected a partition among {known}, but got {self.partition!r}.")
        if self.backdoor is not None and not 0 <= self.backdoor.owner < self.clients:
            raise InputError(
                f"Expected the owner of the backdoor from 0 to {self.clients - 1}, but got "
                f"{self.backdoor.owner}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.patience is None:  # so that digests of stored runs stay what they were
            del values["patience"]
        return {
            **values,
            "forget": {root: list(names) for root, names in self.forget.items()},
            "scenario": topology_to_dict(self.scenario),
            "method": _method_to_dict(self.method),
            "backdoor": None if self.backdoor is None else dataclasses.asdict(self.backdoor),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings that `to_dict` gave.

        Raises:
            InputError: if the values are not such settings.
        """
        try:
            return cls(
                **{
                    **values,
                    "forget": {root: tuple(names) for root, names in values["forget"].items()},
                    "scenario": topology_from_dict(values["scenario"]),
                    "method": _method_from_dict(values["method"]),
                    "backdoor": None
                    if values["backdoor"] is None
                    else Backdoor(**values["backdoor"]),
                }
            )
        except (TypeError, KeyError, AttributeError, InputError) as error:
            found = str(error).removesuffix(".")
            raise InputError(f"Expected the settings of a run, but: {found}.") from None

    @property
    def digest(self) -> str:
        """SHA-256 of the settings."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def network_spec(self, dataset: Dataset, classes: int | None = None) -> NetworkSpec:
        """Return the network's spec for the data set, with a row per class unless given."""
        return NetworkSpec.for_dataset(self.network, dataset, classes)

    def request(self) -> Request:
        """Return the unlearning request of this run; the same settings give the same request."""
        listed = "; ".join(f"{', '.join(names)} at {root}" for root, names in self.forget.items())
        return Request(
            id=f"forget-{self.digest[:12]}",
            reason=f"forget {listed}",
            forget=self.forget,
            method=self.method,
        )


_ABOUT_CHANGES = ("mechanism", "root_method", "delta_encoding", "delta_rank", "calibration_rounds")


def _method_to_dict(method: Method) -> dict[str, Any]:
    """Return a method as JSON values.

    Values about changes of roots are left out while they have their defaults: names of stored cases
    and ids of requests follow from the others, and are those of before there were any.
    """
    values, plain = dataclasses.asdict(method), dataclasses.asdict(Method())
    for name in _ABOUT_CHANGES:
        if values[name] == plain[name]:
            del values[name]
    if "mechanism" not in values and method.repair_steps is None:
        values["repair_steps"] = 0
    return values


def _method_from_dict(values: Mapping[str, Any]) -> Method:
    if "mechanism" not in values and values.get("repair_steps") == 0:
        values = {**values, "repair_steps": None}
    return Method(**values)


def parse_forget(
    tokens: Sequence[str], dataset: Dataset, topology: Topology
) -> dict[str, tuple[str, ...]]:
    """Read what to forget where: `3`, `Sneaker`, or `3@r2` for a root other than the next default.

    Args:
        tokens: one class each, by name or index, with an optional root.
        dataset: knows the class names.
        topology: knows the models.

    Returns:
        Root -> names of its classes.

    Raises:
        RequestError: if there is nothing to forget, nothing would be left, a class is named twice,
            or a root does not exist.
        DataError: if a class does not exist.
    """
    forget: dict[str, list[str]] = {}
    spaces = label_spaces(topology, dataset)
    turn = itertools.cycle(topology.roots)
    for token in tokens:
        name, at, root = token.rpartition("@")
        if not at or root not in topology.ids:
            if at and token not in dataset.classes:
                raise RequestError(
                    f"Expected a root among {', '.join(topology.ids)} after '@', but got {root!r}."
                )
            name, root = token, next(turn)
        if name not in topology.aliases:
            name = dataset.class_name(name)
        label = spaces.label_of(root, spaces.class_of(name))
        forget.setdefault(root, []).append(name if label is None else label)
    parsed = {root: tuple(names) for root, names in forget.items()}
    check_forget(parsed, dataset, topology)
    return parsed


def check_forget(forget: Mapping[str, Sequence[str]], dataset: Dataset, topology: Topology) -> None:
    """Check what to forget where against the classes and the models there are.

    Args:
        forget: root -> names of its classes.
        dataset: knows the class names.
        topology: knows the models.

    Raises:
        RequestError: if there is nothing to forget, nothing would be left, a class is named twice,
            or a root or class does not exist.
        DataError: if the topology's choices of classes do not fit the data set.
    """
    spaces = label_spaces(topology, dataset)
    named: set[str] = set()
    for root, names in forget.items():
        if root not in topology.ids:
            raise RequestError(
                f"Expected a root among {', '.join(topology.ids)}, but got {root!r}."
            )
        if not names:
            raise RequestError(f"Expected classes to forget at root {root!r}, but got none.")
        learned = [x for x in spaces.labels[root] if spaces.class_of(x) in spaces.held[root]]
        for name in names:
            if name not in learned:
                raise RequestError(
                    f"Expected a class among {', '.join(learned)}, which {root!r} is trained on, "
                    f"but got {name!r}."
                )
            if spaces.class_of(name) in named:
                raise RequestError(f"Expected every class to forget once, but got {name!r} twice.")
            named.add(spaces.class_of(name))
    if not named:
        raise RequestError(
            "Expected at least one class to forget, but got none. Say which, e.g. --forget 3."
        )
    if len(dataset.classes) - len(named) < 2:
        raise RequestError(
            f"Expected at least two of the {len(dataset.classes)} classes of {dataset.name!r} to "
            f"remain, but {len(named)} are to be forgotten."
        )
    for model, held in spaces.held.items():
        if named.issuperset(held):
            raise RequestError(
                f"Expected something to be left to train model {model!r} on, but all of its "
                f"{', '.join(held)} is to be forgotten."
            )


OWNER_THREADS = 1
"""Threads an owner computes with: more would split sums in other ways on another machine, and the
same settings would no longer give the same digests."""
