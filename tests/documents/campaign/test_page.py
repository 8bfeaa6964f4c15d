"""The page and the letter about a campaign: complete, honest, escaped, and light for hundreds."""

from datetime import datetime

import pytest

from disinherit.common.graph.recipes import Recipe
from disinherit.documents.campaign.copies import copies_in_words, copy_kind
from disinherit.documents.campaign.deadlines import answer_due
from disinherit.documents.campaign.evidence_words import recognition_in_words
from disinherit.documents.campaign.judging import judge_campaign
from disinherit.documents.campaign.letter import write_letter
from disinherit.documents.campaign.members import CampaignRecords, by_standing, members
from disinherit.documents.campaign.page import render_campaign
from disinherit.documents.campaign.values import recognition_values
from disinherit.documents.verdict import Verdict
from disinherit.v1 import unlearning_pb2
from tests.documents.campaign.made import entry, graph_of, recognition, records
from tests.simulations.report.test_html import Page

KEPT = {"kind": "old_kept", "models": ["r1"], "text": "The owners still have these versions."}


def judged(found: CampaignRecords) -> Verdict:
    return judge_campaign(found, by_standing(members(found)))


def test_a_verdict_is_green_only_without_gaps() -> None:
    models = [entry("r1"), entry("r2")]
    verdict = judged(records(models))
    assert (verdict.level, verdict.reservations) == ("good", [])
    assert verdict.sentence == (
        "Forgotten in all 2 affected models; none of these recognises any of the 50 samples held "
        "back to check; accuracy on what is kept is as before on average."
    )
    verdict = judged(records(models, gaps=[KEPT]))
    assert verdict.level == "warning"
    assert verdict.reservations == ["The owners still have these versions. (r1)"]


def test_models_that_show_nothing_are_counted_apart_and_the_worst_is_named() -> None:
    lost = {"before": 0.9, "after": 0.8, "samples": 900}
    models = [
        entry("r1"),
        entry("r2", hardly_known=True),
        entry("r3", applied={"forget": None, "retain": lost}),
        entry("r4", applied={"forget": recognition(0.04), "retain": None}),
        entry("r5", "failed", reason="out of memory"),
        entry("r6", "ineffective", applied={"forget": recognition(0.5), "retain": None}),
    ]
    gap = {"kind": "ineffective", "models": ["r6"], "text": "Not forgotten."}
    verdict = judged(records(models, "partial", [gap]))
    assert verdict.level == "warning"
    assert verdict.sentence == (
        "Ended without reaching all models; forgotten in 2 of 6 affected models; 2 done, with no "
        "figure that shows it; 1 not forgotten; 1 failed; at worst r4 still recognises 2 of 50 "
        "samples; accuracy on what is kept fell by 3.3 points on average, at worst in r3 by 10.0."
    )
    assert verdict.reservations == [
        "r3 is 10.0 points below the model from before on what is kept (900 samples).",
        "Not forgotten. (r6) Worst r6: recognises 50.0 %.",
    ]


@pytest.mark.parametrize(
    ("state", "task", "level"),
    [
        ("awaiting_approval", "unapproved", "neutral"),
        ("running", "sent", "neutral"),
        ("running", "failed", "warning"),
        ("partial", "pending", "bad"),
        ("rolled_back", "rolled_back", "bad"),
    ],
)
def test_a_campaign_that_is_not_done_is_never_green(state: str, task: str, level: str) -> None:
    found = records([entry("r1", task), entry("r2", task)], state)
    assert judged(found).level == level
    Page(render_campaign(found))


def test_the_month_of_article_12_is_counted_and_its_end_is_said() -> None:
    assert answer_due(datetime(2026, 12, 31)) == datetime(2027, 1, 31)
    assert answer_due(datetime(2024, 1, 30)) == datetime(2024, 2, 29)
    late = records([entry("r1", "sent"), entry("r2")], "running", made="2026-12-02T09:00:01+00:00")
    assert judged(late).reservations == [
        "The month within which the person must be answered ended on 2026-12-02, and 1 model has "
        "not forgotten."
    ]
    assert judged(records([entry("r1", "sent")], "running")).reservations == []


def test_the_page_has_every_fact_and_escapes_it() -> None:
    models = [entry("r1"), entry("r2", "sent", told=None, owner="owner-z")]
    text = render_campaign(records(models, "running", [KEPT]))
    assert "<b>letter 17</b>" not in text
    words = Page(text).text
    for expected in (
        "<b>letter 17</b>",
        "forget the class “cat”, learned by r1",
        "submitted by olga",
        "paul, 2026-11-02 09:00",
        "answered by 2026-12-02",
        "not told",
        "the owner was asked and has not answered yet",
        "values were dampened or rows taken out",
        "r1 : recognises 0 of 50 held-out samples (0.0 %; 95 % interval 0.0 to 7.1 %; before 90.0",
        *(letter * 64 for letter in "abcdef"),
        "disinherit audit verify q.jsonl --public-key coordinator.pub --attestation q.json",
        "What this report does not show",
        "Dear [name],",
    ):
        assert expected in words, expected


def test_kinds_of_copies_come_from_recipes_and_sources() -> None:
    recipes = {"folded": Recipe("fold"), "small": Recipe("int8"), "mix": Recipe("ties")}
    graph = graph_of(
        {"base": (), "lora": ("base",), "folded": ("base", "lora"), "small": ("base",)}
        | {"mix": ("base", "folded")},
        recipes,
    )
    kinds = [copy_kind(graph, one) for one in ("base", "lora", "folded", "small", "mix")]
    assert kinds == ["model", "adapter", "folded", "quantised", "merge"]
    assert copies_in_words(kinds) == (
        "1 model, 1 adapter, 1 quantised file, 1 model with an adapter folded in and 1 merge of "
        "models"
    )


def test_figures_of_an_attack_are_words() -> None:
    found = {"measure": "auc", "before": 0.8, "after": 0.51, "floor": 0.5, "margin": 0.08}
    found |= {"samples": 20, "source": "evaluation", "named_after": 0.1, "named_chance": 0.15}
    assert recognition_in_words(found) == (
        "an attacker picks one of these 20 samples out of two 51.0 % of the time (before 80.0 %); "
        "guessing is 50 %, and up to 58.0 % may be chance in a model that never saw them; it names "
        "10.0 % of them by their own labels, and up to 15.0 % may be chance"
    )
    assert recognition_in_words(None).startswith("not measured")


def test_an_attack_at_few_false_alarms_is_told_with_its_samples_and_interval() -> None:
    result = unlearning_pb2.Recognition(
        measure="auc", before=0.9, after=0.51, floor=0.5, margin=0.05, samples=180,
        source="evaluation", found_before=0.5, found_after=2 / 180, unseen=1000,
    )  # fmt: skip
    found = recognition_values(result)
    assert recognition_in_words(found).endswith(
        "at 1 % false alarms, by 1000 unseen samples, an attacker finds 2 of 180 (1.1 %; 95 % "
        "interval 0.3 to 4.0 %; before 50.0 %), and 1.0 % in a model that never saw them"
    )
    result.ClearField("found_after")  # too few unseen samples
    found = recognition_values(result)
    assert found["at_1_percent_false_alarms"] is None
    assert "false alarms" not in recognition_in_words(found)


def test_a_letter_says_what_is_not_done_and_promises_nothing() -> None:
    models = [entry("r1"), entry("r2", "sent", told=None, owner="owner-z"), entry("r3", "exempt")]
    letter = write_letter(records(models, "running"))
    flat = " ".join(letter.split())
    for expected in (
        "We found 3 models that learned from it",
        "We have not been able to tell owner-z of your request yet.",
        "- 1 model was changed, and it was checked that the effect is there.",
        "- 1 model has not forgotten yet.",
        "- 1 model needed no change.",
        "nobody can prove from the model itself that nothing of your data is left in it",
        "The earlier versions of 1 changed model are still stored.",
        "complain to a supervisory authority",
    ):
        assert expected in flat, expected


def test_a_letter_about_one_model_is_in_the_singular() -> None:
    flat = " ".join(write_letter(records([entry("r1")])).split())
    assert "We found 1 model that learned from it, or was made from models that did. It is" in flat


def test_five_hundred_copies_are_a_light_page_with_the_worst_first() -> None:
    states = ["verified"] * 20 + ["failed"]
    models = [entry(f"m{i}", states[i % 21]) for i in range(500)]
    page = render_campaign(records(models, "partial"))
    assert len(page.encode()) < 1_000_000
    assert page.index('id="m-m20"') < page.index('id="m-m0"')
    assert page.count("<script>") == 1
    assert page.count(' id="m-') == 500
