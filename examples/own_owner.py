"""An owner of one's own: two organisations, one model each, and a request that reaches both.

`north` trains `base` on its half of scikit-learn's digits, `south` goes on from it with the other
half, and then the digit 3 is to be forgotten.  `app` is what `north` and `south` run under Flower;
`main` calls the same owners in this process.  Run it with ``python examples/own_owner.py``.
"""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from flwr.app import Context
from sklearn.datasets import load_digits
from torch import Tensor, nn

from disinherit import (
    CampaignResult,
    Coordinator,
    CoordinatorStore,
    DirectTransport,
    Inheritance,
    InheritanceKind,
    ModelRecord,
    ModelStore,
    Provenance,
    Request,
    build_client_app,
    describe_model,
)

LABELS = tuple("0123456789")
HALVES = {"north": 0, "south": 1}


class DigitsOwner:
    """Everything the handlers ask an owner for (`disinherit.Owner`)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.store = ModelStore(folder / name, name)
        self.device = torch.device("cpu")
        digits = load_digits()
        self._inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
        self._targets = torch.tensor(digits.target)
        # The digits come in order of their class, so they are shuffled, for every owner alike.
        order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
        self._part = order % 10  # 0-7 training, 8 tuning, 9 evaluation
        self._half = HALVES[name]

    def __enter__(self) -> "DigitsOwner":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def network(self, record: ModelRecord | None = None) -> nn.Sequential:
        """Return a module of the architecture; its weights are overwritten."""
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, len(LABELS)))

    def training_data(self, record: ModelRecord | None = None) -> list[tuple[Tensor, Tensor]]:
        """Return exactly what the owner's model was trained on: its half of the training part."""
        return self._batches((self._part < 8) & (self._part % 2 == self._half))

    def tuning_data(self, record: ModelRecord) -> list[tuple[Tensor, Tensor]]:
        """Return samples that neither training nor evaluation uses."""
        return self._batches(self._part == 8)

    def evaluation_data(self, record: ModelRecord) -> list[tuple[Tensor, Tensor]]:
        """Return samples that nothing else uses."""
        return self._batches(self._part == 9)

    def train(self, model_id: str, start: Mapping[str, Tensor] | None = None) -> ModelRecord:
        """Train a model, and keep it with what it was trained on directly."""
        torch.manual_seed(0)
        model = self.network()
        if start is not None:
            model.load_state_dict(start)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        [(inputs, targets)] = self.training_data()
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        counts = dict(zip(LABELS, targets.bincount(minlength=len(LABELS)).tolist(), strict=True))
        record = describe_model(
            model_id,
            model,
            owner=self.store.owner,
            labels=LABELS,
            provenance=Provenance("digits", counts),
        )
        return self.store.add(record, model.state_dict())

    def _batches(self, chosen: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(self._inputs[chosen], self._targets[chosen])]


def open_owner(context: Context) -> DigitsOwner:
    """Open the owner of a Flower node: --node-config 'owner="north" folder="models"'."""
    config = context.node_config
    return DigitsOwner(Path(str(config["folder"])), str(config["owner"]))


app = build_client_app(open_owner)


def main(folder: Path) -> CampaignResult:
    """Train, register, forget and measure; everything is kept in `folder`."""
    coordinator = Coordinator(
        CoordinatorStore(folder / "coordinator.db"),
        DirectTransport({name: partial(DigitsOwner, folder, name) for name in HALVES}),
    )
    with DigitsOwner(folder, "north") as north, DigitsOwner(folder, "south") as south:
        coordinator.store.add_model(north.train("base"))
        edge = Inheritance("base", "child", InheritanceKind.TRANSFER)
        coordinator.store.add_model(south.train("child", north.store.weights("base")), [edge])
    errors = coordinator.register(list(HALVES), scope="head")  # from here on no data is needed
    assert not errors, errors

    request = Request(id="forget-three", reason="consent withdrawn", forget={"base": ["3"]})
    plan = coordinator.submit(request)
    print("affected:", *plan.affected)
    print("\n".join(f"note: {note}" for note in plan.notes))
    result = coordinator.run(request.id)
    print("outcome:", result.outcome)
    for model, task in result.tasks.items():
        assert task.result is not None, task.reason
        successor = task.result.successor.id
        for version, found in coordinator.evaluate([model, successor]).items():
            counts = torch.tensor(found.confusion).view(len(LABELS), len(LABELS))
            right, samples = counts.diagonal(), counts.sum(dim=1)
            rest = [index for index, name in enumerate(LABELS) if name != "3"]
            forget, retain = right[3] / samples[3], right[rest].sum() / samples[rest].sum()
            print(f"{version:20} {task.state:9} forget {forget:6.1%}  retain {retain:6.1%}")
    coordinator.store.close()
    return result


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
