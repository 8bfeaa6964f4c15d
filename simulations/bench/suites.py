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
from typing import Any

from disinherit.common.errors import InputError
from disinherit.common.parsing import load_toml
from disinherit.simulations.cases import CaseSpec
from disinherit.simulations.datasets import Dataset, load_dataset
from disinherit.simulations.methods.method import make_method
from disinherit.simulations.panel.exam import PanelSettings
from disinherit.simulations.scenarios import load_scenario
from disinherit.simulations.settings import Settings, parse_forget

_KEYS = {"seeds", "methods", "panel", "aims", "defaults", "cases"}
_CASE_KEYS = {"label", "scenario", "granularity", "samples", "root", "forget", "settings"}


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
                f"{source!r}: {error}."
            ) from None
    try:
        values = load_toml(text)
    except ValueError as error:
        raise InputError(f"Expected TOML in suite {source!r}, but: {error}.") from None
    return _suite(Path(source).stem, values)


def _suite(name: str, values: Mapping[str, Any]) -> Suite:
    where = f"suite {name!r}"
    _check_keys(values, _KEYS, where)
    seeds, listed, methods = (values.get(key, []) for key in ("seeds", "cases", "methods"))
    if not seeds or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise InputError(f"Expected distinct seeds in {where}, but got {seeds!r}.")
    if not listed or not methods:
        raise InputError(f"Expected cases and methods in {where}, but one of them is missing.")
    try:
        panel = PanelSettings(**values.get("panel", {}))
    except (TypeError, InputError) as error:
        raise InputError(f"Expected panel settings in {where}, but: {error}") from None
    load = cache(load_dataset)
    cases = tuple(
        SuiteCase(case["label"], _case(case, values.get("defaults", {}), seed, where, load))
        for case in map(_labelled, listed)
        for seed in seeds
    )
    methods = tuple(map(_method, methods))
    found = Suite(name, cases, methods, panel, _aims(values.get("aims"), methods, where))
    for what, labels in (
        ("methods", [method.label for method in found.methods]),
        ("cases", [case["label"] for case in listed]),
    ):
        if len(set(labels)) < len(labels):
            raise InputError(f"Expected {what} with distinct labels in {where}, but got {labels}.")
    return found


def _labelled(case: Any) -> Mapping[str, Any]:
    if not isinstance(case, dict) or not isinstance(case.get("label"), str):
        raise InputError(f"Expected cases with a label, but got {case!r}.")
    _check_keys(case, _CASE_KEYS, f"case {case['label']!r}")
    return case


def _case(
    case: Mapping[str, Any],
    defaults: Mapping[str, Any],
    seed: int,
    where: str,
    load: Callable[[str], Dataset],
) -> CaseSpec:
    settings = {"dataset": "mnist5k", **defaults, **case.get("settings", {}), "seed": seed}
    scenario = load_scenario(case.get("scenario", "federated"))
    forget = {}
    if "forget" in case:
        forget = parse_forget(case["forget"], load(settings["dataset"]), scenario)
    try:
        return CaseSpec(
            Settings(scenario=scenario, forget=forget, **settings),
            case.get("granularity", "class"),
            case.get("samples", 0),
            case.get("root", ""),
        )
    except (TypeError, InputError) as error:
        raise InputError(f"In case {case['label']!r} of {where}: {error}") from None


def _method(value: Any) -> MethodSpec:
    listed: Any = {"name": value} if isinstance(value, str) else value
    if not isinstance(listed, dict) or not isinstance(listed.get("name"), str):
        raise InputError(f"Expected a method by name, or a table with one, but got {value!r}.")
    _check_keys(listed, {"name", "label", "options"}, f"method {listed['name']!r}")
    name: str = listed["name"]
    spec = MethodSpec(name, listed.get("label", name), listed.get("options", {}))
    make_method(spec.name, spec.options)
    return spec


def _aims(value: Any, methods: Sequence[MethodSpec], where: str) -> Aims | None:
    if value is None:
        return None
    labels = [method.label for method in methods]
    judged = value.get("methods") if isinstance(value, dict) else None
    if (
        not judged
        or not isinstance(judged, list)
        or value.keys() != {"methods", "rival"}
        or any(label not in labels for label in [*judged, value["rival"]])
    ):
        raise InputError(
            f"Expected aims of {where} with the labels of methods and of their rival, all among "
            f"{', '.join(labels)}, but got {value!r}."
        )
    return Aims(tuple(judged), value["rival"])


def _check_keys(values: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(values.keys() - known):
        raise InputError(
            f"Expected {', '.join(sorted(known))} in {where}, but got {unknown[0]!r} too."
        )


def declaration(suite: Suite) -> dict[str, Any]:
    """Return a suite as JSON values: the same values, the same figures but for the clock."""
    return {
        "name": suite.name,
        "cases": [{"label": case.label, **case.spec.to_dict()} for case in suite.cases],
        "methods": [dataclasses.asdict(method) for method in suite.methods],
        "panel": dataclasses.asdict(suite.panel),
        "aims": None if suite.aims is None else dataclasses.asdict(suite.aims),
    }
