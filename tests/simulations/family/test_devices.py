"""The family benchmark on another device than the CPU."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from disinherit.common.errors import DataError, InputError
from disinherit.common.models.devices import described
from disinherit.simulations.data.fortunes import SYSTEM_FOLDER
from disinherit.simulations.family import members, running
from disinherit.simulations.family.campaign import measure_curvature
from disinherit.simulations.family.corpus import ids_of, make_corpus
from disinherit.simulations.family.keeping import Finished
from disinherit.simulations.family.language_model import CPU, Weights, moved
from disinherit.simulations.family.measurement import measure
from disinherit.simulations.family.members import Size, build, data_of
from disinherit.simulations.family.method_figures import member_figures
from disinherit.simulations.family.methods import METHODS
from disinherit.simulations.family.panel import Panel
from disinherit.simulations.family.problem import make_problem
from disinherit.simulations.family.running import FamilyPlan, finished
from tests.support.other_device import PLACE, other_device

pytestmark = [
    pytest.mark.skipif(not SYSTEM_FOLDER.exists(), reason="needs the package fortunes"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PLAN = FamilyPlan(
    Size(authors=4, width=32, layers=1, epochs=2, further=1), {"one author": 1}, texts=10
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a family is after each method, and the figures of one."""

    weights: Mapping[str, Mapping[str, Weights]]
    figures: Mapping[str, Any]


def _outcome(done: Finished) -> Outcome:
    corpus = make_corpus(PLAN.size.authors, 0, PLAN.texts)
    gone = corpus.authors[1:2]
    ids = ids_of(gone)
    family = done.family("whole", lambda: build(corpus, PLAN.size, 0, device=done.device))
    replayed = build(corpus, PLAN.size, 0, ids, done.device).weights["base"]
    curvature = cache(lambda: measure_curvature(family, data_of(corpus, "base")))
    problem = make_problem(corpus, family, replayed, ids, curvature, 0)
    made = {name: method(problem) for name, method in METHODS.items()}
    for one in made.values():
        assert all(
            value.device == family.device for w in one.weights.values() for value in w.values()
        )
    panel = Panel(corpus, gone, corpus.authors[2:])
    figures = member_figures(panel, made["MSA"], family, {})
    del figures["measuring_cpu_seconds"]
    weights = {
        method: {member: moved(value, CPU) for member, value in one.weights.items()}
        for method, one in made.items()
    }
    return Outcome(weights, figures)


@pytest.fixture(scope="module")
def on_cpu() -> Outcome:
    return _outcome(Finished(None))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    for module in (members, running):
        monkeypatch.setattr(module, "wait_for", lambda device: None)
    monkeypatch.setattr(running, "described", str)
    with other_device() as place:
        yield place


def test_the_second_device_refuses_tensors_of_the_first(device: torch.device) -> None:
    there, here = torch.ones(2, device=device), torch.ones(2)
    assert (there * 2).device == there.to(device).device == PLACE
    assert here.device == there.cpu().device == torch.device("cpu")
    with pytest.raises(RuntimeError, match="same device"):
        there + here
    here.copy_(there)
    assert here.device == torch.device("cpu")
    assert (there.cpu() + here).tolist() == [2, 2]


def test_all_is_computed_on_the_device_that_is_asked_for(
    device: torch.device, on_cpu: Outcome
) -> None:
    found = _outcome(Finished(None, device=device))
    # No tensor of the CPU was beside one of the device, and both compute alike.
    assert found.figures == on_cpu.figures
    for method, members_then in found.weights.items():
        for member, weights in members_then.items():
            expected = on_cpu.weights[method][member]
            assert all(torch.equal(value, expected[name]) for name, value in weights.items())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(tmp_path: Path, on_cpu: Outcome) -> None:
    device = torch.device("cuda", 0)
    found = _outcome(finished(tmp_path, PLAN, 0, device))
    again = finished(tmp_path, PLAN, 0, device).family("whole", pytest.fail)
    assert again.device == device
    for member, weights in on_cpu.weights["no-op"].items():
        for name, value in weights.items():
            there = found.weights["no-op"][member][name]
            assert torch.equal(again.weights[member][name].cpu(), there)
            assert (there.shape, there.dtype) == (value.shape, value.dtype)
            if value.is_floating_point():
                assert torch.allclose(there, value, atol=0.02), (member, name)
    for member, figures in found.figures["members"].items():
        expected = on_cpu.figures["members"][member]
        assert figures["world_loss"] == pytest.approx(expected["world_loss"], rel=0.05)


def test_figures_of_another_device_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "family.json"
    kept = {"environment": {"device": "cuda (a card)"}, "runs": []}
    file.write_text(json.dumps(kept))
    with pytest.raises(DataError, match=r"measured on cpu in .*, but got some on cuda \(a card\)"):
        measure(file, [0], print, quick=True)
    assert json.loads(file.read_text()) == kept
    with pytest.raises(InputError, match="cuda:99"):
        measure(tmp_path / "other.json", [0], print, quick=True, device="cuda:99")


def test_what_was_finished_on_another_device_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path, PLAN, 0)
    assert described(torch.device("cpu")) == "cpu"
    monkeypatch.setattr(running, "described", lambda device: f"{device} (a card)")
    with pytest.raises(DataError, match=r"on cuda:0 \(a card\).*Name another folder"):
        finished(tmp_path, PLAN, 0, PLACE)
