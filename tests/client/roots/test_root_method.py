"""Choice of a root method: by name, from best to worst, and refusals that say why."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import torch

from disinherit.client.roots import root_method
from disinherit.client.roots.problems import root_problem
from disinherit.client.roots.root_method import AUTO_ORDER, RootProblem, unlearn_root
from disinherit.common.errors import DataError, InputError, RequestError, ScopeError, StoreError
from disinherit.common.method import Method
from tests.support.owner import PointsOwner
from tests.support.retraining_owner import RetrainingOwner

OWN = {"replay", "finetune", "neggrad+", "distil", "dampening"}


def problem_of(owner: PointsOwner, samples: list[str] | None, scope: str = "all") -> RootProblem:
    records = {record.id: record for record in owner.store.records()}
    record = records.get("m") or owner.train("m", ("cat", "dog"), created_us=1)
    return root_problem(owner, record, Method(scope=scope), "forget", samples)


def test_the_methods_are_entry_points_under_their_own_names() -> None:
    points = entry_points(group=root_method.GROUP)
    found = {point.name: point.load()() for point in points}
    assert set(found) >= OWN
    assert all(method.name == name for name, method in found.items())
    assert set(AUTO_ORDER) >= OWN


def lose_replay(owner: RetrainingOwner) -> None:
    owner.kept = False


@pytest.mark.parametrize(
    ("change", "samples", "expected"),
    [
        (lambda _: None, ["cat-0", "dog-3"], "replay"),
        (lambda _: None, None, "replay"),
        (lose_replay, ["cat-0"], AUTO_ORDER[2]),
    ],
)
def test_auto_takes_the_best_that_can_be_done(
    tmp_path: Path,
    change: Callable[[RetrainingOwner], None],
    samples: list[str] | None,
    expected: str,
) -> None:
    with RetrainingOwner(tmp_path) as owner:
        change(owner)
        assert unlearn_root(problem_of(owner, samples))[0] == expected


def test_a_client_without_a_replay_is_dampened_only_by_name(tmp_path: Path) -> None:
    """Nothing is kept that its data could be compared with, so nothing would be selected."""
    with RetrainingOwner(tmp_path) as owner:
        lose_replay(owner)
        problem = problem_of(owner, None)
        with pytest.raises(DataError, match="none can") as caught:
            unlearn_root(problem)
        reason = str(caught.value)
        assert "replay: What model 'm' was trained from is not kept." in reason
        assert "neggrad+: Nothing that model 'm' was trained on" in reason
        assert "dampening: It has nothing to compare with." in reason
        assert unlearn_root(problem, "dampening")[0] == "dampening"


def test_where_nothing_can_be_done_every_reason_is_given(tmp_path: Path) -> None:
    with RetrainingOwner(tmp_path) as owner:
        owner.kept = owner.keeps_data = False
        problem = problem_of(owner, ["cat-0"])
        with pytest.raises(DataError, match=r"^Expected a root method .* root 'm'") as caught:
            unlearn_root(problem)
        assert all(f"{name}: " in str(caught.value) for name in OWN)
        with pytest.raises(DataError, match="root method 'distil' .*retained data .* is gone"):
            unlearn_root(problem, "distil")


def test_auto_goes_on_with_the_next_method_if_one_fails(tmp_path: Path) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, ["cat-0"])
        owner.given = {"2.bias": torch.full((4,), torch.nan, dtype=torch.float64)}
        name, made = unlearn_root(problem)
        assert name not in ("auto", "replay")
        assert not made.exact
        with pytest.raises(DataError, match="finite"):
            unlearn_root(problem, "replay")


def test_an_unknown_method_is_refused(tmp_path: Path) -> None:
    with (
        RetrainingOwner(tmp_path) as owner,
        pytest.raises(RequestError, match=r"among dampening, .* but got 'magic'.* at anna"),
    ):
        unlearn_root(problem_of(owner, ["cat-0"]), "magic")


def test_other_packages_add_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = "disinherit.client.roots"
    points = [
        EntryPoint("mine", f"{here}.replay:Replay", root_method.GROUP),
        EntryPoint("broken", f"{here}.replay:Gone", root_method.GROUP),
    ]
    monkeypatch.setattr(root_method, "installed", lambda group: {one.name: one for one in points})
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, ["cat-0"])
        assert unlearn_root(problem, "mine")[0] == "mine"
        with pytest.raises(InputError, match="'broken' to be a class .*Gone"):
            unlearn_root(problem, "broken")
        with pytest.raises(DataError, match="none can"):
            unlearn_root(problem)  # that are taken by name only


def test_a_problem_has_the_scope_and_both_parts_of_the_data(tmp_path: Path) -> None:
    with RetrainingOwner(tmp_path) as owner:
        problem = problem_of(owner, ["cat-0", "dog-3"], scope="head")
        assert set(problem.names) == {"2.weight", "2.bias"}
        assert problem.forget is not None
        assert problem.retain is not None
        assert sum(len(targets) for _, targets in problem.forget) == 2
        assert sum(len(targets) for _, targets in problem.retain) == 46
        client = problem_of(owner, None)
        assert client.retain is None
        assert client.forget is not None
        assert sum(len(targets) for _, targets in client.forget) == 48
        with pytest.raises(ScopeError):
            problem_of(owner, None, scope="nothing*")


def test_a_store_that_cannot_be_used_leads_to_no_worse_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("Expected room, but the disk is full.")

    monkeypatch.setattr(RetrainingOwner, "retrain", full)
    with RetrainingOwner(tmp_path) as owner, pytest.raises(StoreError, match="disk is full"):
        unlearn_root(problem_of(owner, ["cat-0"]))
