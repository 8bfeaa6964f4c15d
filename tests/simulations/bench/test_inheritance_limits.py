"""Where handing down changes ends, with small models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from disinherit.client.deltas.inheriting import LEAST_LEFT
from disinherit.simulations.bench import inheritance_limits as limits
from disinherit.simulations.bench.cases.derivations import DerivedModel, derived_case
from disinherit.simulations.bench.cases.subjects import MethodCase, Samples
from disinherit.simulations.bench.methods.handing_down import repaired

SIZES = ("mlp", 300, 20.0)


@pytest.fixture(scope="module")
def twins() -> dict[str, Any]:
    measured = limits.measure(["twins"], [0], *SIZES)
    found: dict[str, Any] = measured["studies"]
    return found


@pytest.fixture(scope="module")
def line() -> tuple[MethodCase, Samples]:
    models = {"root": DerivedModel(wrong=40), "child": DerivedModel(parents=("root",))}
    return derived_case(models, 0, "mlp", 100, 4.0)


def test_what_is_left_tells_a_child_from_a_twin_with_another_start(twins: dict[str, Any]) -> None:
    found = twins["twins"]
    assert found["root"]["left"] == pytest.approx(1.0)
    assert found["child"]["left"] > 0.8
    assert abs(found["twin-other-start"]["left"]) < 0.1
    assert found["twin-same-start"]["left"] < LEAST_LEFT < found["child"]["left"]
    assert found["root"]["rows"]["handed down"] == found["root"]["rows"]["retrained"]


def test_an_owner_that_holds_the_root_leaves_such_a_twin_unchanged(twins: dict[str, Any]) -> None:
    knowing, others = twins["outcomes"].values()
    assert knowing["child"]["remedy"] == "approximated"
    assert knowing["twin-other-start"]["remedy"] == "refused"
    assert knowing["twin-same-start"]["remedy"] == "refused"
    assert "is left in it" in knowing["twin-other-start"]["reason"]
    assert others["twin-other-start"]["remedy"] == "approximated"
    assert others["twin-other-start"]["changes"]["root"] == ["replay", 1.0], "nothing is measured"


def test_repair_changes_descendants_only_and_none_of_what_it_is_given(
    line: tuple[MethodCase, Samples],
) -> None:
    case, _ = line
    before = {model: subject.original for model, subject in case.subjects.items()}
    copies = {n: value.clone() for n, value in before["child"].items()}
    after = repaired(case, before, 5)
    assert after["root"] is before["root"]
    assert all(torch.equal(before["child"][n], value) for n, value in copies.items())
    assert not torch.equal(after["child"]["head.bias"], copies["head.bias"])


def test_requests_in_a_row_add_up_to_one(line: tuple[MethodCase, Samples]) -> None:
    case, test = line
    found = limits.in_a_row(case, test, 2)
    exact = found["2"]["retrained"]["root"]
    assert found["2"]["handed down"]["root"]["auc"] == pytest.approx(exact["auc"], abs=1e-3)
    assert "retrained" not in found["1"]
    at_once = limits.compare(case, test)["child"]["rows"]["handed down"]
    assert found["2"]["handed down"]["child"]["auc"] == pytest.approx(at_once["auc"], abs=1e-3)


def test_every_study_is_a_case() -> None:
    for models in limits.STUDIES.values():
        names = list(models)
        for name, how in models.items():
            assert all(names.index(p) < names.index(name) for p in how.registered)
    assert set(limits.SHOWN["depth"]) <= set(limits.STUDIES["depth"])


def test_several_roots_and_other_label_spaces_are_measured_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["limits", "--studies", "label spaces", "2 roots", "requests", "--seeds", "1"]
    words += ["--samples", "200", "--epochs", "0.2"]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "figures.json")])
    limits.main()
    stored = json.loads((tmp_path / "figures.json").read_text())["studies"]
    assert list(stored) == ["label spaces", "2 roots", "requests"]
    assert stored["2 roots"]["child-of-2-roots"]["coefficient"] == 0.5
    assert stored["label spaces"]["3-classes-fewer"]["coefficient"] == 1.0
    assert list(stored["requests"]) == [str(request) for request in range(1, 11)]
    assert "| child-of-2-roots | 0.50 |" in capsys.readouterr().out
