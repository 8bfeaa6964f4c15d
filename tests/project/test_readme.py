"""The README's example runs as it stands there, on the reader's own modules and loaders."""

import re

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests import ROOT

README = (ROOT / "README.md").read_text()


def blobs(classes: list[int], seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor(classes).repeat(60)
    inputs = 3 * torch.eye(4)[targets] + torch.randn(len(targets), 4, generator=generator)
    return TensorDataset(inputs, targets)


def trained(data: TensorDataset, start: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    if start is not None:
        model.load_state_dict(start.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(8):
        for inputs, targets in DataLoader(data, 32, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return model


def accuracy(model: nn.Module, classes: list[int]) -> float:
    inputs, targets = blobs(classes, seed=99).tensors
    right: torch.Tensor = model.eval()(inputs).argmax(1) == targets
    return right.double().mean().item()


def test_the_ten_lines_make_a_network_of_models_forget() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    example = next(block for block in blocks if block.startswith("graph = InheritanceGraph()"))
    imports = next(block for block in blocks if block.startswith("from disinherit"))
    base = trained(blobs([0, 1, 2], seed=1))
    models = {"base": base, "child": trained(blobs([0, 1, 2], seed=2), base)}
    assert all(accuracy(model, [0]) > 0.85 for model in models.values())

    exec(
        imports + example,
        {
            "models": models,
            "classes": ["cat", "dog", "owl"],
            "forget_loader": DataLoader(blobs([0], seed=1), 32),
            "retain_loader": DataLoader(blobs([1, 2], seed=2), 32),
        },
    )

    for model in models.values():
        assert accuracy(model, [0]) < 0.05
        assert accuracy(model, [1, 2]) > 0.85
