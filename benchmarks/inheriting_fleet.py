"""A root with its training data and its descendants, each unlearned by several ways."""

import shutil
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch
import torch
from head_fisher import published
from many_models import ALPHA, LABELS, LAM, PlainOwner
from measuring import Figures, copy_rate, peak_bytes, side_by_side
from torch import Tensor, nn

from disinherit.client.actions.delta import root_deltas
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.owner.owner import Batches
from disinherit.client.privacy.sample_keys import sample_key
from disinherit.client.store.structure import Structure
from disinherit.common.fiun.dampening import dampen
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.method import DeltaCode, Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.samples import digest_samples
from disinherit.simulations.networks.networks import Classifier, NetworkSpec
from disinherit.v1 import unlearning_pb2 as pb

EPOCHS, BATCH = 4, 32
FORGOTTEN = [str(number) for number in range(16)]
REQUEST = "f" * 64
CODES: Mapping[str, tuple[DeltaCode, int]] = {
    "full": ("full", 0),
    "bfloat16": ("bfloat16", 0),
    "int8": ("int8", 0),
    "rank 16": ("full", 16),
    "int8, rank 16": ("int8", 16),
}


class TrainingOwner(PlainOwner):
    """The owner of the root: it has its data, and trains it again.

    Args:
        root: folder of its store, which is called like it.
        spec: what the root is.
        data: inputs and classes of the samples that it was trained on.
    """

    def __init__(self, root: Path, spec: NetworkSpec, data: tuple[Tensor, Tensor]) -> None:
        super().__init__(root, spec.build(0))
        self._spec = spec
        self._data = data

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return all samples."""
        return self._batches(torch.ones(len(self._data[1]), dtype=torch.bool))

    def sample_ids(self, record: ModelRecord) -> list[str]:
        """Return their numbers."""
        return [str(number) for number in range(len(self._data[1]))]

    def split_training_data(
        self, record: ModelRecord, samples: Sequence[str]
    ) -> tuple[Batches, Batches]:
        """Return some samples, and all others."""
        chosen = torch.zeros(len(self._data[1]), dtype=torch.bool)
        chosen[[int(sample) for sample in samples]] = True
        return self._batches(chosen), self._batches(~chosen)

    def can_retrain(self, record: ModelRecord) -> bool:
        """Return that it can."""
        return True

    def retrain(self, record: ModelRecord, without: Collection[str] | None) -> dict[str, Tensor]:
        """Train the network from its beginning, without some samples."""
        network = self._spec.build(0)
        if without is not None:
            _, kept = self.split_training_data(record, list(without))
            fit(network, kept)
        return {name: value.detach() for name, value in network.state_dict().items()}

    def _batches(self, chosen: Tensor) -> Batches:
        inputs, targets = (value[chosen].split(BATCH) for value in self._data)
        return list(zip(inputs, targets, strict=True))


def fit(network: nn.Module, batches: Batches) -> None:
    """Train a network."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(EPOCHS):
        for inputs, targets in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()


class Fleet:
    """A root in the store of one owner, and its descendants in that of another.

    Args:
        folder: a folder to make.
        spec: what all models are.
        samples: training samples of each.
        counts: numbers of descendants to measure.
    """

    def __init__(
        self, folder: Path, spec: NetworkSpec, samples: int, counts: Sequence[int]
    ) -> None:
        folder.mkdir()
        self._folder, self._spec, self._counts = folder, spec, counts
        data = torch.rand(samples, *spec.input_shape), torch.randint(len(LABELS), (samples,))
        self._data = data
        with mock.patch("os.fsync"):  # making the models is not what is measured
            anna = self._anna()
            untrained = self._record("anna", "root", spec.build(0).state_dict())
            self.weights = anna.retrain(untrained, [])
            self._root = self._add(anna, "root", self.weights)
            ben = self._ben()
            self._children = []
            for number in range(counts[-1]):
                weights = {n: v + 0.01 * torch.randn(v.shape) for n, v in self.weights.items()}
                self._children.append(self._add(ben, f"child-{number}", weights))
            named = digest_samples(sample_key(anna.store.root), "0" * 32, FORGOTTEN)
            anna.store.close()
            ben.store.close()
        self._asked = pb.Root(model_id="root", samples=named.digests, sample_salt=named.salt)
        for name in ("anna", "ben"):
            shutil.copy(folder / name / "index.db", folder / f"{name}.db")
        self.parameters = sum(value.numel() for value in self.weights.values())

    def measure(self, repeats: int) -> list[Figures]:
        """Return a row for each number of descendants, and one about a descendant and packets.

        Memory is left out.
        """
        most = self._counts[-1]
        runs: dict[str, Callable[[], Any]] = {
            f"change {count}": partial(self.by_change, count) for count in self._counts
        }
        times = side_by_side(
            {
                **runs,
                "replay": self.replay,
                "published": self.published,
                "root": self.question,
                "hash": lambda: weights_digest(self.weights),
            },
            repeats,
        )
        packet = self.question()
        seconds, read, written = self.one(packet, most, repeats)
        rows = []
        for count in self._counts:
            change = times[f"change {count}"]
            models = count + 1
            rows.append(
                {
                    "descendants": count,
                    "root alone": times["root"].seconds,
                    "change": change.seconds,
                    "replay": models * times["replay"].seconds,
                    "published": models * times["published"].seconds,
                    "replay / change": models * times["replay"].over(change),
                    "published / change": models * times["published"].over(change),
                }
            )
        size = sum(value.nbytes for value in self.weights.values())
        bound = 3 * size / copy_rate()
        rows.append(
            {
                "one": 1000 * seconds,
                "bound": 1000 * bound,
                "hash": 1000 * times["hash"].seconds,
                "one / bound": seconds / bound,
                "read / weights": read / size,
                "written / weights": written / size,
                **{
                    name: self.question(*code, fresh=False).ByteSize() / 1000
                    for name, code in CODES.items()
                },
            }
        )
        return rows

    def by_change(self, count: int) -> None:
        """Unlearn the root by replay, and so many descendants by its change."""
        packet = self.question()
        anna = self._anna()
        self._unlearn(anna, packet, [self._root], own=True)
        self.apply(packet, count)

    def question(
        self, encoding: DeltaCode = "full", rank: int = 0, *, fresh: bool = True
    ) -> pb.FisherPacket:
        """Return what the root's owner answers; the root is replayed for it if it is asked first.

        Args:
            encoding: of the change.
            rank: of matrices; 0 for full.
            fresh: whether to begin anew.
        """
        if fresh:
            self._begin_anew("anna")
        anna = self._anna()
        task = pb.FisherTask(
            request_id="q",
            request_digest=REQUEST,
            method=_method(encoding, rank).to_proto(),
            roots=[self._asked],
        )
        (answer,) = root_deltas(anna, task).roots
        anna.store.close()
        if answer.error:
            raise RuntimeError(f"Expected the change of the root, but: {answer.error}")
        (packet,) = answer.packets
        return packet

    def apply(self, packet: pb.FisherPacket, count: int) -> None:
        """Add the change to the first descendants, as if it had not been done before."""
        self._begin_anew("ben")
        self._unlearn(self._ben(), packet, self._children[:count], own=False)

    def one(self, packet: pb.FisherPacket, count: int, repeats: int) -> tuple[float, float, float]:
        """Return the CPU seconds of one descendant among many, and bytes read and written."""
        taken = []
        for _ in range(repeats + 1):
            self._begin_anew("ben")
            self._ben().store.close()  # removes the successors of the last time
            before = file_bytes()
            started = time.process_time()
            self._unlearn(self._ben(), packet, self._children[:count], own=False)
            taken.append((time.process_time() - started) / count)
            read, written = (
                (now - then) / count for now, then in zip(file_bytes(), before, strict=True)
            )
        return statistics.median(taken[1:]), read, written

    def memory(self) -> list[int]:
        """Return how many bytes of memory each number of descendants takes at most.

        To be called after all times are taken: it slows the allocator down.
        """
        packet = self.question()
        return [peak_bytes(partial(self.apply, packet, count)) for count in self._counts]

    def replay(self) -> None:
        """Train one model again."""
        anna = self._anna()
        anna.retrain(self._root, FORGOTTEN)
        anna.store.close()

    def published(self) -> None:
        """Dampen one model by the published way."""
        network = self._spec.build(0)
        inputs, targets = (value.split(BATCH) for value in self._data)
        reference = published(network, list(zip(inputs, targets, strict=True)))
        forget = {name: 2 * value for name, value in reference.items()}
        path = self._folder / "published.safetensors"
        safetensors.torch.save_file(self.weights, path)
        weights = safetensors.torch.load_file(path)
        scope = {name: weights[name] for name in forget}
        new = dampen(scope, forget, reference, ALPHA, LAM).parameters
        safetensors.torch.save_file(weights | new, path)

    def _unlearn(
        self,
        owner: PlainOwner,
        packet: pb.FisherPacket,
        models: Sequence[ModelRecord],
        *,
        own: bool,
    ) -> None:
        task = pb.UnlearnTask(
            request_id="q",
            request_digest=REQUEST,
            method=_method("full", 0).to_proto(),
            fishers=[packet],
            models=[
                pb.ModelTask(
                    model_id=record.id,
                    digest=record.digest,
                    shares=[pb.Share(packet=0, coefficient=1.0, own=own)],
                    samples=self._asked.samples if own else (),
                    sample_salt=self._asked.sample_salt if own else "",
                    created_us=10**9,
                )
                for record in models
            ],
            max_retain_drop=100.0,
        )
        done = unlearn(owner, task).models
        owner.store.close()
        if not all(result.HasField("successor") for result in done):
            raise RuntimeError(f"Expected all models to be unlearned in, but: {done[0].error}")

    def _begin_anew(self, owner: str) -> None:
        shutil.copy(self._folder / f"{owner}.db", self._folder / owner / "index.db")

    def _anna(self) -> TrainingOwner:
        return TrainingOwner(self._folder / "anna", self._spec, self._data)

    def _ben(self) -> PlainOwner:
        return PlainOwner(self._folder / "ben", self._spec.build(0))

    def _record(self, owner: str, model_id: str, weights: Mapping[str, Tensor]) -> ModelRecord:
        return ModelRecord(
            id=model_id,
            owner=owner,
            architecture=architecture_fingerprint(weights),
            labels=LABELS,
            digest=weights_digest(weights),
            created_us=1,
            provenance=Provenance("none", dict.fromkeys(LABELS, len(self._data[1]) // len(LABELS))),
        )

    def _add(self, owner: PlainOwner, model_id: str, weights: dict[str, Tensor]) -> ModelRecord:
        network = self._spec.build(0)
        assert isinstance(network, Classifier)
        record = self._record(owner.store.owner, model_id, weights)
        added = owner.store.add(record, weights)
        owner.store.set_structure(model_id, Structure(network.known_head(), "", ()))
        return added


def _method(encoding: DeltaCode, rank: int) -> Method:
    return Method(
        mechanism="delta",
        root_method="replay",
        scope="all",
        repair_steps=0,
        delta_encoding=encoding,
        delta_rank=rank,
    )


def file_bytes() -> tuple[int, int]:
    """Return how many bytes this process has read from files, and written to them."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"]), int(fields["wchar"])
