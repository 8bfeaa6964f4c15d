"""A tiny family, from training to the page."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional as rounding

from disinherit.common.errors import DataError
from disinherit.simulations.data.fortunes import SYSTEM_FOLDER
from disinherit.simulations.family import measurement, running
from disinherit.simulations.family.corpus import ids_of, make_corpus
from disinherit.simulations.family.keeping import Finished
from disinherit.simulations.family.language_model import batches, load, make_network, state
from disinherit.simulations.family.measurement import measure
from disinherit.simulations.family.members import MEMBERS, TRAINED, Family, Size, build, derive
from disinherit.simulations.family.methods import METHODS, handed_down, replayed_root
from disinherit.simulations.family.page import RETRAINED, render
from disinherit.simulations.family.problem import make_problem
from disinherit.simulations.family.processes import run_in_processes
from disinherit.simulations.family.running import (
    QUICK_PLAN,
    FamilyPlan,
    finished,
    lacking,
    run,
)
from tests.support.head_census import AT_START

pytestmark = [
    pytest.mark.skipif(not SYSTEM_FOLDER.exists(), reason="needs the package fortunes"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

TINY = Size(authors=4, width=16, layers=1, epochs=2, further=1)


@pytest.fixture(scope="module")
def family() -> Family:
    return build(make_corpus(TINY.authors, 0, texts=10), TINY, 0)


CHOSEN = ("no-op", "gradient ascent", "Fisher information, inherited", "change: replay, repair")


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[str, Any]]:
    chosen = {name: METHODS[name] for name in (*CHOSEN, "change: replay")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "METHODS", chosen)
        plan = FamilyPlan(TINY, {"one author": 1}, texts=10)
        yield run(plan, 0, lambda _: None, Finished(None))


def test_training_again_gives_the_same_family(family: Family) -> None:
    again = build(make_corpus(TINY.authors, 0, texts=10), TINY, 0)
    for member, weights in family.weights.items():
        assert weights.keys() == again.weights[member].keys()
        assert all(torch.equal(value, again.weights[member][n]) for n, value in weights.items())


def test_an_adapter_is_measured_as_what_it_is_folded_into(family: Family) -> None:
    folded, adapted = family.plain("folded"), family.plain("domain-lora")
    assert all(torch.equal(value, adapted[name]) for name, value in folded.items())


def test_order_is_the_same_without_some_samples() -> None:
    sequences = {str(at): list(range(2, 4 + at % 7)) for at in range(90)}
    gone = {"3", "50"}
    whole = [[id for id in ids if id not in gone] for ids in batches(sequences, 2, 0)]
    assert list(batches(sequences, 2, 0, gone)) == [ids for ids in whole if ids]


def test_copies_are_those_of_bitsandbytes(family: Family) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    source = family.weights["linear"][name]
    values, rows, _ = rounding.int8_vectorwise_quant(source.half())
    assert torch.equal(family.weights["int8"][name], values)
    assert torch.allclose(family.plain("int8")[name], source, atol=rows.max().item() / 100)
    source = family.weights["ties"][name]
    packed, described = rounding.quantize_4bit(source, blocksize=64, quant_type="nf4")
    assert torch.equal(family.weights["nf4"][name], packed)
    error = (family.plain("nf4")[name] - source).reshape(-1, 64).abs().amax(1)
    widest = (described.code[1:] - described.code[:-1]).max() / 2
    assert (error <= 1.001 * widest * described.absmax).all()
    for part, value in described.as_dict(packed=True).items():
        assert torch.equal(family.weights["nf4"][f"{name}.{part}"], value)
    assert torch.equal(family.weights["int8"][f"{name.removesuffix('weight')}SCB"], rows)


def test_every_member_is_a_network(family: Family) -> None:
    tokens = torch.tensor([[2, 3, 4]])
    for member in MEMBERS:
        logits = family.loaded(member)(input_ids=tokens).logits
        assert logits.isfinite().all()


def test_changes_reach_every_member_but_adapters(family: Family) -> None:
    corpus = make_corpus(TINY.authors, 0, texts=10)
    replayed = {name: value + 0.01 for name, value in family.weights["base"].items()}
    gone = ids_of(corpus.authors[1:2])
    problem = make_problem(corpus, family, replayed, gone, pytest.fail, 0)
    after = handed_down(problem, replayed_root)
    for name, value in family.weights["chat"].items():
        assert torch.allclose(after.weights["chat"][name], value + 0.01, atol=1e-6)
    for member, one in MEMBERS.items():
        old, new = family.weights[member], after.weights[member]
        same = all(torch.equal(old[name], new[name]) for name in old)
        assert same == one.adapter
    derived = derive(after)
    assert all(
        torch.equal(value, derived.weights[member][name])
        for member, weights in after.weights.items()
        for name, value in weights.items()
    )


def test_tied_weights_are_there_once() -> None:
    network = make_network(20, 8, 1)
    weights = state(network)
    assert "lm_head.weight" not in weights
    other = load(make_network(20, 8, 1), {name: value + 1 for name, value in weights.items()})
    assert torch.equal(state(other)["model.norm.weight"], weights["model.norm.weight"] + 1)


def test_every_method_has_figures_of_every_member(figures: dict[str, Any]) -> None:
    rows = figures["requests"]["one author"]["rows"]
    assert list(rows) == [RETRAINED, *CHOSEN, "change: replay"]
    for row in rows.values():
        assert list(row["members"]) == list(MEMBERS)
        assert list(row["relearned"]) == list(TRAINED)
    replayed = rows["change: replay"]["members"]["base"]
    assert replayed == rows[RETRAINED]["members"]["base"] | {"forget_quality": 1.0}


def test_the_page_has_a_table_of_members_and_methods(figures: dict[str, Any]) -> None:
    measured = {"environment": {"torch": "2"}, "runs": [figures, json.loads(json.dumps(figures))]}
    page = render(measured)
    assert "## One author: 9 texts" in page
    for word in (*MEMBERS, *CHOSEN, "Measured with torch: 2."):
        assert word in page


def test_cells_that_were_measured_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: dict[str, Any]
) -> None:
    asked: list[tuple[int, dict[str, list[str]]]] = []
    cells = figures["requests"]["one author"]["rows"]

    def remember(
        plan: FamilyPlan,
        seed: int,
        say: object,
        done: object,
        *,
        known: dict[str, Any],
        store: Callable[[dict[str, Any]], None],
        only: Sequence[str],
    ) -> None:
        asked.append((seed, lacking(known, plan, only)))
        rows = dict.fromkeys((RETRAINED, *METHODS), cells[RETRAINED])
        requests = {name: {"rows": dict(rows)} for name in only or plan.requests}
        store({"seed": seed, "authors": plan.size.authors, "requests": requests})

    monkeypatch.setattr(running, "METHODS", METHODS)
    monkeypatch.setattr(measurement, "run", remember)
    everything = {name: [RETRAINED, *METHODS] for name in QUICK_PLAN.requests}
    file = tmp_path / "family.json"
    measure(file, [1], print, quick=True)
    measured = measure(file, [0, 1], print, quick=True)
    assert asked == [(1, everything), (0, everything)]
    assert [one["seed"] for one in measured["runs"]] == [0, 1]
    assert json.loads(file.read_text()) == measured

    # A method that was added since, and a cell without a member that was.
    rows = measured["runs"][0]["requests"]["eight authors"]["rows"]
    del rows["NPO"]
    rows["no-op"] = {**rows["no-op"], "members": dict(list(cells["no-op"]["members"].items())[:-1])}
    file.write_text(json.dumps(measured))
    measure(file, [0, 1], print, quick=True)
    assert asked[2:] == [(0, {"eight authors": ["no-op", "NPO"]})]

    measure(file, [2], print, quick=True, only=["eight authors"])
    measure(file, [2], print, quick=True, only=["eight authors"])
    assert asked[3:] == [(2, {"eight authors": [RETRAINED, *METHODS]})]
    with pytest.raises(DataError, match="among 'one author', 'eight authors', but got 'nobody'"):
        measure(file, [2], print, quick=True, only=["nobody"])

    with pytest.raises(DataError, match=f"got some of {QUICK_PLAN.size.authors}"):
        measure(file, [0], print, quick=False)
    file.write_text("[]")
    with pytest.raises(DataError, match="Expected figures of families"):
        measure(file, [0], print, quick=True)


def test_the_figures_of_other_cells_stay(
    monkeypatch: pytest.MonkeyPatch, figures: dict[str, Any]
) -> None:
    plan = FamilyPlan(TINY, {"one author": 1}, texts=10)
    chosen = {name: METHODS[name] for name in ("no-op", "change: replay")}
    monkeypatch.setattr(running, "METHODS", chosen)
    known = json.loads(json.dumps(figures))
    rows = known["requests"]["one author"]["rows"]
    rows["no-op"]["merged"] = 0.5  # as nothing measures it
    del rows["change: replay"]
    stored: list[dict[str, Any]] = []
    found = run(plan, 0, lambda _: None, Finished(None), known=known, store=stored.append)
    assert len(stored) == 1
    after = found["requests"]["one author"]["rows"]
    assert list(after) == [RETRAINED, "no-op", "change: replay"]
    assert after["no-op"] == rows["no-op"]
    again = figures["requests"]["one author"]["rows"]["change: replay"]
    assert after["change: replay"]["members"] == again["members"]


def test_requests_in_processes_have_the_same_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: dict[str, Any]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_START)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    plan = FamilyPlan(TINY, {"one author": 1, "two authors": 2}, texts=10)
    there = {key: {"members": dict.fromkeys(MEMBERS)} for key in (RETRAINED, *METHODS)}
    del there["no-op"]
    known = {"requests": {name: {"rows": dict(there)} for name in plan.requests}}
    said: list[str] = []
    stored: list[dict[str, Any]] = []
    done = Finished(tmp_path / "work")
    run_in_processes(plan, 0, said.append, done, known=known, store=stored.append, only=(), jobs=2)
    assert len(stored) == 2
    assert list(stored[-1]["requests"]) == ["one author", "two authors"]
    one, two = (stored[-1]["requests"][name] for name in plan.requests)
    assert list(one["rows"]) == [RETRAINED, *METHODS]
    expected = figures["requests"]["one author"]["rows"]["no-op"]
    assert _without_seconds(one["rows"]["no-op"]) == _without_seconds(expected)
    assert two["authors"] == 2
    assert two["rows"]["no-op"]["members"] != one["rows"]["no-op"]["members"]
    assert {"training the family", "one author: no-op", "two authors: no-op"} <= {*said}
    assert "the curvature of its base" not in said  # which no lacking method needs

    # A request that fails takes nothing from the others.
    (tmp_path / "work/one-author-no-op.json").write_text("{")
    stored.clear()
    with pytest.raises(DataError, match="is made again"):
        run_in_processes(
            plan, 0, said.append, done, known=known, store=stored.append, only=(), jobs=2
        )
    assert stored[-1]["requests"]["two authors"]["rows"]["no-op"] == two["rows"]["no-op"]


def test_the_page_says_what_was_not_measured(figures: dict[str, Any]) -> None:
    other = json.loads(json.dumps(figures))
    other["seed"] = 1
    rows = other["requests"]["one author"]["rows"]
    del rows["gradient ascent"]
    for row in rows.values():
        del row["members"]["q4_0"]
    page = render({"environment": {"torch": "2"}, "runs": [figures, other]})
    assert "Not measured, and so not in the means (2 seeds): seed 1, one author: gradient" in page
    assert "minutes (6 cells); seed 1: " in page
    assert "| q4_0 |" in page


def test_a_run_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: dict[str, Any]
) -> None:
    plan = FamilyPlan(TINY, {"one author": 1}, texts=10)
    chosen = {"no-op": METHODS["no-op"], "change: replay": METHODS["change: replay"]}

    def stop(problem: object) -> Family:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "METHODS", {"no-op": chosen["no-op"], "change: replay": stop})
    with pytest.raises(KeyboardInterrupt):
        run(plan, 0, lambda _: None, finished(tmp_path, plan, 0))
    monkeypatch.setattr(running, "METHODS", chosen)
    monkeypatch.setattr(running, "build", stop)
    rows = run(plan, 0, lambda _: None, finished(tmp_path, plan, 0))["requests"]["one author"]
    whole = figures["requests"]["one author"]
    for name in ("no-op", "change: replay", RETRAINED):
        found, expected = rows["rows"][name], whole["rows"][name]
        assert _without_seconds(found) == _without_seconds(expected)
    with pytest.raises(DataError, match="Name another folder"):
        finished(tmp_path, QUICK_PLAN, 0)
    (file,) = tmp_path.glob("seed-0/one-author-no-op.json")
    file.write_text("{")
    with pytest.raises(DataError, match="is made again"):
        run(plan, 0, lambda _: None, finished(tmp_path, plan, 0))


def _without_seconds(cell: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cell.items() if not name.endswith("seconds")}
