"""The choice of `auto` by what the owner of a root sees on its tuning split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from disinherit.client.roots import ekfac, root_method
from disinherit.client.roots.root_method import RootProblem, UnlearnedRoot, unlearn_root
from disinherit.client.roots.unseen import MOST_RISE
from tests.client.roots.test_root_method import problem_of
from tests.support.owner import PointsOwner

Attempt = dict[str, Any]
BEFORE: Attempt = {"plain": 0.9}


@dataclass(frozen=True)
class Looked:
    """What an owner would see: the attack with right labels and with wrong ones."""

    plain: float
    wrong: float = 0.9
    loss: float = 1.0
    odd: float = 0.0
    margin: float = 0.05

    @property
    def tells_odd(self) -> bool:
        return self.odd > 0

    def attack(self, odd: float) -> float:
        return (1 - odd) * self.plain + odd * self.wrong


@dataclass
class Tried:
    """A root method whose new weights are its name."""

    name: str
    tried: list[str]

    def refusal(self, _: RootProblem) -> str:
        return ""

    def unlearn(self, problem: RootProblem) -> UnlearnedRoot:
        self.tried.append(self.name)
        return UnlearnedRoot({self.name: torch.zeros(1)}, note="done")


def choose(
    folder: Path, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Attempt], **options: bool
) -> tuple[str, str, list[str]]:
    """Return the method that is taken, its note, and all that were tried."""
    tried: list[str] = []

    def look(_: object, __: object, weights: dict[str, Tensor], *___: object) -> Looked:
        (name,) = weights if len(weights) == 1 else ("before",)
        return Looked(**({"before": BEFORE} | seen)[name])

    monkeypatch.setattr(root_method, "look", look)
    monkeypatch.setattr(root_method, "_installed", lambda: list(seen))
    monkeypatch.setattr(root_method, "_loaded", lambda name: Tried(name, tried))
    with PointsOwner(folder, "anna", **options) as owner:
        name, made = unlearn_root(problem_of(owner, ["cat-0"]))
    return name, made.note, tried


@pytest.mark.parametrize(
    ("seen", "expected", "tried"),
    [
        ({"ekfac": {"plain": 0.53}, "neggrad+": {"plain": 0.5}}, "ekfac", 1),
        ({"ekfac": {"plain": 0.8}, "neggrad+": {"plain": 0.48}, "finetune": {}}, "neggrad+", 2),
        ({"ekfac": {"plain": 0.8}, "neggrad+": {"plain": 0.6}}, "neggrad+", 2),
        ({"ekfac": {"plain": 0.35}, "neggrad+": {"plain": 0.6}}, "neggrad+", 2),
        (
            {"ekfac": {"plain": 0.5, "loss": 1.01 + MOST_RISE}, "neggrad+": {"plain": 0.8}},
            "neggrad+",
            2,
        ),
        (
            {"neggrad+": {"plain": 0.5, "loss": 3.0}, "finetune": {"plain": 0.5, "loss": 2.0}},
            "finetune",
            2,
        ),
        # Wrong labels that the root had fitted entirely show after the second method only.
        (
            {
                "ekfac": {"plain": 0.3, "wrong": 0.97},
                "neggrad+": {"plain": 0.05, "wrong": 0.8, "odd": 0.95},
            },
            "neggrad+",
            2,
        ),
        # What costs too much tells nothing about labels.
        (
            {
                "neggrad+": {"plain": 0.6, "wrong": 0.99},
                "dampening": {"plain": 0.5, "wrong": 0.5, "odd": 0.9, "loss": 5.0},
            },
            "neggrad+",
            2,
        ),
    ],
)
def test_the_first_after_which_samples_look_unseen_is_taken_else_the_nearest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seen: dict[str, Attempt],
    expected: str,
    tried: int,
) -> None:
    name, note, names = choose(tmp_path, monkeypatch, seen)
    assert name == expected
    assert len(names) == tried
    assert note.startswith(
        "done; attack on losses, of which 0.050 above or below 0.5 may be chance"
    )
    assert all(f"{one} 0." in note for one in names)


def test_without_a_tuning_split_the_first_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {"ekfac": {"plain": 0.9}, "neggrad+": {"plain": 0.5}}
    assert choose(tmp_path, monkeypatch, seen, tuning=False) == ("ekfac", "done", ["ekfac"])


def test_an_exact_replay_is_taken_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {"replay": {"plain": 0.9}, "ekfac": {"plain": 0.5}}
    assert choose(tmp_path, monkeypatch, seen) == ("replay", "done", ["replay"])


class Steps:
    """A root at several strengths of a step, as `_tuned` asks for them."""

    def __init__(self, *seen: Looked) -> None:
        self._seen = dict(zip((0, *ekfac.STRENGTHS), seen, strict=False))

    def seen(self, strength: float, _: object) -> Looked:
        return self._seen.get(strength, Looked(0.0, loss=9.0))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([Looked(0.6), Looked(0.55), Looked(0.5), Looked(0.4)], 1),
        ([Looked(0.6), Looked(0.55), Looked(0.54)], 1),  # the strongest that is bearable
        # Fitted wrong labels show at the next strength, and are forgotten at the last.
        (
            [
                Looked(0.55, 0.99),
                Looked(0.4, 0.95),
                Looked(0.2, 0.8, odd=0.6),
                Looked(0.1, 0.52, odd=0.97),
            ],
            2,
        ),
        # What ordinary samples show at strengths that are not needed tells nothing.
        ([Looked(0.6), Looked(0.5), Looked(0.45), Looked(0.4, odd=0.3)], 0),
    ],
)
def test_a_step_is_as_long_as_it_must_be(steps: list[Looked], expected: int) -> None:
    strength, note = ekfac._tuned(Steps(*steps), [])  # type: ignore[arg-type]
    assert strength == ekfac.STRENGTHS[expected]
    assert "attack on losses" in note
