"""Shadow models: how confident a network is in a sample that it was, or was not, trained on.

Every target sample is in the training set of one half of the shadow models and not in that of the
other half.  They are trained as the root was: from the same start, which its parents are, with the
same settings, on all that it keeps and a half of the targets.  So the attacker knows everything
but who is a member and in which order samples came.  What descendants do with a root is not
replayed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.common.errors import InputError
from disinherit.common.models.membership import confidence
from disinherit.simulations.bench.cases.subjects import Case, Samples
from disinherit.simulations.bench.panel.outputs import logits_of

TARGETS = 200
"""Members to attack at most, and as many non-members."""


@dataclass(frozen=True, slots=True, eq=False)
class Shadows:
    """What shadow models say about target samples.

    Attributes:
        samples: the targets, members first.
        members: how many of them are members.
        inside: mean confidence `[n]` of the models that were trained on each.
        outside: mean confidence `[n]` of those that were not.
        variance: of the confidence around those means, pooled over all targets and both kinds.
            The authors advise one over the targets for few shadow models; it is one for both kinds
            because unlearned models lie outside of what shadow models show, where the kind with
            the larger variance would win whatever was observed.
    """

    samples: Samples
    members: int
    inside: Tensor
    outside: Tensor
    variance: float

    def likelihood_ratio(self, observed: Tensor) -> Tensor:
        """Return log N(observed; inside) - log N(observed; outside) `[n]` in float64."""
        inside, outside = self.inside.double(), self.outside.double()
        middle = (inside + outside) / 2
        return (inside - outside) * (observed.double() - middle) / self.variance


def train_shadows(case: Case, root: str, count: int) -> Shadows | None:
    """Train shadow models of a root.

    Args:
        case: the case.
        root: one of its roots.
        count: number of models, even and at least 4.

    Returns:
        What they say; `None` if there is no non-member to compare with.

    Raises:
        InputError: if the count is odd or too low.
    """
    if count < 4 or count % 2:
        raise InputError(f"Expected an even number of shadow models, 4 or more, but got {count}.")
    subject = case.subjects[root]
    generator = torch.Generator().manual_seed(case.seed)
    held = subject.test_forget if len(subject.test_forget) else subject.test_retain
    targets, members = _targets(case.forget_at_root[root], held, generator)
    if targets is None:
        return None
    seen = halves(count, len(targets), generator)
    found = []
    for inside in seen:
        data = Samples.joined([targets[inside], subject.retain])
        seed = int(torch.randint(2**31, (), generator=generator))
        network = subject.network(case.refit(root, data, seed))
        found.append(confidence(logits_of(network, targets), targets.targets))
    return Shadows(targets, members, *statistics(torch.stack(found), seen))


def halves(count: int, targets: int, generator: torch.Generator) -> Tensor:
    """Return which of `count` models see which target, `[count, n]`: each is seen by one half."""
    order = torch.rand(count, targets, generator=generator).argsort(dim=0)
    return order < count // 2


def statistics(confidences: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the means inside and outside `[n]`, and the pooled variance.

    Args:
        confidences: of each model in each target, `[K, n]` float64.
        seen: whether the model was trained on the target, `[K, n]`; as many as not per target.
    """
    means, squares = [], 0.0
    for mask in (seen, ~seen):
        mean = (confidences * mask).sum(dim=0) / mask.sum(dim=0)
        squares += ((confidences - mean) ** 2 * mask).sum().item()
        means.append(mean)
    freedom = confidences.numel() - 2 * confidences.shape[1]
    return means[0], means[1], max(squares / freedom, 1e-12)


def _targets(
    forget: Samples, held: Samples, generator: torch.Generator
) -> tuple[Samples | None, int]:
    if not len(held):
        return None, 0
    chosen = []
    for samples in (forget, held):
        order = torch.randperm(len(samples), generator=generator)
        chosen.append(samples[order[:TARGETS]])
    return Samples.joined(chosen), len(chosen[0])
