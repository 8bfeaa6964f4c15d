"""Measurement of attacks: data, requests, and what each attack gives.

On Fashion-MNIST: 1,000 samples of a root, 2,000 public ones that the attacker has, 1,000 unrelated
ones to compare with, 2,000 to measure accuracy; all distinct.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from disinherit.simulations.bench.reconstruction.attack import (
    closed_form,
    estimated_gradients,
    matched,
)
from disinherit.simulations.bench.reconstruction.protections import Protection, protections
from disinherit.simulations.bench.reconstruction.quality import (
    directions,
    nearest,
    reconstruction_quality,
    told_apart,
)
from disinherit.simulations.bench.reconstruction.roots import (
    Root,
    cnn_roots,
    flat,
    gradients,
    ridge,
)
from disinherit.simulations.data.datasets import load_dataset

_ROOT, _PUBLIC, _OTHERS, _HELD_OUT = 1000, 2000, 1000, 2000
STEPS = 200
"""Steps of each search for images."""

GROUPS = {1: 6, 10: 2, 50: 1}
"""Samples in one request -> number of requests to attack."""


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Images and classes."""

    inputs: Tensor
    targets: Tensor

    def at(self, ids: Sequence[int]) -> "Images":
        """Return some of them."""
        return Images(self.inputs[list(ids)], self.targets[list(ids)])

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Images and classes."""
        return self.inputs, self.targets


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """All data of a run."""

    own: Images
    public: Images
    others: Images
    held_out: Images


def load_world(source: str) -> World:
    """Return distinct random parts of a data set."""
    data = load_dataset(source)
    sizes = (_ROOT, _PUBLIC, _OTHERS, _HELD_OUT)
    order = torch.randperm(len(data.targets), generator=torch.Generator().manual_seed(0))
    parts = order[: sum(sizes)].split(list(sizes))
    return World(*(Images(data.inputs[part], data.targets[part]) for part in parts))


def measured(world: World, groups: Mapping[int, int], steps: int = STEPS) -> list[dict[str, Any]]:
    """Attack every root, with every protection and size of a request.

    Args:
        world: the data.
        groups: number of samples in one request -> number of requests.
        steps: steps of each search for images.
    """
    rows: list[dict[str, Any]] = []
    for root in [ridge(*world.own.pair), *cnn_roots(*world.own.pair, *world.public.pair)]:
        others = directions(root, *world.others.pair)
        for count, requests in groups.items():
            order = torch.randperm(
                len(world.own.targets), generator=torch.Generator().manual_seed(count)
            )
            chosen = order[: count * requests].view(requests, count).tolist()
            targets = [Target(root, world, ids, others) for ids in chosen]
            for name, protection in protections().items():
                if root.name == "long" and name != "none":
                    continue  # it is safe without
                found = [target.attacked(protection, steps) for target in targets]
                means = {key: sum(one[key] for one in found) / requests for key in found[0]}
                rows.append({"root": root.name, "samples": count, "protection": name, **means})
    return rows


class Target:
    """The change of a root by one request.

    Args:
        root: the root before.
        world: the data.
        ids: indices of the deleted samples.
        others: gradients of the unrelated samples, as `directions`.
    """

    def __init__(self, root: Root, world: World, ids: Sequence[int], others: Tensor) -> None:
        self._root, self._world, self._others = root, world, others
        self._change = root.change(ids)
        self._deleted = world.own.at(ids)
        self._true = flat(gradients(root, *self._deleted.pair))
        self._directions = directions(root, *self._deleted.pair)
        self._mean = world.public.inputs.mean(0)
        self._near = nearest(self._deleted.inputs, world.others.inputs, self._mean)

    def attacked(self, protection: Protection, steps: int) -> dict[str, float]:
        """Return what an attack gives, and what the change is still good for."""
        root, public = self._root, self._world.public.inputs
        released = protection(self._change)
        estimates = estimated_gradients(root, released, public)
        tries = [matched(root, one, self._deleted.targets, public, steps) for one in estimates]
        if root.name == "ridge" and len(self._deleted.targets) == 1:
            tries += [closed_form(one, public) for one in estimates]
        qualities = [
            reconstruction_quality(one, self._deleted.inputs, self._world.others.inputs, self._mean)
            for one in tries
        ]
        cosine, ssim, recognised = torch.stack(qualities).amax(0).tolist()
        return {
            "gradient": max(
                float(torch.cosine_similarity(one, self._true, 0)) for one in estimates
            ),
            "cosine": cosine,
            "unrelated cosine": self._near[0],
            "ssim": ssim,
            "unrelated ssim": self._near[1],
            "recognised": recognised,
            "told apart": max(told_apart(one, self._directions, self._others) for one in estimates),
            "effect": _effect(root, self._deleted, released, self._change),
            "accuracy": _accuracy(root, self._world.held_out, released),
        }


@torch.no_grad()
def _effect(
    root: Root, deleted: Images, released: Mapping[str, Tensor], change: Mapping[str, Tensor]
) -> float:
    """Return the rise of the deleted samples' loss, beside that by the unprotected change."""
    before, protected, unprotected = (
        float(root.loss(_outputs(root, deleted, values), deleted.targets))
        for values in ({}, released, change)
    )
    return (protected - before) / (unprotected - before)


@torch.no_grad()
def _accuracy(root: Root, held_out: Images, released: Mapping[str, Tensor]) -> float:
    right = _outputs(root, held_out, released).argmax(1) == held_out.targets
    return float(right.float().mean())


def _outputs(root: Root, samples: Images, changes: Mapping[str, Tensor]) -> Tensor:
    weights = {
        name: value + changes[name] if name in changes else value
        for name, value in root.network.named_parameters()
    }
    outputs: Tensor = functional_call(root.network, weights, (samples.inputs,))
    return outputs
