"""EK-FAC step: one damped Gauss-Newton step away from the samples to forget.

It needs only these samples, and the curvature that was registered when the model was trained, so
the retained data may be gone.  It covers linear layers and convolutions; other layers stay as they
are.  One step, never several: with the gradients of fitted samples, a second one explodes.

The strength is the least at which the samples look unseen to the attack on losses, on the owner's
tuning split, where it may cost at most `MOST_RISE`.  Without a tuning split, or if the attack tells
nothing even before, it is `UNTUNED`, and at most what the registered curvature predicts to cost as
much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disinherit.client.owner.batches import ShrinkingBatches
from disinherit.client.owner.owner import Batches, load_network
from disinherit.client.privacy.remaining import tuning_data
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.client.roots.training import MOST_RISE, TRAINABLE, widened
from disinherit.common.curvature.ekfac import gradients, squares
from disinherit.common.curvature.step import Step, newton_step
from disinherit.common.errors import DataError
from disinherit.common.models.inputs import as_arguments, to_device
from disinherit.common.models.membership import area_under_curve, confidence

STRENGTHS = tuple(2 ** (power / 2) for power in range(-8, 1))
"""Shares of the whole step, from the weakest."""

UNTUNED = 0.25
"""Share of the step that is taken where nothing can be tuned."""

WRONG_LABELS = 9
"""Most wrong labels of a sample of the tuning split that samples to forget are compared with."""


@dataclass(frozen=True, slots=True)
class EkfacStep:
    """A step with the registered curvature."""

    name: str = "ekfac"

    def refusal(self, problem: RootProblem) -> str:
        """Refuse roots without registered curvature or samples to forget."""
        owner, record = problem.owner, problem.record
        if problem.samples is None:
            return f"Nothing that model {record.id!r} was trained on directly is retained."
        if problem.forget is None or next(iter(problem.forget), None) is None:
            return f"The samples that model {record.id!r} has to forget are gone."
        if not owner.store.has_curvature(record.id):
            return (
                f"No curvature of model {record.id!r} is registered: give its owner "
                "`keeps_curvature`, and register the model while its training data is there."
            )
        return ""

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        """Return the root after the step.

        Raises:
            DataError: if no layer in scope is covered, or every strength costs too much.
            FisherError: if the network is not the one whose curvature was registered.
            CheckpointError: if the registered curvature is missing or damaged.
        """
        owner, record = problem.owner, problem.record
        network = load_network(owner, record, problem.weights)
        step = _step(problem, network)
        covered = [n for n in problem.names if n in step.change]
        if not covered:
            raise DataError(
                f"Expected a linear layer or convolution in scope {problem.method.scope!r} of root "
                f"{record.id!r}, but the registered curvature covers none. Choose another root "
                "method or scope."
            )
        tuning = tuning_data(owner, record)
        candidates = _Candidates(problem, network, step, covered)
        strength, note = _least(step) if tuning is None else _tuned(candidates, tuning)
        left = [name for name in problem.names if name not in step.change]
        if left:
            note += f"; left as they are: {', '.join(left)}"
        network.load_state_dict(candidates.at(strength), strict=False)
        changed = {id(network.get_parameter(name)) for name in covered}
        weights = dict(problem.weights)
        for name, value in network.state_dict(keep_vars=True).items():
            if id(value) in changed:
                weights[name] = value.detach().cpu()
        if not all(bool(weights[name].isfinite().all()) for name in covered):
            raise DataError(
                f"Expected a finite step for root {record.id!r}, but it diverged. Choose another "
                "root method."
            )
        return UnlearnedRoot(weights, note=f"{strength:.3g} of a Gauss-Newton step{note}")


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """The root at several strengths of a step.

    Attributes:
        problem: the root.
        network: its module; it takes the weights of a strength.
        step: at strength 1.
        names: parameters that change.
    """

    problem: RootProblem
    network: nn.Module
    step: Step
    names: Sequence[str]

    def at(self, strength: float) -> dict[str, Tensor]:
        """Return the changed parameters, with unchanged dtypes."""
        changed = {}
        for name in self.names:
            old = self.problem.weights[name]
            delta = self.step.change[name].reshape(old.shape)
            changed[name] = (old.to(delta.dtype) + strength * delta).to(old.dtype)
        return changed

    def outputs(self, strength: float, batches: Batches) -> tuple[Tensor, Tensor]:
        """Return logits `[n, C]` and targets `[n]` at a strength, on the CPU."""
        self.network.load_state_dict(self.at(strength), strict=False)
        return ShrinkingBatches(batches).run(lambda fitting: _outputs(self.network, fitting))


def _step(problem: RootProblem, network: nn.Module) -> Step:
    owner, record, forget = problem.owner, problem.record, problem.forget
    curvature = owner.store.curvature(record.id)
    assert curvature is not None
    assert forget is not None
    for name in curvature.names:
        if (dtype := problem.weights[name].dtype) not in TRAINABLE:
            raise DataError(
                f"Expected floating-point weights in root {record.id!r}, but {name!r} is {dtype}. "
                "Choose another root method."
            )
    batches = ShrinkingBatches(forget)
    found = batches.run(lambda fitting: gradients(network, curvature, fitting, owner.device))
    removed = batches.run(lambda fitting: squares(network, curvature, fitting, owner.device))
    count = sum(len(targets) for _, targets in forget)
    return newton_step(curvature, found, removed, count)


def _least(step: Step) -> tuple[float, str]:
    """Return the strength without a tuning split."""
    trusted = math.sqrt(MOST_RISE / step.rise) if step.rise > 0 else math.inf
    return min(UNTUNED, trusted), ", not tuned"


def _tuned(candidates: _Candidates, tuning: Batches) -> tuple[float, str]:
    """Return the least strength at which the samples look unseen, and how it was found."""
    problem = candidates.problem
    assert problem.forget is not None
    known, kept = candidates.outputs(0, problem.forget), candidates.outputs(0, tuning)
    relabelled = _is_relabelled(known, kept)
    before, first = F.cross_entropy(*kept).item(), _recognised(known, kept, relabelled)
    best = None
    for strength in STRENGTHS:
        known, kept = (candidates.outputs(strength, one) for one in (problem.forget, tuning))
        after = F.cross_entropy(*kept).item()
        if not after <= before + MOST_RISE:  # including NaN
            break
        now = _recognised(known, kept, relabelled)
        best = strength, after, now
        if now <= 0.5 if first > 0.5 else strength >= UNTUNED:
            break
    if best is None:
        raise DataError(
            f"Expected a step for root {problem.record.id!r} that raises the loss on the tuning "
            f"split by at most {MOST_RISE:g}, but {STRENGTHS[0]:g} of it does by "
            f"{after - before:.2g}. Choose another root method."
        )
    strength, after, now = best
    return strength, (
        f", loss on the tuning split {before:.3f} to {after:.3f}, attack on losses {first:.3f} to "
        f"{now:.3f}"
    )


def _recognised(
    known: tuple[Tensor, Tensor], kept: tuple[Tensor, Tensor], relabelled: bool
) -> float:
    """Return how well the attack on losses tells samples to forget from unseen ones.

    0.5 is a guess.  Samples with wrong labels are less confident than any, seen or unseen, so they
    are compared with unseen samples that have wrong labels as well: in the share in which samples
    to forget are classified otherwise than they are labelled.
    """
    scores = confidence(*known)
    logits, targets = kept
    right = area_under_curve(scores, confidence(logits, targets))
    if not relabelled:
        return right
    classes = logits.shape[1]
    others = [(targets + k) % classes for k in range(1, min(classes, WRONG_LABELS + 1))]
    wrong = area_under_curve(scores, torch.cat([confidence(logits, one) for one in others]))
    share = 1 - min(1.0, _accuracy(known) / max(_accuracy(kept), 1e-9))
    return (1 - share) * right + share * wrong


def _is_relabelled(known: tuple[Tensor, Tensor], kept: tuple[Tensor, Tensor]) -> bool:
    """Whether a root recognises its own samples worse than unseen ones: so their labels are odd."""
    expected = _accuracy(kept)
    error = math.sqrt(expected * (1 - expected) * (1 / len(known[1]) + 1 / len(kept[1])))
    return _accuracy(known) < expected - 3 * error


def _accuracy(outputs: tuple[Tensor, Tensor]) -> float:
    logits, targets = outputs
    return (logits.argmax(dim=1) == targets).double().mean().item()


@torch.no_grad()
def _outputs(network: nn.Module, batches: Batches) -> tuple[Tensor, Tensor]:
    device = next(network.parameters()).device
    logits, targets = [], []
    for inputs, classes in batches:
        logits.append(widened(network(*to_device(as_arguments(inputs), device))).cpu())
        targets.append(classes.cpu())
    return torch.cat(logits), torch.cat(targets)
