"""Finished runs and benchmarks in a folder, as values of pages; nothing is written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from disinherit.common.errors import DisinheritError, NotFoundError
from disinherit.common.text import load_json
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import ModelFigures, RunReport
from disinherit.ui.heat import heat_map

_DEPTH = 3
_FIGURES = ("forget_accuracy", "retain_accuracy")
_DONE = ("applied", "already_applied")


class Runs:
    """The runs in a folder.

    Args:
        folder: the folder; it may be a run itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def overview(self) -> Mapping[str, Any]:
        """Return all finished runs, the newest first, and all benchmarks."""
        runs, damaged = [], []
        for place in self._places("report.json"):
            try:
                runs.append(_summary(place, _read(self.folder / place)))
            except DisinheritError as error:
                damaged.append({"id": place, "problem": str(error)})
        runs.sort(key=lambda one: str(one["created"]), reverse=True)
        benches = [self._bench(place) for place in self._places("results.jsonl")]
        return {"runs": runs, "benches": benches, "damaged": damaged}

    def one(self, place: str) -> Mapping[str, Any]:
        """Return a run with the figures of its models.

        Raises:
            NotFoundError: if there is no such run.
        """
        folder = self._folder(place)
        if not (folder / "report.json").is_file():
            bench = self._bench(place)
            return {"run": {"id": place}, "models": [], "page": bench["page"], "bench": bench}
        report = _read(folder)
        return {
            "bench": None,
            "run": _summary(place, report),
            "models": [_model(one) for one in report["models"]],
            "page": self._has_page(folder),
        }

    def compared(self, first: str, second: str) -> Mapping[str, Any]:
        """Return two runs, and the figures of the models that either has.

        Raises:
            NotFoundError: if there is no such run.
        """
        one, other = _read(self._folder(first)), _read(self._folder(second))
        ours = {model["id"]: _model(model) for model in one["models"]}
        theirs = {model["id"]: _model(model) for model in other["models"]}
        models = list(dict.fromkeys([*ours, *theirs]))
        return {
            "runs": [_summary(first, one), _summary(second, other)],
            "settings": _differences(one, other),
            "models": [
                {"model": model, "first": ours.get(model), "second": theirs.get(model)}
                for model in models
            ],
        }

    def page(self, place: str) -> str:
        """Return the stored report of a run or a benchmark.

        Raises:
            NotFoundError: if there is none.
        """
        path = self._folder(place) / "report.html"
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise NotFoundError(
                f"Expected a report in {str(path)!r}, but it cannot be read. Make it: "
                f"disinherit report {path.parent}"
            ) from None

    def _bench(self, place: str) -> Mapping[str, Any]:
        folder = self.folder / place
        return {
            "id": place,
            "page": self._has_page(folder),
            "heat": heat_map(folder / "results.jsonl"),
        }

    def _has_page(self, folder: Path) -> bool:
        return (folder / "report.html").is_file()

    def _places(self, name: str) -> Iterator[str]:
        """Yield the folders with a file of this name, relative to the folder of all."""
        for depth in range(_DEPTH):
            for path in sorted(self.folder.glob("/".join([*("*" * depth), name]))):
                yield path.parent.relative_to(self.folder).as_posix()

    def _folder(self, place: str) -> Path:
        """Return the folder of a run; only those that are listed can be asked for."""
        known = {*self._places("report.json"), *self._places("results.jsonl")}
        if place not in known:
            raise NotFoundError(f"Expected a run in {str(self.folder)!r}, but got {place[:200]!r}.")
        return self.folder / place


def _read(folder: Path) -> RunReport:
    path = folder / "report.json"
    try:
        return check_report(load_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise NotFoundError(
            f"Expected the report of a finished run in {str(path)!r}, but: {error}"
        ) from None


def _summary(place: str, report: RunReport) -> dict[str, Any]:
    affected = [one for one in report["models"] if one["role"] != "untouched"]
    after = [one["after"] for one in affected]
    forgets = ", ".join(
        f"{' and '.join(root['classes']) or 'samples'} of {root['model']}"
        for root in report["request"]["roots"]
    )
    return {
        "id": place,
        "created": report["created"],
        "scenario": report["scenario"]["name"],
        "dataset": report["scenario"]["dataset"],
        "seed": report["scenario"]["seed"],
        "request": report["request"]["id"],
        "forgets": forgets,
        "outcome": report["campaign"]["outcome"],
        "affected": len(affected),
        "models": len(report["models"]),
        "done": sum(one["outcome"] in _DONE for one in affected),
        "forget_accuracy": _mean([one["forget_accuracy"] for one in after]),
        "retain_accuracy": _mean([one["retain_accuracy"] for one in after]),
        "seconds": report["timing"]["total"],
        "release": report["disinherit"],
    }


def _model(model: ModelFigures) -> dict[str, Any]:
    retrained = model["retrained"]
    return {
        "model": model["id"],
        "owner": model["owner"],
        "role": model["role"],
        "outcome": model["outcome"],
        "before": {name: model["before"][name] for name in _FIGURES},  # type: ignore[literal-required]
        "after": {name: model["after"][name] for name in _FIGURES},  # type: ignore[literal-required]
        "retrained": None if retrained is None else {name: retrained[name] for name in _FIGURES},  # type: ignore[literal-required]
    }


def _mean(values: list[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _differences(one: RunReport, other: RunReport) -> list[dict[str, Any]]:
    """Return the settings in which two runs differ."""
    ours = {**one["scenario"], **{f"method {k}": v for k, v in one["request"]["method"].items()}}
    theirs = {
        **other["scenario"],
        **{f"method {k}": v for k, v in other["request"]["method"].items()},
    }
    return [
        {"name": name, "first": ours.get(name), "second": theirs.get(name)}
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]
