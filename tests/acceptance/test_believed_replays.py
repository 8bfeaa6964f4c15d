"""Exact replays that figures deny, or cannot show; and models below with the same data.

A replay counts by how it was made, unless the attack on losses still finds the samples.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from disinherit import ForgetResult, Network
from disinherit.common.wire.recognition import contradicted
from disinherit.v1 import unlearning_pb2 as pb

LABELS = ["a", "b", "c"]
NAMED = range(15)
WRONG = 15
"""The first samples of the root, those that are to be forgotten, have wrong labels."""


def noisy(count: int, seed: int, wrong: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % 3
    inputs = 1.2 * torch.eye(12)[classes] + torch.randn(count, 12, generator=generator)
    targets = classes.clone()
    targets[:wrong] = (targets[:wrong] + 1) % 3
    return TensorDataset(inputs, targets)


def made() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 128), nn.ReLU(), nn.Linear(128, 3))


def fit(model: nn.Module, batches: Iterable[Any], epochs: int = 40) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    listed = list(batches)
    for _ in range(epochs):
        for inputs, targets in listed:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    return model


def loader(data: Dataset[Any]) -> DataLoader[Any]:
    return DataLoader(data, 25)


ROOT = noisy(150, 1, WRONG)
HEIR = noisy(150, 2)
UNSEEN = noisy(600, 9)


def without_first(batches: Iterable[Any], others: int) -> Iterable[Any]:
    """The root's data without other samples than those named: as many, later ones."""
    kept = sum(len(targets) for _, targets in batches)
    if kept == len(ROOT):
        return loader(ROOT)
    left = [index for index in range(len(ROOT)) if not others <= index < others + len(ROOT) - kept]
    return loader(Subset(ROOT, left))


def retrained(batches: Iterable[Any] | None) -> Mapping[str, Tensor]:
    return made().state_dict() if batches is None else fit(made(), batches).state_dict()


def of_others(batches: Iterable[Any] | None) -> Mapping[str, Tensor]:
    return retrained(None if batches is None else without_first(batches, 60))


def forgotten(
    retrain: Callable[[Any], Mapping[str, Tensor]],
    data: Dataset[Any] = ROOT,
    *,
    evaluate: bool = True,
    samples: Iterable[int] = NAMED,
) -> ForgetResult:
    network = Network(LABELS, scope="all")
    network.add(
        "base",
        fit(made(), loader(data)),
        loader(data),
        retrain=retrain,
        evaluate=loader(UNSEEN) if evaluate else None,
    )
    return network.forget(samples=list(samples), root="base")


def test_an_honest_replay_is_verified_without_a_reservation() -> None:
    result = forgotten(retrained)
    assert (result["base"].state, result["base"].remedy) == ("verified", "replayed"), str(result)
    assert result.reservations == ()


def test_a_replay_without_other_samples_is_not_verified() -> None:
    result = forgotten(of_others)
    assert result["base"].state == "ineffective", str(result)
    assert "trained again without the samples to forget, and the attack on losses still finds" in (
        result["base"].reason
    )
    assert "it was put back; compare what `retrain` leaves out" in result["base"].reason


def test_a_replay_that_keeps_near_duplicates_is_not_verified() -> None:
    inputs, targets = ROOT.tensors
    near = TensorDataset(inputs[:WRONG] + 1e-4, targets[:WRONG])
    result = forgotten(retrained, ConcatDataset([ROOT, near]))
    assert result["base"].state == "ineffective", str(result)
    assert "or near-duplicates stayed in the data" in result["base"].reason


def test_a_replay_that_no_figure_shows_is_believed_and_says_so() -> None:
    result = forgotten(retrained, evaluate=False, samples=[140])
    assert result["base"].state == "verified", str(result)
    (said,) = (one for one in result.reservations if "(retrain=) is believed" in one)
    assert said.startswith("base: ")


def figures(**values: Any) -> pb.Recognition:
    told: dict[str, Any] = {
        "measure": "auc", "before": 0.8, "after": 0.8, "floor": 0.5, "margin": 0.1, "samples": 20,
        "source": "evaluation", "named_before": 1.0, "named_after": 1.0, "named_chance": 0.9,
    }  # fmt: skip
    return pb.Recognition(**told | values)


@pytest.mark.parametrize(
    ("found", "denied"),
    [
        (figures(), "still finds them"),
        (figures(after=0.59), ""),
        (figures(after=0.64), ""),  # it has lost more than half of its power
        (figures(among_kept=0.55), "still finds them"),
        (figures(among_kept=0.78), ""),  # easy samples, also for a model without them
        (figures(before=0.4, after=0.45), ""),
        (figures(before=0.3, after=0.45), "finds them better than before"),
        (figures(before=0.3, after=0.3, moved=0.5), "confidence in them fell no more"),
        (figures(before=0.3, after=0.3, moved=0.6), ""),
        (figures(before=0.3, after=0.3, moved=0.5, named_before=0.2), ""),
        (figures(before=0.3, after=0.3), ""),  # an older release does not say
        (figures(before=0.45, after=0.45, moved=0.5), ""),
        (figures(source="training"), ""),
        (figures(measure="accuracy"), ""),
    ],
)
def test_figures_deny_only_what_they_can_tell(found: pb.Recognition, denied: str) -> None:
    assert denied in contradicted(found)
    assert bool(denied) == bool(contradicted(found))


# --- models below that were trained on the samples themselves


def family(data: Dataset[Any], *, heir: bool = True) -> Network:
    base = fit(made(), loader(ROOT))
    network = Network(LABELS, scope="all")
    network.add("base", base, loader(ROOT), evaluate=loader(UNSEEN), retrain=retrained)
    child = fit(copy.deepcopy(base) if heir else made(), loader(data), 15)
    network.add(
        "child",
        child,
        loader(data),
        parents=["base"] if heir else [],
        evaluate=loader(noisy(600, 10)),
    )
    return network


def test_a_model_below_that_was_trained_on_the_samples_itself_is_a_root_of_them() -> None:
    network = family(ConcatDataset([Subset(ROOT, range(10)), HEIR]))
    result = network.forget(samples=NAMED, root="base")
    assert result.what == "15 samples at base; 10 samples at child"
    said = "child: it was trained on 10 of these samples itself, so it is a root of them, too."
    assert said in result.reservations
    assert network.forget(samples=range(100, 103), root="base").what == "3 samples at base"


def test_what_it_had_forgotten_of_its_own_is_no_evidence_for_what_it_inherited() -> None:
    network = family(ConcatDataset([Subset(ROOT, range(15)), HEIR]))
    first = network.forget(samples=NAMED, root="base")["child"]
    assert (first.state, first.changes) == ("verified", {"base": 1.0})
    assert first.root_method
    more = network.forget(samples=range(10, 18), root="base")
    assert not any(
        "child" in one and "earlier requests had cleared it" in one for one in more.reservations
    ), str(more)


def test_a_model_apart_that_was_trained_on_the_samples_is_pointed_out() -> None:
    network = family(ConcatDataset([Subset(ROOT, range(10)), HEIR]), heir=False)
    result = network.forget(samples=NAMED, root="base")
    assert list(result) == ["base"]
    (said,) = (one for one in result.reservations if one.startswith("child: "))
    assert "this request does not reach it. Ask with root='child' as well." in said
