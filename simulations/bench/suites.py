"""Suites as small TOML files: which cases, which methods, which seeds.

::

    seeds = [0, 1, 2]
    methods = ["no-op", "ours", { name = "ours", label = "ours-all", options = { scope = "all" } }]

    [panel]                            # `PanelSettings`, all of it optional
    shadows = 8

    [aims]                             # optional: what is judged in the report
    methods = ["ours-all"]             # labels of the methods that are judged
    rival = "no-op"                    # label of the method that is never to be better

    [defaults]                         # of the settings of every case, all of it optional
    dataset = "fashion-mnist"

    [[cases]]
    label = "federated, one class"     # the seeds of one label are summarised together
    scenario = "federated"
    forget = ["3"]                     # classes, as for `disinherit simulate`: 3, Sneaker, 3@r2

    [[cases]]
    label = "federated, 30 samples"
    granularity = "samples"
    samples = 30
    settings = { epochs = 8 }          # of this case

The files in the folder `suites` are those that have a name.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, field

from disinherit.common.errors import InputError
from disinherit.common.settings import Table, check, parse
from disinherit.common.text import did_you_mean
from disinherit.simulations.bench.cases.cases import CaseSpec
from disinherit.simulations.bench.cases.subjects import Granularity
from disinherit.simulations.bench.methods.method import make_method
from disinherit.simulations.bench.panel.exam import PanelSettings
from disinherit.simulations.data.datasets import Dataset, load_dataset
from disinherit.simulations.scenario.scenarios import load_scenario
from disinherit.simulations.scenario.settings import Settings, parse_forget

_LABELS = "labels of methods and of their rival"


class _Method(Table):
    name: str
    label: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


class _Case(Table):
    label: str
    scenario: str = "federated"
    granularity: Granularity = "class"
    samples: int = 0
    root: str = ""
    forget: list[str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


class _Aims(Table):
    methods: Annotated[tuple[str, ...], Meta(min_length=1, description=_LABELS)]
    rival: Annotated[str, Meta(description=_LABELS)]


class _SuiteFile(Table):
    seeds: Annotated[list[int], Meta(min_length=1)]
    methods: Annotated[list[str | _Method], Meta(min_length=1)]
    cases: Annotated[list[_Case], Meta(min_length=1)]
    panel: dict[str, Any] = field(default_factory=dict)
    aims: _Aims | None = None
    defaults: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A method with its options, under the label that the report shows."""

    name: str
    label: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SuiteCase:
    """A case of a suite; the seeds of one label are summarised together."""

    label: str
    spec: CaseSpec


@dataclass(frozen=True, slots=True)
class Aims:
    """What the report judges.

    Attributes:
        methods: labels of the methods that are judged.
        rival: label of the method that is never to be better.
    """

    methods: tuple[str, ...]
    rival: str


@dataclass(frozen=True, slots=True)
class Suite:
    """What is run.

    Attributes:
        name: of the suite.
        cases: one for each label and seed.
        methods: all are run on every case.
        panel: how much is spent on measuring.
        aims: what the report judges, if anything.
    """

    name: str
    cases: tuple[SuiteCase, ...]
    methods: tuple[MethodSpec, ...]
    panel: PanelSettings
    aims: Aims | None = None


def known_suites() -> list[str]:
    """Return the names of the suites that are part of the package."""
    found = files(__package__).joinpath("suites").iterdir()
    return sorted(Path(entry.name).stem for entry in found if entry.name.endswith(".toml"))


def load_suite(source: str) -> Suite:
    """Return a suite by its name or from a TOML file.

    Args:
        source: one of `known_suites()`, or the path of a file.

    Raises:
        InputError: if there is no such suite, or something in it makes no sense.
    """
    if source in known_suites():
        text = files(__package__).joinpath("suites", f"{source}.toml").read_text("utf-8")
    else:
        try:
            text = Path(source).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"Expected a suite, one of {', '.join(known_suites())} or a TOML file, but got "
                f"{source!r}: {getattr(error, 'strerror', None) or error}."
                f"{did_you_mean(source, known_suites())}"
            ) from None
    name = Path(source).stem
    return _suite(name, parse(_SuiteFile, text, f"suite {name!r}"))


def _suite(name: str, found: _SuiteFile) -> Suite:
    where = f"suite {name!r}"
    if len(set(found.seeds)) < len(found.seeds):
        raise InputError(f"Expected distinct seeds in {where}, but got {found.seeds!r}.")
    panel = check(PanelSettings, found.panel, f"the panel of {where}")
    load = cache(load_dataset)
    cases = tuple(
        SuiteCase(case.label, _case(case, found.defaults, seed, where, load))
        for case in found.cases
        for seed in found.seeds
    )
    methods = tuple(map(_method, found.methods))
    for what, labels in (
        ("methods", [method.label for method in methods]),
        ("cases", [case.label for case in found.cases]),
    ):
        if len(set(labels)) < len(labels):
            raise InputError(f"Expected {what} with distinct labels in {where}, but got {labels}.")
    return Suite(name, cases, methods, panel, _aims(found.aims, methods, where))


def _case(
    case: _Case,
    defaults: Mapping[str, Any],
    seed: int,
    where: str,
    load: Callable[[str], Dataset],
) -> CaseSpec:
    settings = {"dataset": "mnist5k", **defaults, **case.settings, "seed": seed}
    scenario = load_scenario(case.scenario)
    forget = {}
    if case.forget is not None:
        forget = parse_forget(case.forget, load(settings["dataset"]), scenario)
    try:
        return CaseSpec(
            Settings(scenario=scenario, forget=forget, **settings),
            case.granularity,
            case.samples,
            case.root,
        )
    except (TypeError, InputError) as error:
        raise InputError(f"In case {case.label!r} of {where}: {error}") from None


def _method(listed: str | _Method) -> MethodSpec:
    found = _Method(name=listed) if isinstance(listed, str) else listed
    make_method(found.name, found.options)
    label = found.name if found.label is None else found.label
    return MethodSpec(found.name, label, found.options)


def _aims(found: _Aims | None, methods: Sequence[MethodSpec], where: str) -> Aims | None:
    if found is None:
        return None
    labels = [method.label for method in methods]
    for label in (*found.methods, found.rival):
        if label not in labels:
            raise InputError(
                f"Expected {_LABELS}, all among {', '.join(labels)}, as aims in {where}, but got "
                f"{label!r}."
            )
    return Aims(found.methods, found.rival)


def declaration(suite: Suite) -> dict[str, Any]:
    """Return a suite as JSON values: the same values, the same figures but for the clock."""
    return {
        "name": suite.name,
        "cases": [{"label": case.label, **case.spec.to_dict()} for case in suite.cases],
        "methods": [dataclasses.asdict(method) for method in suite.methods],
        "panel": dataclasses.asdict(suite.panel),
        "aims": None if suite.aims is None else dataclasses.asdict(suite.aims),
    }
