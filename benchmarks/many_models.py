"""1,000 models of one owner: unlearned in by one message, against loops over the same files.

together      `unlearn`: scopes stacked, one file and one commit per batch, the ledger and the
              successors' Fisher summaries included
one by one    the same handler, model after model: what is done where there is something to tune
loop          load a safetensors file, pool the Fisher sums, dampen, save: no digest, no ledger,
              nothing synced: a loss of power, or a second message, ruins models
durable loop  the same, but each file is synced and renamed, and its folder synced
bound         to copy the parameters in scope and their Fisher sums in memory

Milliseconds per model on the clock, one thread: most of what is compared waits for the disk.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import safetensors.torch
import torch
from measuring import Claim, Figures, arguments, copy_rate, peak_bytes, report
from torch import Tensor, nn

from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.many import Stacking
from disinherit.client.owner.owner import Batches
from disinherit.client.store.store import ModelStore
from disinherit.client.store.structure import Structure
from disinherit.common.files import write_atomic
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fiun.unlearning import unlearn_parameters
from disinherit.common.graph.records import ModelRecord, Provenance
from disinherit.common.method import Method
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import tensor_bytes, weights_digest
from disinherit.common.wire.packets import encode_fisher
from disinherit.simulations.networks.networks import Classifier, NetworkSpec
from disinherit.v1 import unlearning_pb2 as pb

LABELS = tuple(f"class {i}" for i in range(10))
FORGOTTEN = 3
SAMPLES = 50
ALPHA, LAM = 0.3, 0.1
METHOD = Method(alpha=ALPHA, lam=LAM, gauge=1.0)

CASES = (  # network, input shape, models of a message, of them one by one, and models for memory
    ("cnn", (1, 28, 28), 1000, 25, 3000),
    ("resnet18", (3, 32, 32), 20, 4, 20),
)


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows: list[Figures] = []
    claims: list[Claim] = []
    for network, shape, *sizes in CASES[:1] if options.reduced else CASES:
        models, few, most = (6, 3, 12) if options.reduced else sizes
        with tempfile.TemporaryDirectory(prefix="disinherit-", dir=".") as folder:
            case = Case(Path(folder), NetworkSpec(network, shape, len(LABELS)).build(0), most)
            name = f"{network}, {case.parameters:,} parameters"
            row = case.measure(models, few, 1 if options.reduced else 3)
            for loop in ("loop", "durable loop"):
                what = f"{loop} / together, {models} models, {name}"
                claims.append(Claim(4, what, row[f"{loop} / together"], at_least=15))
            if most > models:
                memory = {n: case.memory(n) for n in (models // 5, models, most)}
                row |= {f"MB for {n} models": used / 1e6 for n, used in memory.items()}
                what = f"peak memory of {most} models / of {models}, {name}"
                claims.append(Claim(4, what, memory[most] / memory[models], at_most=1.2))
        rows.append({"network": name, "models": models, **row})
    title = "Many models on one owner: milliseconds per model on the clock, peak memory"
    report(options, "many_models", title, rows, claims)


class PlainOwner:
    """An owner whose data is gone: it has registered Fisher summaries and nothing to tune on.

    Args:
        root: folder of its store, which is called like it.
        network: what its models are.
    """

    device = torch.device("cpu")

    def __init__(self, root: Path, network: nn.Module) -> None:
        self.store = ModelStore(root, root.name)
        self._network = network

    def network(self, record: ModelRecord) -> nn.Module:
        """Return the network of all its models."""
        return self._network

    def training_data(self, record: ModelRecord) -> Batches | None:
        """Return none."""
        return None

    def tuning_data(self, record: ModelRecord) -> Batches | None:
        """Return none."""
        return None

    def evaluation_data(self, record: ModelRecord) -> Batches | None:
        """Return none."""
        return None


class Case:
    """A store of models that differ in all values, with random Fisher summaries of the head.

    Args:
        folder: an empty folder.
        network: what the models are.
        count: number of models.
    """

    def __init__(self, folder: Path, network: nn.Module, count: int) -> None:
        self._root, self._index = folder / "anna", folder / "index.db"
        self._loop = folder / "loop"
        self._network = network
        self.parameters = sum(value.numel() for value in network.parameters())
        assert isinstance(network, Classifier)
        self._head = network.known_head()
        self._digests: list[tuple[str, str]] = []
        shapes = {name: network.get_parameter(name).shape for name in self._head.parameters}
        owner = PlainOwner(self._root, network)
        state = {name: value.detach() for name, value in network.state_dict().items()}
        with mock.patch("os.fsync"):  # making the models is not what is measured
            for number in range(count):
                weights = {
                    n: v + 0.01 * torch.randn(v.shape) if v.is_floating_point() else v
                    for n, v in state.items()
                }
                sums = {n: torch.rand(len(LABELS), *shape) for n, shape in shapes.items()}
                fishers = ClassFishers(sums, torch.full((len(LABELS),), SAMPLES))
                record = ModelRecord(
                    id=f"model-{number}",
                    owner="anna",
                    architecture=architecture_fingerprint(weights),
                    labels=LABELS,
                    digest=weights_digest(weights),
                    created_us=number + 1,
                    provenance=Provenance("none", dict.fromkeys(LABELS, SAMPLES)),
                )
                added = owner.store.add(record, weights, fishers, "head")
                owner.store.set_structure(record.id, Structure(self._head, "", ()))
                self._digests.append((added.digest, added.fisher_digest))
        owner.store.close()
        shutil.copy(self._root / "index.db", self._index)
        self._forget = {name: 3 * torch.rand(shape) / SAMPLES for name, shape in shapes.items()}
        self._packet = encode_fisher(
            self._forget,
            labels=LABELS,
            head_weight="head.weight",
            head_bias="head.bias",
            sources=["root"],
            classes=[LABELS[FORGOTTEN]],
            samples=SAMPLES,
        )

    def measure(self, models: int, few: int, turns: int) -> Figures:
        """Return milliseconds per model of all ways, taking turns, and ratios of their medians."""
        ways: dict[str, tuple[int, Callable[[int], None]]] = {
            "together": (models, self.together),
            "one by one": (few, self.one_by_one),
            "loop": (models, lambda count: self.loop(count, durable=False)),
            "durable loop": (models, lambda count: self.loop(count, durable=True)),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(turns + 1):
            for name, (count, way) in ways.items():
                self._begin_anew()
                started = time.perf_counter()
                way(count)
                if turn:
                    taken[name].append(1000 * (time.perf_counter() - started) / count)
        row = {name: statistics.median(values) for name, values in taken.items()}
        in_scope = sum(value.nbytes for value in self._forget.values())
        row["bound"] = 1000 * 2 * in_scope * (1 + len(LABELS)) / copy_rate()
        ratios = {
            f"{name} / together": statistics.median(
                a / b for a, b in zip(values, taken["together"], strict=True)
            )
            for name, values in taken.items()
            if name != "together"
        }
        return row | ratios

    def memory(self, models: int) -> int:
        """Return how many bytes of memory a message about so many models takes at most."""

        def run() -> None:
            self._begin_anew()
            self.together(models)

        return peak_bytes(run)

    def together(self, models: int) -> None:
        """Unlearn in the first models by one message."""
        with self._opened() as owner:
            task = pb.UnlearnTask(
                request_id="forget",
                method=METHOD.to_proto(),
                fishers=[self._packet],
                models=[
                    pb.ModelTask(model_id=f"model-{number}", digest=self._digests[number][0])
                    for number in range(models)
                ],
                created_us=10**9,
            )
            done = unlearn(owner, task).models
        if not all(result.outcome == pb.OUTCOME_APPLIED for result in done):
            raise RuntimeError(f"Expected all models to be unlearned in, but: {done[0].error}")

    def one_by_one(self, models: int) -> None:
        """Unlearn in the first models by one message, but without stacking."""
        with mock.patch.object(Stacking, "unlearn", return_value={}):
            self.together(models)

    def loop(self, models: int, *, durable: bool) -> None:
        """Load, dampen and save the first models."""
        retained = [c for c in range(len(LABELS)) if c != FORGOTTEN]
        for digest, fisher_digest in self._digests[:models]:
            weights = safetensors.torch.load_file(self._object(digest))
            fishers = safetensors.torch.load_file(self._object(fisher_digest))
            reference = {
                name: fishers[f"sum.{name}"][retained].sum(0) / (SAMPLES * len(retained))
                for name in self._forget
            }
            new = unlearn_parameters(
                {name: weights[name] for name in self._forget},
                self._forget,
                reference,
                alpha=ALPHA,
                lam=LAM,
                heads=[("head.weight", "head.bias")],
                forgotten_rows=[FORGOTTEN],
            )
            saved: dict[str, Tensor] = weights | new.parameters
            path = self._loop / f"{digest}.safetensors"
            if durable:
                write_atomic(path, tensor_bytes(saved))
            else:
                safetensors.torch.save_file(saved, path)

    def _object(self, digest: str) -> Path:
        return self._root / "objects" / f"{digest}.safetensors"

    def _begin_anew(self) -> None:
        shutil.copy(self._index, self._root / "index.db")
        shutil.rmtree(self._loop, ignore_errors=True)
        self._loop.mkdir()

    @contextmanager
    def _opened(self) -> Iterator[PlainOwner]:
        owner = PlainOwner(self._root, self._network)
        try:
            yield owner
        finally:
            owner.store.close()


if __name__ == "__main__":
    main()
