"""A class request to 100 owners with 10 models each, against what it takes without inheritance.

request    from `submit` until every model is applied: the coordinator on a database of its own,
           owners with their stores in the same process, one after the other; no data is touched
verified   the same until what is on the owners' disks is verified, too
published  the published way, model after model: Fisher information of the data to forget and of all
           data computed anew from batch gradients of the head, then load, dampen, save
retrain    replayed retraining, model after model: 4 epochs over what is kept

CPU seconds for all models, one thread. The alternatives are measured on one model and a part of its
samples, and scaled up.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import safetensors.torch
import torch
from head_fisher import published, random_batches
from layer_fisher import steps
from many_models import ALPHA, FORGOTTEN, LABELS, LAM, METHOD, PlainOwner
from measuring import Claim, Figures, arguments, report
from torch import Tensor

from disinherit.client.store.structure import Structure
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fiun.dampening import dampen
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.common.wire.requests import Request
from disinherit.direct import DirectTransport
from disinherit.server.campaign.coordinator import Coordinator
from disinherit.server.store.store import CoordinatorStore
from disinherit.server.transport.base import Answer, Ask
from disinherit.simulations.networks.networks import NetworkSpec

OWNERS, MODELS = 100, 10
SAMPLES = 5000
"""Training samples of a model, as many as MNIST-5k has."""
EPOCHS = 4
MEASURED = 512
NETWORK = NetworkSpec("cnn", (1, 28, 28), len(LABELS))


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    owners, models = (3, 2) if options.reduced else (OWNERS, MODELS)
    count = owners * models
    with tempfile.TemporaryDirectory(prefix="disinherit-", dir=".") as folder:
        fleet = Fleet(Path(folder), owners, models)
        row = fleet.request()
        samples = 64 if options.reduced else MEASURED
        row["published"] = count * fleet.published(samples)
        row["retrain"] = count * fleet.retrain(samples)
    row["published / request"] = row["published"] / row["request"]
    row["retrain / request"] = row["retrain"] / row["request"]
    what = f"submit to applied, {owners} owners x {models} models of {SAMPLES} samples"
    claims = [
        Claim(5, f"published way / {what}", row["published / request"], at_least=50),
        Claim(5, f"retraining / {what}", row["retrain / request"], at_least=1000),
    ]
    title = "A class request: CPU seconds for all models"
    report(options, "request", title, [{"owners": owners, "models": count, **row}], claims)


class Timed:
    """A transport that adds up the CPU seconds which owners take to answer.

    Attributes:
        seconds: the sum.
    """

    def __init__(self, inner: DirectTransport) -> None:
        self._inner = inner
        self.seconds = 0.0

    def ask(self, asks: Sequence[Ask], timeout: float) -> Iterator[Answer]:
        """Pass on what is asked and answered."""
        answers = self._inner.ask(asks, timeout)
        while True:
            started = time.process_time()
            answer = next(answers, None)
            self.seconds += time.process_time() - started
            if answer is None:
                return
            yield answer


class Fleet:
    """Owners with stores of models that descend from one root, and a coordinator that knows them.

    Args:
        folder: an empty folder.
        owners: their number.
        models: of each owner.
    """

    def __init__(self, folder: Path, owners: int, models: int) -> None:
        self._folder = folder
        self._network = NETWORK.build(seed=0)
        self._names = [f"owner-{i}" for i in range(owners)]
        torch.manual_seed(0)
        head = self._network.known_head()
        shapes = {name: self._network.get_parameter(name).shape for name in head.parameters}
        state = {name: value.detach() for name, value in self._network.state_dict().items()}
        store = CoordinatorStore(folder / "coordinator.db")
        counts = torch.full((len(LABELS),), SAMPLES // len(LABELS))
        number = 0
        with mock.patch("os.fsync"):  # making the fleet is not what is measured
            for name in self._names:
                owner = PlainOwner(folder / name, self._network)
                for _ in range(models):
                    weights = {n: v + 0.01 * torch.randn(v.shape) for n, v in state.items()}
                    sums = {n: torch.rand(len(LABELS), *shape) for n, shape in shapes.items()}
                    record = ModelRecord(
                        id=f"model-{number}",
                        owner=name,
                        architecture=architecture_fingerprint(weights),
                        labels=LABELS,
                        digest=weights_digest(weights),
                        created_us=number + 1,
                        provenance=Provenance("none", dict.fromkeys(LABELS, int(counts[0]))),
                    )
                    added = owner.store.add(record, weights, ClassFishers(sums, counts), "head")
                    owner.store.set_structure(record.id, Structure(head, "", ()))
                    kind = InheritanceKind.TRANSFER
                    edges = [Inheritance("model-0", record.id, kind)] if number else []
                    store.add_model(added, edges)
                    number += 1
                owner.store.close()
        store.close()
        self._weights = weights
        self._indexes = [*folder.glob("*/index.db"), folder / "coordinator.db"]
        for index in self._indexes:
            shutil.copy(index, index.with_suffix(".before"))

    def request(self) -> Figures:
        """Unlearn in all models, as if it had not been done before."""
        for index in self._indexes:
            shutil.copy(index.with_suffix(".before"), index)
        shutil.rmtree(self._folder / "coordinator.db.packets", ignore_errors=True)
        transport = Timed(DirectTransport({n: partial(self._open, n) for n in self._names}))
        store = CoordinatorStore(self._folder / "coordinator.db")
        applied: list[tuple[float, float]] = []

        def say(what: str) -> None:
            if what.startswith("verifying"):
                applied.append((time.process_time(), transport.seconds))

        coordinator = Coordinator(store, transport, say=say)
        request = Request(
            id="q", reason="measured", forget={"model-0": [LABELS[FORGOTTEN]]}, method=METHOD
        )
        clock, started = time.perf_counter(), time.process_time()
        coordinator.submit(request)
        result = coordinator.run("q")
        verified, clock = time.process_time() - started, time.perf_counter() - clock
        store.close()
        if not all(task.state.settled for task in result.tasks.values()):
            raise RuntimeError(f"Expected all models to be unlearned in, but got: {result.tasks}")
        ((ended, by_owners),) = applied
        return {
            "request": ended - started,
            "of that, coordinator": ended - started - by_owners,
            "verified": verified,
            "verified, on the clock": clock,
        }

    def published(self, samples: int) -> float:
        """Return the CPU seconds that the published way takes for one model."""
        batches = random_batches(NETWORK, samples)

        def fishers() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            return published(self._network, batches[: -(-len(batches) // len(LABELS))]), published(
                self._network, batches
            )

        per_sample = _seconds(fishers) / samples
        forget, everything = fishers()

        def apply() -> None:
            path = self._folder / "published.safetensors"
            safetensors.torch.save_file(self._weights, path)
            weights = safetensors.torch.load_file(path)
            scope = {name: weights[name] for name in forget}
            new = dampen(scope, forget, everything, ALPHA, LAM).parameters
            safetensors.torch.save_file(weights | new, path)

        return per_sample * SAMPLES + _seconds(apply)

    def retrain(self, samples: int) -> float:
        """Return the CPU seconds that retraining one model takes."""
        batches = random_batches(NETWORK, samples)
        kept = SAMPLES * (len(LABELS) - 1) / len(LABELS)
        return EPOCHS * kept * _seconds(lambda: steps(self._network, batches)) / samples

    @contextmanager
    def _open(self, name: str) -> Iterator[PlainOwner]:
        owner = PlainOwner(self._folder / name, self._network)
        try:
            yield owner
        finally:
            owner.store.close()


def _seconds(run: Callable[[], object]) -> float:
    run()
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    main()
