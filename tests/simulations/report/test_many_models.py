"""Reports of many models: aggregated, the worst first, light, and with one script by its hash."""

import base64
import hashlib
import re

from disinherit.simulations.report.build import certainty
from disinherit.simulations.report.document import Edge, ModelFigures, Node, RunReport
from disinherit.simulations.report.html import render_html
from disinherit.simulations.report.verdict import judge
from tests.simulations.report.test_html import Page, printed
from tests.support.report import FORGOTTEN, LABELS, evaluation, make_model, make_report


def many(count: int, per_class: int = 1000) -> RunReport:
    """A fan of `count` children of `u0`; each tenth hardly knew the class, each fifth loses 5."""
    report = make_report()
    models: list[ModelFigures] = []
    nodes: list[Node] = []
    edges: list[Edge] = []
    for i in range(count + 1):
        model = {**make_model("r1" if i == 0 else "r2", LABELS), "id": f"u{i}"}
        known, kept = 0 if i % 10 == 3 else 900, 850 - (i if i == 40 else 50 if i % 5 == 2 else 0)
        model["before"] = evaluation(known, 900, LABELS, FORGOTTEN)
        model["after"] = evaluation(0, kept, LABELS, FORGOTTEN)
        model["retrained"] = evaluation(0, 850, LABELS, FORGOTTEN)
        models.append(model)  # type: ignore[arg-type]
        node = {**report["graph"]["nodes"][2], "id": f"u{i}", "generation": int(i > 0)}
        nodes.append(node)  # type: ignore[arg-type]
        if i:
            edges.append({"parent": "u0", "child": f"u{i}", "kind": "federated", "weight": 1.0})
    ids = [model["id"] for model in models]
    report["models"] = models
    report["graph"] = {
        "nodes": nodes,
        "edges": edges,
        "roots": ["u0"],
        "affected": ids,
        "untouched": [],
    }
    report["request"]["roots"] = [{"model": "u0", "classes": [FORGOTTEN]}]
    report["campaign"]["coverage"] = {
        "applied": count + 1,
        "already_applied": 0,
        "failed": 0,
        "pending": 0,
    }
    index = LABELS.index(FORGOTTEN)
    report["certainty"] = {
        model["id"]: {
            "after": certainty(model["after"]["confusion"], [index], range(10)),
            "retrained": certainty(model["after"]["confusion"], [index], range(10)),
        }
        for model in models
    }
    return report


def test_models_that_hardly_knew_it_are_counted_apart_and_reservations_aggregated() -> None:
    verdict = judge(many(60))
    assert verdict.sentence.startswith(
        "Forgotten in 55 of 61 affected models; 6 recognised almost none of the classes before, "
        "which shows nothing; accuracy on the remaining classes is "
    )
    assert verdict.level == "warning"
    assert verdict.reservations == [
        "13 models are more than 3 points below the retrained model on the remaining classes; "
        "worst u2: 5.0 points (9,000 samples).",
        "u3, u13, u23, u33, u43 and u53 recognised almost none of the classes before, so the "
        "result says nothing about them.",
    ]


def test_a_gap_above_retraining_is_amber_too_and_noise_is_not() -> None:
    report = many(3)
    for model in report["models"]:
        model["before"] = evaluation(900, 900, LABELS, FORGOTTEN)
        model["after"] = evaluation(0, 850, LABELS, FORGOTTEN)
    assert judge(report).level == "good"
    above = report["models"][1]
    above["after"] = evaluation(0, 900, LABELS, FORGOTTEN)
    assert judge(report).reservations == [
        "u1 is 5.0 points above the retrained model on the remaining classes (9,000 samples)."
    ]
    assert judge(report).level == "warning"
    assert judge(report).sentence.endswith("furthest from it is u1, 5.0 points above.")
    for stage in report["certainty"]["u1"].values():
        stage["retain_accuracy"]["samples"] = 60
    assert judge(report).level == "good"


def test_models_that_all_hardly_knew_it_are_no_success() -> None:
    report = many(2)
    for model in report["models"]:
        model["before"] = evaluation(0, 900, LABELS, FORGOTTEN)
    verdict = judge(report)
    assert verdict.sentence.startswith("Forgotten in 0 of 3 affected models; 3 recognised almost")
    assert verdict.level == "warning"


def test_five_hundred_models_are_a_light_page_with_the_worst_first() -> None:
    report = many(500)
    page = render_html(report)
    assert len(page.encode()) < 1_000_000
    parsed = Page(page.replace("<script>", "<style>").replace("</script>", "</style>"))
    assert parsed.text.index("What this report does not show") < 1500
    rows = re.findall(r'<tr(?: id="m-u\d+")?><th scope="row">(?:<a [^>]*>)?(u\d+)', page)
    assert rows[:3] == ["u3", "u13", "u23"]
    assert set(rows) == {f"u{i}" for i in range(501)}
    anchors = set(re.findall(r' id="(m-u\d+)"', page))
    assert {f"m-u{i}" for i in range(501)} == anchors
    assert len(printed(report).splitlines()) < 120


def test_the_only_script_of_a_long_page_is_the_one_that_its_policy_names() -> None:
    page = render_html(many(60))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == page.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\">" in page
    assert not re.search(r"fetch|XMLHttp|import|src=|innerHTML|eval", scripts[0])


def test_strengths_that_did_not_matter_are_no_reservation() -> None:
    report = many(2)
    for model in report["models"]:
        model["before"] = evaluation(900, 850, LABELS, FORGOTTEN)
        model["retrained"] = evaluation(0, 850, LABELS, FORGOTTEN)
        model["after"] = evaluation(0, 850, LABELS, FORGOTTEN)
        model["alpha"], model["tuned"] = None, False  # only rows of the head were taken out
    assert judge(report).level == "good"
    report["models"][1]["alpha"] = 1.0
    assert judge(report).reservations == ["Not tuned, given or default strengths were used: u1."]
