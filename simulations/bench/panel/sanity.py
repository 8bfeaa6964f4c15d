"""Sanity gates: a panel that the original model passes, or the retrained fails, shows nothing.

disjoint    training, tuning and held-out samples of every subject have nothing in common
original    at every root the original model is found to know what is to be forgotten
retrained   no retrained model is
"""

import hashlib
import math
from collections.abc import Mapping

from torch import Tensor

from disinherit.simulations.bench.cases.subjects import Case, Samples, Subject
from disinherit.simulations.bench.panel.exam import PanelSettings
from disinherit.simulations.bench.panel.measuring import Metrics
from disinherit.simulations.bench.panel.shadows import TARGETS

FORGOTTEN_BELOW = 10.0
"""Percent of held-out samples of a forgotten class, or with the trigger of a forgotten backdoor,
that a model may still name so: what a guess among ten classes gets right."""

_DUPLICATES = 0.005
"""Share of a split that may occur in another one: data sets hold the same sample twice."""

_ERRORS = 3.0
"""Standard errors of a guess that an attack may be better than one."""


def check_gates(
    case: Case,
    settings: PanelSettings,
    original: Mapping[str, Metrics],
    retrained: Mapping[str, Metrics],
) -> list[str]:
    """Return what is wrong with a case; nothing if its figures mean something.

    Args:
        case: the case.
        settings: how much was spent on the panels.
        original: subject -> panel of the original model.
        retrained: subject -> panel of the retrained one.
    """
    found = []
    for model, subject in case.subjects.items():
        found += overlaps(subject)
        reason = remembers(case, settings, model, retrained[model])
        if reason:
            found.append(f"The retrained {model} fails the panel: {reason}.")
    for root in case.roots:
        if not remembers(case, settings, root, original[root]):
            found.append(
                f"The original {root} passes the panel, so forgetting would not show in it."
            )
    return found


def remembers(case: Case, settings: PanelSettings, model: str, readings: Metrics) -> str:
    """Return how a model is found to know what is to be forgotten, or `""`.

    Classes and backdoors: by naming held-out samples of them.  Other samples: by a membership
    inference attack that is better than a guess, by more than three standard errors of a guess.
    """
    if len(case.subjects[model].test_forget):
        accuracy = readings.values.get("forget_accuracy")
        if accuracy is not None and accuracy > FORGOTTEN_BELOW:
            return f"forget accuracy is {accuracy:.1f}%"
        return ""
    members = len(case.to_forget(model))
    others = len(case.subjects[model].test_retain)
    for name, most in (("loss_attack_auc", settings.samples), ("lira_auc", TARGETS)):
        area = readings.values.get(name)
        if area is not None:
            error = guess_error(min(members, most), min(others, most))
            if area > 0.5 + _ERRORS * error:
                return f"{name} is {area:.3f}"
    return ""


def guess_error(members: int, others: int) -> float:
    """Return the standard error of the area under the curve of an attack that guesses.

    That of the Mann-Whitney statistic where both kinds score alike: sqrt((n + m + 1) / (12 n m)).
    """
    return math.sqrt((members + others + 1) / (12 * members * others))


def overlaps(subject: Subject) -> list[str]:
    """Return which splits of a subject share samples, beyond what data sets repeat by themselves.

    Samples are compared by content, input and class.
    """
    names = ("forget", "retain", "tuning", "test_forget", "test_retain")
    hashes = {name: _hashes(getattr(subject, name)) for name in names}
    found = []
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            common = len(hashes[one] & hashes[other])
            smaller = min(len(hashes[one]), len(hashes[other]))
            if common > _DUPLICATES * smaller:
                found.append(
                    f"The splits {one} and {other} of {subject.id} are not disjoint: {common} of "
                    f"{smaller} samples are in both."
                )
    return found


def _hashes(samples: Samples) -> set[bytes]:
    return {
        hashlib.sha256(_bytes(x) + _bytes(y)).digest()
        for x, y in zip(samples.inputs, samples.targets, strict=True)
    }


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().numpy().tobytes()
