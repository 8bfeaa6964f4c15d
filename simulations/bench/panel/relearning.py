"""Relearning: steps until forget accuracy is what it was before, or what other data brings back.

What does not come back within the steps that are spent counts as that number of steps, so figures
at the limit mean "at least".
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from disinherit.common.errors import NotMeasuredError
from disinherit.common.models.descent import minimise
from disinherit.simulations.bench.cases.subjects import Samples
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest, some
from disinherit.simulations.bench.panel.outputs import logits_of

TOLERANCE = 5.0
"""Percent points below the original's forget accuracy at which it counts as back."""

_WATCHED = 100


def few_shot_relearning(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Steps with a few samples of what was forgotten and as many of the rest."""
    few, others = _shots(exam.need("forget"), exam.settings.shots)
    watched = exam.splits["test_forget"] if exam.forget_split == "test_forget" else others
    data = Samples.joined([few, exam.splits["retain"][: len(few)]])
    return {"relearn_steps_few_shot": _steps(exam, candidate, data, watched)}


def retain_only_relearning(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Steps with retained data only, as when a device trains on: forgetting should last."""
    watched = exam.splits[exam.forget_split]
    return {"relearn_steps_retain_only": _steps(exam, candidate, exam.need("retain"), watched)}


def other_data_relearning(exam: EvaluationContext, candidate: ModelUnderTest) -> dict[str, float]:
    """Forget accuracy after all steps on data that no model has seen: held out, nothing forgotten.

    What benign training on other data brings back was not forgotten, but hidden.
    """
    exam.need(exam.forget_split)
    network, _ = _trained_on(exam, candidate, exam.need("test_retain"))
    tested = exam.candidate(network.state_dict())
    share = tested.correct(exam.forget_split).double().mean().item()
    return {"relearn_other_forget_accuracy": 100.0 * share}


def _shots(samples: Samples, most: int) -> tuple[Samples, Samples]:
    """Return a few samples of each class, no more than a half of them, and the others."""
    chosen = torch.zeros(len(samples), dtype=torch.bool)
    for index in samples.targets.unique().tolist():
        positions = (samples.targets == index).nonzero().flatten()
        chosen[positions[: min(most, (len(positions) + 1) // 2)]] = True
    return samples[chosen], samples[~chosen]


def _steps(
    exam: EvaluationContext, candidate: ModelUnderTest, data: Samples, watched: Samples
) -> float:
    if not len(watched):
        raise NotMeasuredError("no sample of what is forgotten is left to watch")
    watched = some(watched, _WATCHED, exam.case.seed)

    def accuracy(logits: torch.Tensor) -> float:
        return 100.0 * (logits.argmax(dim=1) == watched.targets).double().mean().item()

    goal = accuracy(logits_of(exam.original.network, watched)) - TOLERANCE
    _, steps = _trained_on(
        exam, candidate, data, lambda network: accuracy(logits_of(network, watched)) >= goal
    )
    return float(steps)


def _trained_on(
    exam: EvaluationContext,
    candidate: ModelUnderTest,
    data: Samples,
    enough: Callable[[nn.Module], bool] = lambda _: False,
) -> tuple[nn.Module, int]:
    """Return a copy of a candidate that was trained on, and the steps that it took."""
    network = exam.candidate(candidate.network.state_dict()).network
    steps = minimise(
        network,
        lambda chosen: F.cross_entropy(network(data.inputs[chosen]), data.targets[chosen]),
        len(data),
        steps=exam.settings.relearn_steps,
        learning_rate=exam.settings.learning_rate,
        seed=exam.case.seed,
        enough=lambda: enough(network),
    )
    return network, steps
