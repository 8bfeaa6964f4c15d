"""A report from what was measured: outcomes, what is missing, and which classes count."""

import dataclasses

import pytest
import torch

from disinherit.common.graph.graph import InheritanceGraph
from disinherit.common.graph.records import Inheritance, InheritanceKind, ModelRecord, Provenance
from disinherit.server.campaign.result import CampaignResult, Timing
from disinherit.server.planning.plan import plan
from disinherit.server.states import Task, TaskState
from disinherit.simulations.data.datasets import Dataset
from disinherit.simulations.data.splits import Splits
from disinherit.simulations.report.build import RunMeasurements, build_report
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import RunReport
from disinherit.simulations.report.models import known_labels
from disinherit.simulations.scenario.label_spaces import LabelSpaces
from disinherit.simulations.scenario.scenarios import FEDERATED
from disinherit.simulations.scenario.settings import Settings
from disinherit.simulations.scenario.shares import SharedData
from disinherit.simulations.scenario.topology import Derivation, Topology
from disinherit.v1 import graph_pb2
from disinherit.v1 import unlearning_pb2 as pb
from tests.support import direct_grid  # noqa: F401  (before anything of Flower)

LABELS = ("ant", "bee", "cat", "dog")
SETTINGS = Settings("animals", {"r1": ("ant",), "r2": ("bee",)}, network="mlp", clients=2)
CONFUSION = [[8, 2, 0, 0], [1, 9, 0, 0], [0, 5, 5, 0], [0, 0, 0, 10]]

DATA = SharedData(
    Dataset("animals", torch.zeros(12, 1, 4, 4), torch.arange(12) % 4, LABELS),
    Splits(torch.arange(6), torch.arange(6, 8), torch.arange(8, 12)),
    (torch.arange(3), torch.arange(3, 6)),
    (torch.arange(6, 7), torch.arange(7, 8)),
)


def digest_of(text: str) -> str:
    return text.encode().hex()


def fleet_graph() -> InheritanceGraph:
    graph = InheritanceGraph()
    for age, derivation in enumerate(FEDERATED.derivations):
        without = FEDERATED.never_learned(derivation.id, SETTINGS.forget)
        counts = {name: 0 if name in without else 10 for name in LABELS}
        record = ModelRecord(
            derivation.id,
            f"owner-{age % 2}",
            "a",
            LABELS,
            digest_of(derivation.id),
            age + 1,
            Provenance("animals", counts),
        )
        graph.add(record, FEDERATED.edges(derivation))
    return graph


def applied(model: str) -> pb.ModelResult:
    return pb.ModelResult(
        model_id=model,
        outcome=pb.OUTCOME_APPLIED,
        successor=graph_pb2.ModelRecord(id=f"{model}~x", digest=digest_of(model + "~")),
        alpha=1.5,
        lam=0.5,
        gauge=1.0,
        tuned=True,
        selections=[
            pb.Selection(parameter="head.weight", rows=[6, 0, 0, 0], total=32),
            pb.Selection(parameter="head.bias", rows=[1, 0, 0, 0], total=4),
        ],
    )


def result_with(**tasks: Task) -> CampaignResult:
    everyone = {
        m: Task(m, "owner-0", TaskState.VERIFIED, result=applied(m))
        for m in ("r1", "r2", "r3", "r4", "r6")
    }
    everyone |= tasks
    done = tuple(m for m, t in everyone.items() if t.result is not None)
    return CampaignResult("forget-x", everyone, Timing(0.5, 0.25, 1.0, 2.0), changed=done)


def measured() -> RunMeasurements:
    found = RunMeasurements(train_seconds=3.0, retrain_seconds=2.0)
    for model in FEDERATED.ids:
        found.before[model] = found.after[model] = CONFUSION
    found.retrained = dict.fromkeys(("r1", "r2", "r3", "r4", "r6"), CONFUSION)
    return found


def report_of(result: CampaignResult, found: RunMeasurements) -> RunReport:
    graph = fleet_graph()
    planned = plan(graph, SETTINGS.request().to_proto())
    repeat = dataclasses.replace(result, changed=(), already_applied=result.changed)
    return check_report(build_report(SETTINGS, DATA, graph, planned, result, repeat, found))


def test_a_complete_campaign() -> None:
    report = report_of(result_with(), measured())
    assert report["campaign"]["outcome"] == "complete"
    assert report["campaign"]["coverage"]["applied"] == 5
    assert report["repeat"] == {"changed": 0, "already_applied": 5}
    assert report["timing"] == {
        "train": 3.0,
        "fisher": 0.5,
        "merge": 0.25,
        "broadcast_and_apply": 1.0,
        "total": 1.75,
        "retrain_all": 2.0,
    }
    assert report["splits"]["train"]["size"] == 6
    r1 = next(m for m in report["models"] if m["id"] == "r1")
    assert r1["digest_after"] == digest_of("r1~")
    assert r1["selected_fraction"] == pytest.approx(7 / 36)
    assert (r1["alpha"], r1["lambda"], r1["gauge"], r1["tuned"]) == (1.5, 0.5, 1.0, True)


def test_accuracies_are_over_what_a_model_is_to_forget_and_what_it_knows() -> None:
    models = {m["id"]: m for m in report_of(result_with(), measured())["models"]}
    # d knows neither ant nor bee; r1 does not know bee, which enters at r2.
    assert models["d"]["before"]["forget_accuracy"] is None
    assert models["d"]["before"]["retain_accuracy"] == 75.0
    assert models["r1"]["before"]["forget_accuracy"] == 80.0
    assert models["r1"]["before"]["retain_accuracy"] == 75.0
    assert models["r2"]["before"]["forget_accuracy"] == 85.0
    assert models["r1"]["forgotten"] == ["ant"]
    assert models["r6"]["forgotten"] == ["ant", "bee"]
    assert models["r6"]["upstream_roots"] == ["r1", "r2"]


def test_a_failed_model_keeps_its_digest_and_says_why() -> None:
    failed = Task("r4", "owner-1", TaskState.FAILED, reason="disk full")
    found = measured()
    del found.after["r4"]
    report = report_of(result_with(r4=failed), found)
    r4 = next(m for m in report["models"] if m["id"] == "r4")
    assert report["campaign"]["outcome"] == "partial"
    assert report["campaign"]["coverage"]["failed"] == 1
    assert (r4["outcome"], r4["error"]) == ("failed", "disk full")
    assert r4["digest_after"] == r4["digest_before"] == digest_of("r4")
    assert r4["after"] == {"forget_accuracy": None, "retain_accuracy": None, "confusion": []}
    assert r4["before"]["forget_accuracy"] == 85.0
    assert (r4["selected_fraction"], r4["alpha"], r4["scope"]) == (None, None, None)


def test_a_model_that_was_not_reached_is_pending() -> None:
    waiting = Task("r6", "owner-0", TaskState.PENDING, reason="owner-0 is not connected")
    report = report_of(result_with(r6=waiting), measured())
    r6 = next(m for m in report["models"] if m["id"] == "r6")
    assert (r6["outcome"], r6["error"]) == ("pending", "owner-0 is not connected")
    assert report["campaign"]["coverage"]["pending"] == 1


def test_what_had_been_applied_before_is_not_counted_as_applied_now() -> None:
    earlier = dataclasses.replace(
        result_with(), changed=("r1", "r2"), already_applied=("r3", "r4", "r6")
    )
    report = report_of(earlier, measured())
    assert report["campaign"]["coverage"]["applied"] == 2
    assert report["campaign"]["coverage"]["already_applied"] == 3


def test_an_evaluation_that_failed_is_null_with_its_reason_and_notes_are_kept() -> None:
    found = measured()
    del found.before["s"]
    found.errors["s"] = "no memory left"
    found.notes.append("No exact retraining to compare with: power lost")
    found.retrained.clear()
    found.retrain_seconds = None
    report = report_of(result_with(), found)
    s = next(m for m in report["models"] if m["id"] == "s")
    assert s["before"]["retain_accuracy"] is None
    assert s["after"]["retain_accuracy"] == 75.0
    assert s["error"] == "no memory left"
    assert report["campaign"]["notes"][-1].endswith("power lost")
    assert report["timing"]["retrain_all"] is None


def test_known_labels_come_from_all_ancestors_and_only_from_training() -> None:
    graph = InheritanceGraph()

    def add(id: str, age: int, counts: dict[str, int] | None, *parents: str) -> None:
        provenance = None if counts is None else Provenance("animals", counts)
        record = ModelRecord(id, "o", "a", LABELS, digest_of(id), age, provenance)
        kind = InheritanceKind.FEDERATED
        graph.add(record, [Inheritance(p, id, kind, 1 / len(parents)) for p in parents])

    add("a", 1, {"ant": 3, "bee": 0})
    add("b", 2, {"cat": 1})
    add("ab", 3, None, "a", "b")
    add("child", 4, {"dog": 2}, "ab")
    derivations = tuple(map(Derivation, ("a", "b", "ab", "child")))
    topology = Topology("t", derivations, ("a",), {"hound": "dog"})
    labels = {"a": LABELS, "b": LABELS, "ab": LABELS[:2], "child": ("hound", "cat", "ant")}
    spaces = LabelSpaces(topology, LABELS, labels, labels)
    assert known_labels(graph, spaces, "a") == ["ant"]
    assert known_labels(graph, spaces, "ab") == ["ant"]
    assert known_labels(graph, spaces, "child") == ["hound", "cat", "ant"]
