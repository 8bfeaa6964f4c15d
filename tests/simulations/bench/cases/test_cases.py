"""Cases: what is forgotten at each granularity, what is stored, and replays bit for bit."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message

from disinherit.common.errors import CampaignError, CheckpointError, DataError, InputError
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.simulations.bench.cases import cases
from disinherit.simulations.bench.cases.cases import (
    CaseSpec,
    build_cases,
    forgetting_of,
    open_case,
)
from disinherit.simulations.bench.cases.subjects import Case, Weights
from disinherit.simulations.bench.methods.head_reset import HeadReset
from disinherit.simulations.run import replaying
from disinherit.simulations.scenario.scenarios import load_scenario, topology_from_dict
from disinherit.simulations.scenario.settings import OWNER_THREADS, Settings
from disinherit.simulations.scenario.shares import share_out
from tests.support import direct_grid

FEDERATED = Settings("digits", {}, network="mlp", clients=3, limit=40, epochs=2, learning_rate=5e-3)
BY_CLASS = dataclasses.replace(FEDERATED, forget={"r1": ("3",)})
TWO_ROOTS = dataclasses.replace(FEDERATED, forget={"r1": ("3",), "r2": ("5",)})
GROWING = dataclasses.replace(
    FEDERATED, scenario=load_scenario("incremental"), forget={"u0": ("3",)}
)

RENAMED = dataclasses.replace(
    FEDERATED,
    scenario=topology_from_dict(
        {
            "kind": "transfer",
            "roots": ["base"],
            "edges": ["base -> renamed"],
            "aliases": {"three": "3"},
            "models": {"renamed": {"classes": ["9", "three", "0"], "train": "head", "head": "new"}},
        },
        "renamed",
    ),
    forget={"base": ("3",)},
)

SPECS = {
    "class": CaseSpec(BY_CLASS),
    "classes": CaseSpec(TWO_ROOTS, "classes"),
    "growing": CaseSpec(GROWING),
    "renamed": CaseSpec(RENAMED),
    "samples": CaseSpec(FEDERATED, "samples", 20),
    "memorised": CaseSpec(FEDERATED, "memorised", 20),
    "backdoor": CaseSpec(FEDERATED, "backdoor", 5),
    "client": CaseSpec(FEDERATED, "client"),
}


def build(
    specs: list[CaseSpec], folder: Path, interfere: direct_grid.Interfere = lambda _: None
) -> list[direct_grid.DirectGrid]:
    threads = torch.get_num_threads()
    torch.set_num_threads(OWNER_THREADS)  # as in the engine
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            grids = direct_grid.install(monkeypatch, interfere, cases)
            build_cases(specs, folder)
    finally:
        torch.set_num_threads(threads)
    return grids


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    grids = build(list(SPECS.values()), folder)
    assert len(grids) == 1  # one engine for all of them
    return folder


def digests(models: dict[str, Weights]) -> dict[str, str]:
    return {model: weights_digest(weights) for model, weights in models.items()}


def opened(kind: str, folder: Path) -> Case:
    return open_case(SPECS[kind], folder)


@pytest.mark.parametrize("kind", SPECS)
def test_a_replay_gives_the_retrained_weights_bit_for_bit(kind: str, folder: Path) -> None:
    case = opened(kind, folder)
    retrained = {model: subject.retrained for model, subject in case.subjects.items()}
    assert digests(case.replay()) == digests(retrained)
    assert digests(retrained) != digests({m: s.original for m, s in case.subjects.items()})


@pytest.mark.parametrize("kind", SPECS)
def test_owners_retrain_single_models_bit_for_bit(kind: str, folder: Path) -> None:
    case = opened(kind, folder)
    for model, subject in case.subjects.items():
        assert weights_digest(case.retrain(model, [])) == weights_digest(subject.original)
    roots = [r for r in case.roots if not set(case.subjects[r].parents) & set(case.subjects)]
    assert roots
    for root in roots:
        subject = case.subjects[root]
        left_out = None if case.granularity == "client" else range(len(subject.forget))
        found = case.view().retrain(root, left_out)
        assert weights_digest(found) == weights_digest(subject.retrained)


@pytest.mark.parametrize("kind", SPECS)
def test_what_is_forgotten_has_no_influence_on_the_retrained(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other inputs in the place of what is to be forgotten give the same retrained models."""
    case = opened(kind, folder)
    forgetting = forgetting_of(SPECS[kind])
    data = share_out(forgetting.settings)
    inputs = data.dataset.inputs.clone()
    if forgetting.request is not None:
        inputs[list(forgetting.request.indices)] = 0.5
    else:
        for names in forgetting.settings.forget.values():
            for name in names:
                inputs[data.dataset.targets == data.dataset.classes.index(name)] = 0.5
    spoiled = dataclasses.replace(data, dataset=dataclasses.replace(data.dataset, inputs=inputs))
    monkeypatch.setattr(replaying, "share_out", lambda _: spoiled)
    retrained = {model: subject.retrained for model, subject in case.subjects.items()}
    assert digests(case.replay()) == digests(retrained)


@pytest.mark.parametrize("kind", SPECS)
def test_every_sample_is_in_one_split(kind: str, folder: Path) -> None:
    """By counts against the owner's share, and by what is in the splits."""
    case = opened(kind, folder)
    forgetting = forgetting_of(SPECS[kind])
    data = share_out(forgetting.settings)
    for model, subject in case.subjects.items():
        owner = int(subject.owner.removeprefix("owner-"))
        rows = {row.numpy().tobytes() for row in data.dataset.inputs[data.train[owner]]}
        for split in (subject.forget, subject.retain):
            assert all(row.numpy().tobytes() in rows for row in split.inputs)
        held = [subject.labels.index(name) for name in data.held(owner) if name in subject.labels]
        never = forgetting.classes_left_out(model, replay=False)
        share = data.dataset.targets[data.train[owner]]
        expected = sum(
            int((share == data.dataset.classes.index(subject.labels[row])).sum())
            for row in held
            if subject.labels[row] not in never
        )
        assert len(subject.forget) + len(subject.retain) == expected
        evaluated = data.dataset.inputs[data.splits.evaluation]
        assert len(subject.test_retain) <= len(evaluated)
        assert len(subject.tuning)


def test_a_class_is_in_the_forget_splits_and_nowhere_else(folder: Path) -> None:
    case = opened("class", folder)
    assert list(case.subjects) == ["r1", "r2", "r3", "r4", "r6"]
    assert set(case.unaffected) == {"d", "s"}
    for subject in case.subjects.values():
        assert set(subject.forget.targets.tolist()) == {3}
        assert set(subject.test_forget.targets.tolist()) == {3}
        assert 3 not in subject.retain.targets
        assert 3 not in subject.test_retain.targets
    assert len(case.forget_at_root["r1"]) == len(case.subjects["r1"].forget)


def test_each_root_holds_its_own_class_only(folder: Path) -> None:
    case = opened("classes", folder)
    assert case.roots == {"r1": ("3",), "r2": ("5",)}
    assert set(case.forget_at_root["r2"].targets.tolist()) == {5}
    assert set(case.subjects["r2"].forget.targets.tolist()) == {3, 5}
    assert set(case.subjects["r1"].forget.targets.tolist()) == {3}
    assert 5 not in case.subjects["r1"].retain.targets
    assert 5 not in case.subjects["r1"].test_retain.targets  # it never met that class


def test_a_growing_head_has_its_own_labels(folder: Path) -> None:
    case = opened("growing", folder)
    assert {m: len(s.labels) for m, s in case.subjects.items()} == {
        "u0": 5,
        "u1": 7,
        "u2": 9,
        "u3": 10,
    }
    for subject in case.subjects.values():
        subject.network(subject.original)
        assert int(subject.test_retain.targets.max()) < len(subject.labels)


def test_a_class_with_another_name_is_the_same_class_to_every_method(folder: Path) -> None:
    case = open_case(SPECS["renamed"], folder)
    assert case.subjects["renamed"].labels == ("9", "3", "0")  # the data set's names
    assert case.roots == {"base": ("3",)}
    assert case.forgotten("renamed") == (1,)
    assert len(case.to_forget("renamed")) > 0
    reset = HeadReset()(case.view())
    subject = case.subjects["renamed"]
    network = subject.network(dict(reset.weights["renamed"]))
    with torch.inference_mode():
        named = network(subject.test_forget.inputs).argmax(dim=1)
    assert len(named) > 0
    assert not (named == 1).any()


@pytest.mark.parametrize("kind", ["samples", "memorised"])
def test_samples_enter_at_the_root_and_only_its_owner_trains_on_them(
    kind: str, folder: Path
) -> None:
    case = opened(kind, folder)
    assert set(case.roots) == {"r1", "r4"}  # owner-2 holds both
    assert len(case.forget_at_root["r1"]) == 20
    assert len(case.subjects["r4"].forget) == 20
    assert not len(case.subjects["r2"].forget)
    assert not any(len(subject.test_forget) for subject in case.subjects.values())


def test_memorised_samples_are_less_predictable_than_random_ones(folder: Path) -> None:
    """The model that was retrained without them is sure of fewer of them."""

    def confidence(kind: str) -> float:
        subject = opened(kind, folder).subjects["r1"]
        with torch.no_grad():
            logits = subject.network(subject.retrained)(subject.forget.inputs)
        targets = subject.forget.targets.unsqueeze(1)
        return float(logits.softmax(1).gather(1, targets).mean())

    assert confidence("memorised") < confidence("samples")


def test_a_backdoor_is_planted_in_training_and_tried_on_held_out_samples(folder: Path) -> None:
    case = opened("backdoor", folder)
    forget = case.forget_at_root["r1"]
    assert len(forget) == 5
    assert set(forget.targets.tolist()) == {1}  # zeros that are to be taken for ones
    assert bool((forget.inputs[..., -2:, -2:] == 1).all())
    for subject in case.subjects.values():
        assert len(subject.test_forget)
        assert set(subject.test_forget.targets.tolist()) == {1}
        assert bool((subject.test_forget.inputs[..., -2:, -2:] == 1).all())


def test_a_client_that_leaves_takes_all_of_its_models_training(folder: Path) -> None:
    case = opened("client", folder)
    assert set(case.roots) == {"r1", "r4"}
    for model in ("r1", "r4"):
        assert not len(case.subjects[model].retain)
        assert len(case.subjects[model].forget)
    parents = case.unaffected
    start = {n: (parents["d"][n] + parents["s"][n]) / 2 for n in parents["d"]}
    for name, value in case.subjects["r1"].retrained.items():
        torch.testing.assert_close(value, start[name])


def test_a_stored_case_is_not_trained_again(folder: Path) -> None:
    assert build(list(SPECS.values()), folder) == []


def test_what_was_cut_short_goes_on_with_the_next_case(tmp_path: Path) -> None:
    specs = [SPECS["class"], SPECS["samples"]]
    trained: list[str] = []

    def cut(message: Message) -> None:
        fit = message.content.get("fit")
        if isinstance(fit, ConfigRecord):
            trained.append(str(fit["run"]))
            if fit["run"] == specs[1].name:
                raise RuntimeError("power lost")

    with pytest.raises(CampaignError, match="power lost"):
        build(specs, tmp_path, cut)
    open_case(specs[0], tmp_path)
    with pytest.raises(CheckpointError, match=r"case\.json"):
        open_case(specs[1], tmp_path)
    trained.clear()

    def watch(message: Message) -> None:
        fit = message.content.get("fit")
        if isinstance(fit, ConfigRecord):
            trained.append(str(fit["run"]))

    build(specs, tmp_path, watch)
    assert set(trained) == {specs[1].name}
    open_case(specs[1], tmp_path)


def test_a_declaration_survives_json_and_names_its_case() -> None:
    names = set()
    for spec in SPECS.values():
        again = CaseSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert again.name == spec.name
        names.add(spec.name)
    assert len(names) == len(SPECS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"settings": FEDERATED}, "one class to forget"),
        ({"settings": TWO_ROOTS}, "one class to forget with granularity 'class', but got 2"),
        ({"settings": BY_CLASS, "granularity": "classes"}, "two or more classes"),
        ({"settings": BY_CLASS, "granularity": "samples", "samples": 3}, "no class to forget"),
        ({"settings": FEDERATED, "granularity": "samples"}, "samples > 0"),
        ({"settings": FEDERATED, "granularity": "client", "samples": 3}, "samples = 0"),
        ({"settings": FEDERATED, "granularity": "client", "root": "x"}, "but got 'x'"),
        ({"settings": FEDERATED, "granularity": "feature"}, "granularity among class, classes"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CaseSpec(**values)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (CaseSpec(FEDERATED, "samples", 100), "at most half of the"),
        (CaseSpec(FEDERATED, "backdoor", 100), "100 samples of class '0'"),
    ],
)
def test_more_samples_than_there_are_is_refused_before_training(
    spec: CaseSpec, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        build([SPECS["class"], spec], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_kept_its_share_in_averages_is_trained_again(
    folder: Path, tmp_path: Path
) -> None:
    spec = SPECS["client"]
    shutil.copytree(folder / spec.name, tmp_path / spec.name)
    path = tmp_path / spec.name / "case.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    with pytest.raises(CheckpointError, match="without the client's share in averages"):
        open_case(spec, tmp_path)


def test_a_case_that_is_damaged_or_another_is_named(folder: Path, tmp_path: Path) -> None:
    spec = SPECS["class"]
    build([spec], tmp_path)
    path = tmp_path / spec.name / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        open_case(spec, tmp_path)
    (tmp_path / spec.name).rename(tmp_path / SPECS["samples"].name)
    with pytest.raises(CheckpointError, match="another one"):
        open_case(SPECS["samples"], tmp_path)
