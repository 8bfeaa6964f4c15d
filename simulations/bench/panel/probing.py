"""A linear probe of each layer: whether features still tell the forgotten class."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from disinherit.common.errors import NotMeasuredError
from disinherit.simulations.bench.cases.subjects import Samples
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest
from disinherit.simulations.bench.panel.outputs import logits_of

_WIDTH = 256
"""Features that a probe sees of a layer, at most; wider layers are projected at random."""

_RIDGE = 1e-2
"""Penalty of the probe, relative to the mean variance of its features."""


def linear_probe(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Accuracy on the forgotten classes of a linear classifier on each layer's outputs.

    It is fitted to training samples of all classes, those to forget among them: the attacker's
    best case.  Layers are the modules with parameters of their own, in the order of the forward
    pass, the head left out.
    """
    if not exam.case.by_class:
        raise NotMeasuredError("samples are forgotten, no class")
    held = exam.need("test_forget")
    fitted = Samples.joined([exam.need("forget"), exam.need("retain")])
    trained, tested = layers(candidate.network, fitted), layers(candidate.network, held)
    found = {}
    for name in list(trained)[:-1]:
        if not (trained[name].isfinite().all() and tested[name].isfinite().all()):
            raise NotMeasuredError(f"the outputs of layer {name} are not finite")
        predicted = ridge_classifier(
            trained[name], fitted.targets, len(exam.subject.labels), tested[name]
        )
        found[f"probe/{name}"] = 100.0 * (predicted == held.targets).double().mean().item()
    if not found:
        raise NotMeasuredError("the network has no layer below its head")
    return found


def layers(network: nn.Module, samples: Samples) -> dict[str, Tensor]:
    """Return the outputs `[n, d]` of every layer that has parameters of its own, projected."""
    kept: dict[str, list[Tensor]] = {}
    with _kept(network, kept):
        logits_of(network, samples)
    return {name: torch.cat(parts) for name, parts in kept.items()}


@contextmanager
def _kept(network: nn.Module, kept: dict[str, list[Tensor]]) -> Iterator[None]:
    handles = []

    def keep(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            kept.setdefault(name, []).append(_narrow(output.detach().flatten(1).cpu(), name))

    for name, module in network.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            handles.append(
                module.register_forward_hook(lambda _m, _i, output, name=name: keep(name, output))
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _narrow(features: Tensor, name: str) -> Tensor:
    """Project `[n, d]` to `[n, 256]` by random signs, the same for every model."""
    width = features.shape[1]
    if width <= _WIDTH:
        return features
    seed = int.from_bytes(hashlib.sha256(f"{name}/{width}".encode()).digest()[:4], "big")
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (width, _WIDTH), generator=generator) * 2 - 1
    return features @ signs.to(features.dtype)


def ridge_classifier(features: Tensor, targets: Tensor, classes: int, tested: Tensor) -> Tensor:
    """Fit one-hot classes by ridge regression, and return the classes predicted for others.

    Features are centred and scaled to a variance of 1; samples are weighted so that every class
    counts alike.

    Args:
        features: of the samples it is fitted to, `[n, d]`.
        targets: class indices `[n]`.
        classes: number of classes C.
        tested: features `[m, d]`.

    Returns:
        Class indices `[m]`.
    """
    rarity = 1.0 / torch.bincount(targets)[targets].double()
    weights = (rarity / rarity.sum()).numpy()
    scaler = StandardScaler()
    scaled = scaler.fit_transform(features.double().numpy(), sample_weight=weights)
    onehot = nn.functional.one_hot(targets, classes).double().numpy()
    probe = Ridge(_RIDGE).fit(scaled, onehot, weights)
    scores = probe.predict(scaler.transform(tested.double().numpy()))
    return torch.from_numpy(scores).argmax(dim=1)
