"""One state of the code, made to submit requests and carry them out, for `coordinator_pass.py`.

It imports what that state has, wherever it is, and reads what to do from its standard input::

    python pass_worker.py FOLDER     # then lines of "OWNERS MODELS measure" or "... count"

A transport that knows what owners would say answers in their place.  All that is left is the
coordinator: CPU seconds, without those of the answers, and seconds on the clock.
"""

import hashlib
import importlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine

LABELS = tuple(f"class {index}" for index in range(10))
HEAD = {"head.weight": (10, 32), "head.bias": (10,)}


def module(*names: str) -> Any:
    """Return the first module that there is."""
    for name in names:
        try:
            return importlib.import_module(f"disinherit.{name}")
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not f"disinherit.{name}".startswith(missing):
                raise
    raise ModuleNotFoundError(f"Expected one of {', '.join(names)}, but there is none.")


pb = module("v1.unlearning_pb2")
graph_pb = module("v1.graph_pb2")
records = module("common.graph.records", "common.records")
packets = module("common.wire.packets", "common.packets")
transports = module("server.transport.base", "server.transport")
coordinators = module("server.campaign.coordinator", "server.coordinator")
stores = module("server.store.store", "server.store")
METHOD = pb.Method(
    scope="head", reference="retain", merge="max", alpha=1, lam=1, exponent=1, bound=1
)


def digest(text: str) -> str:
    """Return what stands for the weights of a version."""
    return hashlib.sha256(text.encode()).hexdigest()


class Owners:
    """Answers as owners that do what they are asked would.

    Args:
        models: id -> version.

    Attributes:
        seconds: CPU seconds that answering took, and on the clock.
    """

    def __init__(self, models: dict[str, Any]) -> None:
        self._models = models
        self.seconds = (0.0, 0.0)

    def ask(self, asks: Sequence[Any], timeout: float) -> Iterator[Any]:
        """Answer all messages."""
        for ask in asks:
            spent, clock = time.process_time(), time.perf_counter()
            reply = getattr(self, ask.action.replace(".", "_"))(ask.task)
            answer = transports.Answer(ask, reply)
            cpu, wall = self.seconds
            self.seconds = cpu + time.process_time() - spent, wall + time.perf_counter() - clock
            yield answer

    def query_fisher(self, task: Any) -> Any:
        """Return Fisher information that fits the heads."""
        reply = pb.FisherReply()
        for root in task.roots:
            found = reply.roots.add(model_id=root.model_id)
            for name in root.classes:
                packet, data = packets.encode_apart(
                    {parameter: torch.ones(shape) for parameter, shape in HEAD.items()},
                    labels=LABELS,
                    head_weight="head.weight",
                    head_bias="head.bias",
                    sources=[root.model_id],
                    classes=[name],
                    samples=10,
                )
                packet.tensors = data
                found.packets.append(packet)
        return reply

    def train_unlearn(self, task: Any) -> Any:
        """Return a successor for every model."""
        reply = pb.UnlearnReply()
        for model in task.models:
            record = self._models[model.model_id]
            made = f"{record.id}~{task.request_id}"
            result = reply.models.add(
                model_id=record.id, outcome=pb.OUTCOME_APPLIED, alpha=1, lam=1
            )
            result.successor.CopyFrom(
                graph_pb.ModelRecord(
                    id=made,
                    owner=record.owner,
                    architecture=record.architecture,
                    labels=record.labels,
                    digest=digest(made),
                    created_us=time.time_ns() // 1000,
                    status=graph_pb.MODEL_STATUS_ACTIVE,
                )
            )
            result.selections.add(parameter="head.weight", rows=[3] * len(LABELS))
        return reply

    def evaluate_panel(self, task: Any) -> Any:
        """Return the digests of successors."""
        reply = pb.EvaluateReply()
        for model in task.model_ids:
            reply.models.add(model_id=model, digest=digest(model))
        return reply


class Fleets:
    """Databases of fleets in which nothing is unlearned yet, made once.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models: dict[tuple[int, int], dict[str, Any]] = {}

    def run(self, owners: int, models: int, count: bool) -> dict[str, float]:
        """Submit a request that affects all models of a fleet, and carry it out.

        Args:
            owners: how many there are.
            models: of each.
            count: whether to count transactions and statements, which takes time.
        """
        built = self._built(owners, models)
        path = self._folder / "run.db"
        for old in self._folder.glob("run.db*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        shutil.copy(self._folder / f"{owners}x{models}.db", path)
        store = stores.CoordinatorStore(path)
        transport = Owners(built)
        coordinator = coordinators.Coordinator(store, transport)
        root = pb.Root(model_id="model-0", classes=[LABELS[3]])
        request = pb.UnlearningRequest(id="q", reason="measured", roots=[root], method=METHOD)
        counted = _Counted()
        if count:
            counted.listen()
        cpu, wall = time.process_time(), time.perf_counter()
        coordinator.submit(request, notes=False)
        result = coordinator.run("q")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        counted.stop()
        store.close()
        if {str(task.state) for task in result.tasks.values()} != {"verified"}:
            raise RuntimeError(f"Expected all models to be verified, but got {result.tasks}.")
        return {
            "cpu": cpu - transport.seconds[0],
            "wall": wall - transport.seconds[1],
            "transactions": counted.transactions,
            "statements": counted.statements,
        }

    def _built(self, owners: int, models: int) -> dict[str, Any]:
        size = owners, models
        if size not in self._models:
            store = stores.CoordinatorStore(self._folder / f"{owners}x{models}.db")
            found = {}
            for number in range(owners * models):
                record = records.ModelRecord(
                    id=f"model-{number}",
                    owner=f"owner-{number // models}",
                    architecture="0a" * 32,
                    labels=LABELS,
                    digest=digest(f"model-{number}"),
                    created_us=number + 1,
                    provenance=records.Provenance("none", dict.fromkeys(LABELS, 10)),
                )
                kind = records.InheritanceKind.TRANSFER
                edges = [records.Inheritance("model-0", record.id, kind)] if number else []
                store.add_model(record, edges)
                found[record.id] = record
            store.close()
            self._models[size] = found
        return self._models[size]


class _Counted:
    def __init__(self) -> None:
        self.transactions = 0
        self.statements = 0
        self._listening = False

    def listen(self) -> None:
        event.listen(Engine, "begin", self._begin)
        event.listen(Engine, "before_cursor_execute", self._execute)
        self._listening = True

    def stop(self) -> None:
        if self._listening:
            event.remove(Engine, "begin", self._begin)
            event.remove(Engine, "before_cursor_execute", self._execute)

    def _begin(self, _: object) -> None:
        self.transactions += 1

    def _execute(self, _: object, __: object, statement: str, *___: object) -> None:
        self.statements += not statement.startswith("BEGIN")


def main() -> None:
    """Do what the standard input says, and answer each line with one of JSON."""
    torch.set_num_threads(1)
    fleets = Fleets(Path(sys.argv[1]))
    for line in sys.stdin:
        owners, models, what = line.split()
        print(json.dumps(fleets.run(int(owners), int(models), what == "count")), flush=True)


if __name__ == "__main__":
    main()
