"""The interface of unlearning methods in the bench, and their entry points.

A method is made by a factory with options and called with a view of a case; it returns new weights
for the affected models.  Factories are entry points of the group `disinherit.methods`, so another
package adds its own to the comparison by naming it there::

    [project.entry-points."disinherit.methods"]
    mine = "my_package.unlearning:MyMethod"
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from disinherit.common.entry_points import installed
from disinherit.common.errors import InputError
from disinherit.simulations.bench.cases.subjects import MethodCase, Weights

GROUP = "disinherit.methods"


@dataclass(frozen=True, slots=True, eq=False)
class Unlearned:
    """What a method made of a case.

    Attributes:
        weights: new weights by affected model; one that is left out stays as it was.
        sent: bytes that went to and from each owner, without registration.
        setup_seconds: of the time it took, what a deployment did when the models were trained.
        setup_cpu_seconds: of the CPU seconds that it took, the same.
        tune_seconds: of the time it took, what went into choosing hyper-parameters.
        chosen: model -> the hyper-parameters that were chosen on its tuning split, for the record.
    """

    weights: Mapping[str, Weights]
    sent: Mapping[str, int] = field(default_factory=dict)
    setup_seconds: float = 0.0
    setup_cpu_seconds: float = 0.0
    tune_seconds: float = 0.0
    chosen: Mapping[str, Any] = field(default_factory=dict)


Method = Callable[[MethodCase], Unlearned | Mapping[str, Weights]]
"""Unlearns in a view of a case; outsiders may return nothing but weights."""


def known_methods() -> list[str]:
    """Return the names of the methods that are installed."""
    return list(installed(GROUP))


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return an installed method.

    Args:
        name: of its entry point.
        options: of its factory.

    Returns:
        The method.

    Raises:
        InputError: if there is no such method, it cannot be loaded, or has no such option.
    """
    point = installed(GROUP).get(name)
    if point is None:
        raise InputError(
            f"Expected a method among {', '.join(known_methods())}, but got {name!r}. Install the "
            f"package that has it as an entry point of {GROUP!r}."
        )
    try:
        method: Method = point.load()(**options)
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"Expected method {name!r} to take the options {dict(options)}, but got: {error}."
        ) from error
    return method


def unlearn(method: Method, case: MethodCase) -> Unlearned:
    """Call a method and return what it made, complete: weights for every affected model.

    Raises:
        InputError: if it returned weights of a model that is not affected, or that do not fit.
    """
    outcome = method(case)
    made = outcome if isinstance(outcome, Unlearned) else Unlearned(outcome)
    if surplus := [name for name in made.weights if name not in case.subjects]:
        raise InputError(f"Expected weights of affected models only, but got some of {surplus}.")
    weights = {}
    for name, subject in case.subjects.items():
        weights[name] = made.weights.get(name, subject.original)
        shapes = {key: value.shape for key, value in weights[name].items()}
        if shapes != {key: value.shape for key, value in subject.original.items()}:
            raise InputError(
                f"Expected weights of model {name!r} with its names and shapes, but got others."
            )
    return replace(made, weights=weights)
