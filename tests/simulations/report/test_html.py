"""The report page and the terminal tables: correct, escaped, and honest about what is missing."""

import copy
import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from rich.console import Console

from disinherit.common.errors import DataError
from disinherit.documents.charts import confusion_map, dot_plot, histogram, row_strip, time_bars
from disinherit.server.campaign.result import Outcome
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import RunReport
from disinherit.simulations.report.html import render_html
from disinherit.simulations.report.table import render_tables
from disinherit.simulations.report.verdict import describe_speedup, judge
from tests.support.report import FORGOTTEN, GENERATION, make_report

VOID = {"meta", "br", "hr", "img", "input", "link"}
OUTCOMES: list[Outcome] = ["complete", "partial", "failed", "unchanged"]


class Page(HTMLParser):
    """Checks that every tag is closed in order, and keeps tags and visible text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"repeated attribute in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def images(page: str) -> list[ET.Element]:
    return [ET.fromstring(part) for part in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def printed(report: RunReport, width: int = 80) -> str:
    out = io.StringIO()
    console = Console(width=width, file=out)
    for part in render_tables(report):
        console.print(part)
    return out.getvalue()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_page_is_well_formed_and_asks_nothing_of_the_network(outcome: Outcome) -> None:
    page = render_html(make_report(outcome))
    parsed = Page(page)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object"}
    assert not [a for _, a in parsed.tags if "src" in a]
    assert "@import" not in page
    assert re.findall(r"url\(([^)]*)\)", page) == ["#arrow"] * 9
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    led = {a["href"] for _, a in parsed.tags if "href" in a}
    assert {f"#m-{name}" for name in GENERATION} <= led <= {f"#{id}" for id in ids}
    named = [a["aria-labelledby"] for _, a in parsed.tags if "aria-labelledby" in a]
    assert named
    assert set(named) <= set(ids)


def test_images_are_xml_and_say_what_they_show() -> None:
    drawn = images(render_html(make_report()))
    # Graph, two bar charts, two time bars; 5 models with 2 matrices and a head, 2 with 1 matrix.
    assert len(drawn) == 5 + 5 * 3 + 2
    graph, *others = drawn
    assert all(image.get("aria-label") for image in drawn)
    assert all(image.get("role") == "img" for image in others)
    assert graph.get("role") == "list"
    items = [one for one in graph.iter() if one.get("role") == "listitem"]
    assert len(items) == len(GENERATION)
    assert "r1, hospital-b, root; applied; forget accuracy 93.4 → 0.0 %" in {
        link.get("aria-label") for item in items for link in item
    }
    for image in drawn:
        _, _, width, height = map(float, (image.get("viewBox") or "").split())
        for box in image.iter("{http://www.w3.org/2000/svg}rect"):
            x, y, w, h = (float(box.get(key) or "nan") for key in ("x", "y", "width", "height"))
            assert 0 <= x <= x + w <= width + 1
            assert 0 <= y <= y + h <= height + 1


def test_every_model_and_figure_is_on_the_page() -> None:
    report = make_report()
    page = Page(render_html(report))
    for model in report["models"]:
        assert f" {model['id']} " in page.text
        retained = model["after"]["retain_accuracy"]
        assert retained is not None
        assert f"{retained:.1f}" in page.text
    for words in ("suppression", "+12.3", "0.46", "hospital-b", "tuned by the owner", "2.9.0"):
        assert words in page.text


def test_only_the_first_root_is_open() -> None:
    page = render_html(make_report())
    opened = re.findall(r"<details id=\"m-\w+\" open>\s*<summary><b>(\w+)</b>", page)
    assert opened == ["r1"]
    assert page.count("<details") == len(GENERATION) + 3  # edges, and two for specialists


def test_text_from_the_report_is_escaped() -> None:
    evil = '<script>alert("1")</script>&\'[bold]'
    report = make_report("partial", forgotten=evil)
    report["request"]["reason"] = report["campaign"]["notes"][0] = evil
    report["environment"][evil] = evil
    report["models"][2]["owner"] = report["graph"]["nodes"][2]["owner"] = evil
    report["models"][4]["error"] = evil
    report["models"][3]["selections"][0]["parameter"] = evil
    page = render_html(report)
    parsed = Page(page)
    assert "<script" not in page
    assert evil in parsed.text
    assert any(evil in (text or "") for image in images(page) for text in image.itertext())
    assert evil in printed(report, width=300)


def test_missing_accuracies_show_as_not_available() -> None:
    report = make_report()
    for model in report["models"]:
        for key in ("before", "after"):
            model[key] = {"forget_accuracy": None, "retain_accuracy": None, "confusion": []}
        model["retrained"] = model["published"] = None
        model["selections"] = []
        model["selected_fraction"] = model["apply_seconds"] = None
    report["timing"] = dict.fromkeys(report["timing"], None)  # type: ignore[typeddict-item]
    page = Page(render_html(report))
    assert page.text.count("n/a") >= 7 * 8
    assert "None" not in page.text
    assert "r1, r2, r4, r3 and r6 could not be measured" in page.text
    assert "no retrained reference for r1, r2, r4, r3 and r6" in page.text
    assert "times faster" not in page.text
    assert "n/a" in printed(report)


def test_verdict_of_a_complete_campaign_names_who_still_recognises() -> None:
    report = make_report()
    verdict = judge(report)
    assert verdict.level == "warning"
    assert verdict.sentence == (
        "Forgotten in 4 of 5 affected models; r4 still recognises 12.3 %; accuracy on the "
        "remaining classes is 88.0 % on average, 1.2 points below retraining; furthest from it is "
        "r3, 4.5 points below."
    )
    worse = "r3 is 4.5 points below the retrained model on the remaining classes."
    assert verdict.reservations == [worse]
    for model in report["models"]:
        if model["id"] == "r4":
            model["after"]["forget_accuracy"] = 1.0
    assert judge(report).sentence.startswith("Forgotten in all 5 affected models; accuracy on the")
    assert judge(report).level == "warning"
    for model in report["models"]:
        if model["id"] == "r3":
            model["after"]["retain_accuracy"] = 88.0
    assert judge(report).reservations == []
    assert judge(report).level == "good"


@pytest.mark.parametrize(
    ("outcome", "level", "sentence"),
    [
        ("partial", "warning", "Forgotten in 3 of 5 affected models; r4 failed; r6 pending; acc"),
        (
            "failed",
            "bad",
            "Nothing was forgotten: the request reached none of 5 affected models; "
            "r1, r2, r4, r3 and r6 failed.",
        ),
        (
            "unchanged",
            "warning",
            "Nothing was changed by this campaign: forgotten in 4 of 5 affected models; "
            "r4 still recognises 12.3 %;",
        ),
    ],
)
def test_verdict_of_other_outcomes(outcome: Outcome, level: str, sentence: str) -> None:
    report = make_report(outcome)
    verdict = judge(report)
    assert verdict.sentence.startswith(sentence)
    assert verdict.level == level
    assert verdict.sentence in Page(render_html(report)).text
    assert verdict.sentence in " ".join(printed(report).split())


def test_verdict_without_affected_models() -> None:
    report = make_report("unchanged")
    report["models"] = [m for m in report["models"] if m["role"] == "untouched"]
    report["graph"]["nodes"] = [n for n in report["graph"]["nodes"] if n["role"] == "untouched"]
    report["graph"]["edges"] = []
    assert judge(report).sentence == "Nothing to do: no model is affected by this request."
    Page(render_html(report))


def test_forgetting_is_judged_against_the_retrained_model() -> None:
    report = make_report()
    r4 = report["models"][4]
    assert r4["retrained"] is not None
    r4["retrained"]["forget_accuracy"] = 11.4
    assert "in all 5" in judge(report).sentence
    r4["retrained"]["forget_accuracy"] = 11.2
    assert "in 4 of 5" in judge(report).sentence


def test_reservations_name_what_does_not_add_up() -> None:
    report = make_report()
    d, _, r1, r2, r4, _, r6 = report["models"]
    d["digest_after"] = "changed"
    r1["digest_after"] = r1["digest_before"]
    r2["before"]["forget_accuracy"] = 0.4
    r6["tuned"] = False
    r4["retrained"] = None
    report["campaign"]["coverage"]["applied"] = 4
    report["splits"]["disjoint"] = False
    report["repeat"] = {"changed": 2, "already_applied": 3}
    said = "\n".join(judge(report).reservations)
    for words in (
        "The weights of d changed although nothing was applied",
        "r1 is reported as applied, but its weights did not change",
        "r2 recognised almost none of the classes before, so the result says nothing about r2",
        "strengths were used: r6",
        "no retrained reference for r4",
        "coverage of the campaign disagrees",
        "not held-out",
        "changed 2 models again",
    ):
        assert words in said


def test_speed_is_claimed_only_for_what_was_done() -> None:
    report = make_report()
    assert describe_speedup(report) == "23 times faster than replaying the training"
    report["timing"]["total"] = 143.0
    assert describe_speedup(report) == "2.0 times slower than replaying the training"
    for missing in (None, 0.0):
        report["timing"]["total"] = missing
        assert describe_speedup(report) == ""
    assert describe_speedup(make_report("partial")).endswith("but only 3 of 5 models were reached")
    assert (
        describe_speedup(make_report("failed")) == describe_speedup(make_report("unchanged")) == ""
    )


def test_failed_and_pending_models_are_listed_in_red() -> None:
    page = render_html(make_report("partial"))
    assert '<td class="bad-text">failed</td><td class="text">Expected a head of 10 rows' in page
    assert '<td class="bad-text">pending</td><td class="text">no answer yet' in page
    assert "r4 (hospital-b) failed: Expected a head" in printed(make_report("partial"))


@pytest.mark.parametrize(("scope", "named"), [("head", 2), ("all", 2), ("conv.*,head.*", 0)])
def test_rows_are_named_by_class_only_in_the_head(scope: str, named: int) -> None:
    report = make_report()
    model = report["models"][2]
    model["scope"] = report["request"]["method"]["scope"] = scope
    model["selections"].insert(0, {"parameter": "hidden.weight", "rows": [8] * 10, "total": 160})
    page = render_html(report)
    shown = page[page.index('<details id="m-r1" open>') :]
    shown = shown[: shown.index("</details>")]
    assert len(re.findall(r'class="strip"', shown)) == 3 - named
    assert ("Selected share of the head&#39;s rows" in shown) == bool(named)
    assert "Selected share of hidden.weight per row, 50.0 % in all" in shown
    assert ("suppression" in page) == (scope == "head")


def test_tables_show_all_figures_and_leave_markup_alone() -> None:
    report = make_report()
    report["request"]["id"] = "[red]x[/red]"
    text = printed(report)
    rows = [line.split() for line in text.splitlines()]
    assert ["r4", "applied", "95.1", "12.3", "0.0", "+12.3", "36.2"] in rows
    assert ["r4", "applied", "90.3", "89.9", "90.2", "-0.3", "81.1"] in rows
    assert ["r1", "(root)", "applied", "93.4", "0.0", "0.0", "0.0", "8.3"] in rows
    assert ["d", "untouched"] + ["n/a"] * 5 in rows
    shown = [row[0] for row in rows if len(row) > 6 and row[0] in GENERATION]
    assert shown == [*GENERATION] * 2
    assert "[red]x[/red]" in text
    assert "23 times faster" in text


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema_version",), 2, "Expected 1 as schema_version"),
        (("models", 3, "before", "forget_accuracy"), "no", r"models\[3\].before.forget_accuracy"),
        (("models", 3, "after", "retain_accuracy"), float("nan"), "a finite number"),
        (("models", 0, "before", "confusion"), [[1, 2]], "rows of 1 counts"),
        (("models", 0, "outcome"), "done", "'applied' or"),
        (("models", 0, "tuned"), 1, "true or false"),
        (("models", 2, "selections", 0, "total"), 3, "at most total = 3"),
        (("models", 2, "id"), "zz", "one model for each graph node"),
        (("graph", "edges", 0, "child"), "zz", "ids of graph nodes"),
        (("graph", "nodes", 0, "generation"), 4, "earlier generation"),
        (("scenario",), [], "an object"),
        (("environment", "cpus"), None, "text or a whole number"),
        (("scenario", "seed"), True, "a whole number"),
        (("models",), {}, "a list"),
    ],
)
def test_a_dict_that_is_no_report_is_refused(
    path: tuple[str | int, ...], value: object, message: str
) -> None:
    report = json.loads(json.dumps(make_report()))
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    for render in (render_html, render_tables, check_report):
        with pytest.raises(DataError, match=message):
            render(copy.deepcopy(report))


def test_keys_of_a_later_minor_version_are_left_alone() -> None:
    report = json.loads(json.dumps(make_report()))
    report["models"][0]["later"] = object()
    assert check_report(report) is report


def test_a_missing_key_is_named() -> None:
    report = json.loads(json.dumps(make_report()))
    del report["models"][1]["lambda"]
    with pytest.raises(DataError, match=r"the key models\[1\].lambda"):
        check_report(report)


def test_empty_charts_are_drawn() -> None:
    for image in (
        dot_plot([], "none"),
        histogram([], "none"),
        confusion_map([], [], [], "none"),
        row_strip([], "none"),
        time_bars([("nothing", [("total", "after", 0.0)])], "none"),
    ):
        assert ET.fromstring(image).get("aria-label") == "none"


def test_large_confusion_draws_only_what_is_there() -> None:
    labels = [f"class-{i}" for i in range(200)]
    counts = [[50 if i == j else 0 for j in range(200)] for i in range(200)]
    image = str(confusion_map(counts, labels, ["class-7", "class-8", "class-90"], "large"))
    assert image.count('class="heat"') == 200
    assert image.count('class="outline"') == 6
    # Two labels 4 pixels apart would overlap, so the second one is left out.
    assert re.findall(r">(class-\d+)<", image) == ["class-7", "class-90"] * 2


def test_long_strips_are_averaged() -> None:
    image = ET.fromstring(row_strip([1.0, 0.0] * 512, "long"))
    cells = [r for r in image.iter() if r.get("class") == "heat"]
    assert len(cells) == 128
    assert {cell.get("fill-opacity") for cell in cells} == {"0.500"}


def test_fixture_is_consistent() -> None:
    for model in make_report()["models"]:
        for key in ("before", "after"):
            evaluation = model[key]
            hit = {i: row[i] / sum(row) for i, row in enumerate(evaluation["confusion"])}
            labels = make_report()["graph"]["nodes"][0]["labels"]
            if model["forgotten"]:
                share = hit[labels.index(FORGOTTEN)]
                assert evaluation["forget_accuracy"] == pytest.approx(100 * share)
