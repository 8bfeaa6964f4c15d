"""The panel: all metrics, measured on one model."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from disinherit.common.errors import NotMeasuredError
from disinherit.simulations.bench.cases.subjects import Weights
from disinherit.simulations.bench.panel.accuracies import (
    class_accuracy,
    forget_accuracy,
    retain_accuracy,
    test_accuracy,
)
from disinherit.simulations.bench.panel.attacks import lira, loss_attack
from disinherit.simulations.bench.panel.distances import neighbour_leakage, output_distances
from disinherit.simulations.bench.panel.exam import EvaluationContext, ModelUnderTest
from disinherit.simulations.bench.panel.margins import margin_divergences
from disinherit.simulations.bench.panel.merging import merged_accuracy
from disinherit.simulations.bench.panel.probing import linear_probe
from disinherit.simulations.bench.panel.quantisation import int4_accuracy, int8_accuracy
from disinherit.simulations.bench.panel.relearning import (
    few_shot_relearning,
    other_data_relearning,
    retain_only_relearning,
)
from disinherit.simulations.bench.panel.tug_of_war import tug_of_war

Metric = Callable[[EvaluationContext, ModelUnderTest], dict[str, float]]

METRICS: Mapping[tuple[str, ...], Metric] = {
    ("forget_accuracy",): forget_accuracy,
    ("retain_accuracy",): retain_accuracy,
    ("test_accuracy",): test_accuracy,
    ("class_accuracy",): class_accuracy,
    (
        "js_divergence_forget",
        "js_divergence_retain",
        "logit_distance_forget",
        "logit_distance_retain",
    ): output_distances,
    ("lira_tpr", "lira_auc"): lira,
    ("loss_attack_auc",): loss_attack,
    ("relearn_steps_few_shot",): few_shot_relearning,
    ("relearn_steps_retain_only",): retain_only_relearning,
    ("relearn_other_forget_accuracy",): other_data_relearning,
    ("probe",): linear_probe,
    ("tug_of_war",): tug_of_war,
    ("neighbour_leakage", "goes_to"): neighbour_leakage,
    ("int8_forget_accuracy", "int8_retain_accuracy"): int8_accuracy,
    ("int4_forget_accuracy", "int4_retain_accuracy"): int4_accuracy,
    ("merged_forget_accuracy", "merged_retain_accuracy"): merged_accuracy,
    ("margin_divergence_forget", "margin_divergence_held_out"): margin_divergences,
}
"""Names -> what measures them; a name may stand for several values, `name/part`."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """The panel of one model with some weights.

    Attributes:
        values: name, or `name/part`, -> value.
        missing: name -> why it could not be measured.
    """

    values: dict[str, float]
    missing: dict[str, str]


def measure(exam: EvaluationContext, weights: Weights) -> Metrics:
    """Measure everything on a subject with given weights.

    A metric that cannot be measured is missing, with the reason; it is never taken for a zero.
    """
    candidate = exam.candidate(weights)
    readings = Metrics({}, {})
    for names, metric in METRICS.items():
        try:
            found = metric(exam, candidate)
        except NotMeasuredError as error:
            readings.missing.update(dict.fromkeys(names, str(error)))
            continue
        for name, value in found.items():
            if math.isfinite(value):
                readings.values[name] = value
            else:
                readings.missing[name] = f"it came out as {value}: the outputs are not finite"
        whole = {name.partition("/")[0] for name in found}
        absent = [name for name in names if name not in whole]
        readings.missing.update(dict.fromkeys(absent, "there are no samples to measure it on"))
    return readings
