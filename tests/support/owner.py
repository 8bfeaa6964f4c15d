"""Small real owners: a two-layer network on separable points, with a real store in a folder.

For tests of the client's handlers, and of the coordinator with owners of flesh and blood::

    with PointsOwner(tmp_path / "anna", "anna") as owner:
        owner.train("m", classes=("cat", "dog"), created_us=1)
        owner.train("n", classes=("cat",), created_us=2, start=[owner.store.weights("m")])

Everything follows from names and seeds, so an owner opened again has the same data.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from disinherit.client.owner.owner import Batches, Owner
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DataError
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.samples import SampleDigests, digest_samples
from disinherit.direct import DirectTransport
from disinherit.v1 import unlearning_pb2 as pb

LABELS = ("cat", "dog", "owl", "yak")
FEATURES = 5
HIDDEN = 12
SAMPLES: Mapping[str, int] = {"train": 24, "tuning": 12, "evaluation": 16}
"""Samples per class of each split."""

AXIS = {"cat": 0, "kitten": 0, "dog": 1, "owl": 2, "yak": 3}
"""Class name -> the axis its points lie on; two names of one axis mean the same things."""

DataSet = Literal["train", "tuning", "evaluation"]


def make_network(classes: int = len(LABELS), seed: int = 0) -> nn.Sequential:
    """Linear-ReLU-Linear in float64; the head is module `2`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed reads each file of the stack
        network = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes))
    return network.double()


def make_points(
    owner: str, split: DataSet, labels: Sequence[str], classes: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Points `[n, FEATURES]` of `classes`, and their indices in `labels` `[n]`."""
    inputs, targets = [], []
    for name in (name for name in labels if name in classes):
        seed = zlib.crc32(f"{owner}/{split}/{AXIS[name]}".encode())
        noise = torch.randn(
            SAMPLES[split],
            FEATURES,
            generator=torch.Generator().manual_seed(seed),
            dtype=torch.float64,
        )
        centre = torch.zeros(FEATURES, dtype=torch.float64)
        centre[AXIS[name]] = 3.0
        inputs.append(centre + 0.5 * noise)
        targets.append(torch.full((SAMPLES[split],), labels.index(name)))
    return torch.cat(inputs), torch.cat(targets)


class PointsOwner:
    """An `Owner` (see `disinherit.client.owner.owner`) that can train as well.

    Args:
        root: folder of its store.
        name: of the owner; its data follows from it.
        tuning: whether it keeps a tuning split.
        keeps_data: whether the training data is still there.
        evaluates: whether it keeps an evaluation split.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        *,
        tuning: bool = True,
        keeps_data: bool = True,
        evaluates: bool = True,
    ) -> None:
        self.name = name
        self.tuning = tuning
        self.keeps_data = keeps_data
        self.evaluates = evaluates
        self.device = torch.device("cpu")
        self.store = ModelStore(root, name)

    def __enter__(self) -> "PointsOwner":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def network(self, record: ModelRecord) -> nn.Module:
        return make_network(len(record.labels))

    def points(
        self, split: DataSet, labels: Sequence[str], classes: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """The owner's `make_points`."""
        return make_points(self.name, split, labels, classes)

    def training_data(self, record: ModelRecord) -> Batches | None:
        classes = trained_on(record)
        if not self.keeps_data or not classes:
            return None
        return [self.points("train", record.labels, classes)]

    def sample_ids(self, record: ModelRecord) -> list[str]:
        """Samples are called by class and number, as in `cat-3`."""
        classes = [name for name in record.labels if name in trained_on(record)]
        return [f"{name}-{i}" for name in classes for i in range(SAMPLES["train"])]

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        if not self.keeps_data:
            raise DataError(f"Expected {samples[0]} to be there, but it was erased.")
        classes = trained_on(record)
        inputs, targets = self.points("train", record.labels, classes)
        chosen = torch.tensor([sample in samples for sample in self.sample_ids(record)])
        return [(inputs[chosen], targets[chosen])], [(inputs[~chosen], targets[~chosen])]

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        if not self.tuning or not trained_on(record):
            return None
        return [make_points(self.name, "tuning", record.labels, trained_on(record))]

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        if not self.evaluates:
            return None
        return [make_points(self.name, "evaluation", record.labels, record.labels)]

    def lose_data(self) -> None:
        """Have no data at all from now on: nothing to tune, measure or compute a summary with."""
        self.tuning = self.keeps_data = self.evaluates = False

    def train(
        self,
        model_id: str,
        classes: Sequence[str],
        created_us: int,
        start: Sequence[Mapping[str, Tensor]] = (),
        labels: Sequence[str] = LABELS,
        steps: int = 60,
    ) -> ModelRecord:
        """Train a model on the owner's points of `classes` and add it to the store.

        Args:
            model_id: of the new model.
            classes: what it is trained on directly.
            created_us: creation time.
            start: weights whose plain average training starts from; none: one common start.
            labels: its label space.
            steps: of gradient descent on all points at once.
        """
        network = make_network(len(labels))
        if start:
            network.load_state_dict(average(start))
        fit(network, [self.points("train", labels, classes)], steps)
        weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        counts = {name: SAMPLES["train"] for name in labels if name in classes}
        return self.store.add(
            ModelRecord(
                id=model_id,
                owner=self.name,
                architecture=architecture_fingerprint(weights),
                labels=tuple(labels),
                digest=weights_digest(weights),
                created_us=created_us,
                provenance=Provenance("points", counts),
            ),
            weights,
        )


def trained_on(record: ModelRecord) -> tuple[str, ...]:
    """The classes a model was trained on directly."""
    if record.provenance is None:
        return ()
    return tuple(name for name, count in record.provenance.samples_per_class.items() if count)


def average(start: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the plain average of weights."""
    return {name: torch.stack([weights[name] for weights in start]).mean(0) for name in start[0]}


def fit(network: nn.Module, batches: Batches, steps: int = 60) -> None:
    """Train a network on one batch of points, in place."""
    ((inputs, targets),) = batches
    assert isinstance(inputs, Tensor)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()


SALT = "5a" * 16


def named(root: Path, samples: Sequence[str], salt: str = SALT) -> SampleDigests:
    """Samples as a request names them, with the key of the owner whose store is in `root`."""
    return digest_samples(sample_key(root), salt, samples)


def samples_root(model: str, root: Path, samples: Sequence[str], salt: str = SALT) -> pb.Root:
    """A root of samples, of an owner whose store is in `root`."""
    found = named(root, samples, salt)
    return pb.Root(model_id=model, samples=found.digests, sample_salt=found.salt)


def openers(
    root: Path, names: Sequence[str], *, tuning: bool = True, kind: type[PointsOwner] = PointsOwner
) -> dict[str, Callable[[], AbstractContextManager[Owner]]]:
    """Owner name -> how to open it, as `DirectTransport` wants it."""
    return {name: partial(kind, root / name, name, tuning=tuning) for name in names}


def direct_transport(
    root: Path, names: Sequence[str], *, tuning: bool = True, kind: type[PointsOwner] = PointsOwner
) -> DirectTransport:
    """A transport to owners whose stores lie in `root`."""
    return DirectTransport(openers(root, names, tuning=tuning, kind=kind))
