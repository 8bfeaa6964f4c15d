"""Plots with axes: labels do not overlap, and all values are inside."""

import re
from itertools import pairwise

from disinherit.documents.plots import Line, Point, line_plot, log_bars, origin_scatter


def heights(image: str) -> list[float]:
    return sorted(float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)" class="name', image))


def test_labels_of_points_at_one_place_are_apart() -> None:
    points = [Point(f"m{i}", (0.0, 0.0), (0.0, 0.0), "other", labelled=True) for i in range(9)]
    found = heights(origin_scatter(points, "x", "y", "nine"))
    assert len(found) == 10, "the origin has its name, too"
    assert all(after - before >= 11.9 for before, after in pairwise(found))


def test_points_far_away_and_near_are_inside_the_plot() -> None:
    points = [
        Point("far", (95.0, 5.0), (-60.0, 0.0), "other", labelled=False),
        Point("near", (0.2, 0.0), (0.1, 0.3), "first", labelled=True),
    ]
    image = origin_scatter(points, "x", "y", "two")
    places = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3.6"', image)
    assert len(places) == 2
    assert all(40 <= float(x) <= 268 and 10 <= float(y) <= 188 for x, y in places)


def test_names_are_escaped() -> None:
    bad = "<script>&"
    images = (
        origin_scatter([Point(bad, (1.0, 1.0), (1.0, 1.0), "first", True)], bad, bad, bad),
        log_bars([(bad, 1.0, bad, "")], bad),
        line_plot([Line(bad, [(0, 1, 1, 1)])], bad, bad),
    )
    assert not any("<script" in one for one in images)


def test_values_of_one_size_have_bars_and_lines() -> None:
    bars = log_bars([("a", 10.0, "10 s", ""), ("b", 10.0, "10 s", "")], "same")
    assert bars.count("<rect") == 2
    line = line_plot([Line("flat", [(1, 2, 2, 2), (10, 2, 2, 2)])], "x", "flat", logarithmic=True)
    assert "nan" not in line
    assert heights(line)
