"""flower_app: A Flower / PyTorch app: the model, its data and how it is trained."""

from collections.abc import Sized
from functools import cache
from typing import cast

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

NUM_CLASSES = 10


class Net(nn.Module):
    """A small network for images of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 64)
        self.fc2 = nn.Linear(64, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[n, C]`."""
        logits: Tensor = self.fc2(torch.relu(self.fc1(x.flatten(1))))
        return logits


@cache
def load_images() -> tuple[Tensor, Tensor]:
    """Return all images and their digits, in a random order that is always the same."""
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(42))
    images = torch.from_numpy(digits.images).float()[order] / 16
    return images, torch.from_numpy(digits.target).long()[order]


def load_data(
    partition_id: int, num_partitions: int, batch_size: int
) -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """Return the training and test data of one partition."""
    images, labels = load_images()
    split = int(0.8 * len(labels))
    mine = slice(partition_id, None, num_partitions)
    trainset = TensorDataset(images[:split][mine], labels[:split][mine])
    testset = TensorDataset(images[split:][mine], labels[split:][mine])
    return (
        DataLoader(trainset, batch_size=batch_size, shuffle=True),
        DataLoader(testset, batch_size=batch_size),
    )


def load_centralized_dataset() -> DataLoader[tuple[Tensor, ...]]:
    """Return the test data of all partitions."""
    return load_data(0, 1, 128)[1]


def size(loader: DataLoader[tuple[Tensor, ...]]) -> int:
    """Return the number of samples of a loader."""
    return len(cast("Sized", loader.dataset))


def train(
    net: nn.Module,
    trainloader: DataLoader[tuple[Tensor, ...]],
    epochs: int,
    lr: float,
    device: torch.device,
) -> float:
    """Train the model; return the average loss."""
    net.to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    running_loss = 0.0
    for _ in range(epochs):
        for images, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (epochs * len(trainloader))


def test(
    net: nn.Module, testloader: DataLoader[tuple[Tensor, ...]], device: torch.device
) -> tuple[float, float]:
    """Return the average loss and the accuracy."""
    net.to(device).eval()
    criterion = nn.CrossEntropyLoss()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for images, labels in testloader:
            outputs = net(images.to(device))
            loss += criterion(outputs, labels.to(device)).item()
            correct += int((outputs.argmax(1) == labels.to(device)).sum())
    return loss / len(testloader), correct / sum(len(labels) for _, labels in testloader)
