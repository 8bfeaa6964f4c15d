"""EK-FAC step: one damped Gauss-Newton step away from the samples to forget.

It needs only these samples, and the curvature that was registered when the model was trained, so
the retained data may be gone.  It covers linear layers and convolutions; other layers stay as they
are.  One step, never several: with the gradients of fitted samples, a second one explodes.

The strength is the least at which the samples look unseen to the attack on losses, on the owner's
tuning split, where it may cost at most `MOST_RISE`.  Wrong labels that the root has fitted entirely
show as they are forgotten, at that strength or the next.  Without a tuning split, or if the attack
tells nothing even before, it is `UNTUNED`, and at most what the registered curvature predicts to
cost as much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from disinherit.client.owner.batches import ShrinkingBatches
from disinherit.client.owner.owner import Batches, load_network
from disinherit.client.privacy.remaining import tuning_data
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot
from disinherit.client.roots.training import TRAINABLE
from disinherit.client.roots.unseen import MOST_RISE, Seen, outputs
from disinherit.common.curvature.ekfac import gradients, squares
from disinherit.common.curvature.step import Step, newton_step
from disinherit.common.errors import DataError

STRENGTHS = tuple(2 ** (power / 2) for power in range(-8, 1))
"""Shares of the whole step, from the weakest."""

UNTUNED = 0.25
"""Share of the step that is taken where nothing can be tuned."""


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

    def seen(self, strength: float, tuning: Batches) -> Seen:
        """Return what the root at a strength makes of samples to forget and of unseen ones."""
        assert self.problem.forget is not None
        self.network.load_state_dict(self.at(strength), strict=False)
        return Seen(outputs(self.network, self.problem.forget), outputs(self.network, tuning))


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
    first = candidates.seen(0, tuning)
    bearable: list[tuple[float, Seen]] = []
    for strength in STRENGTHS:
        seen = candidates.seen(strength, tuning)
        if not seen.loss <= first.loss + MOST_RISE:  # including NaN
            break
        bearable.append((strength, seen))
    if not bearable:
        raise DataError(
            f"Expected a step for root {candidates.problem.record.id!r} that raises the loss on "
            f"the tuning split by at most {MOST_RISE:g}, but {STRENGTHS[0]:g} of it does by "
            f"{seen.loss - first.loss:.2g}. Choose another root method."
        )
    odd, place = 0.0, _first_unseen(first, bearable, 0.0)
    if any(one.tells_odd for one in (first, *(seen for _, seen in bearable[: place + 2]))):
        odd = max(seen.odd for _, seen in bearable)  # the less they are remembered, the more tell
        place = _first_unseen(first, bearable, odd)
    strength, seen = bearable[place]
    return strength, (
        f", loss on the tuning split {first.loss:.3f} to {seen.loss:.3f}, attack on losses "
        f"{first.attack(odd):.3f} to {seen.attack(odd):.3f}"
    )


def _first_unseen(first: Seen, bearable: Sequence[tuple[float, Seen]], odd: float) -> int:
    """Return the place of the least strength at which samples look unseen, else of the largest.

    Where the attack tells nothing even before, `UNTUNED` is enough.
    """
    tells = first.attack(odd) > 0.5
    for place, (strength, seen) in enumerate(bearable):
        if seen.attack(odd) <= 0.5 if tells else strength >= UNTUNED:
            return place
    return len(bearable) - 1
