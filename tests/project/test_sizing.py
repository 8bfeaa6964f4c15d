"""Sizes on the page on operations: the stored figures of the benchmark of the load."""

import json

from tests import ROOT


def test_the_sizes_of_a_machine_are_those_that_were_measured() -> None:
    page = (ROOT / "docs" / "operations.md").read_text().partition("## Sizing")[2]
    stored = json.loads((ROOT / "docs/figures/performance/load.json").read_text())["rows"]
    rows = {(row["database"], row["call"]): row for row in stored}
    mixed = rows["sqlite", "mixed, all"]
    added, one, two = (
        rows[key]["a second"]
        for key in (
            ("sqlite", "RegisterModels, versions"),
            ("postgresql", "looks, one coordinator"),
            ("postgresql", "looks, two coordinators"),
        )
    )
    for words in (
        f"measured: {mixed['MB fresh']} MB fresh",
        f"{mixed['MB before']} MB with 10,000 versions",
        f"up to {mixed['MB peak']} MB with fifty callers",
        f"{mixed['CPU ms a call']} ms of one core",
        f"{added:.0f} versions a second",
        f"{one:.0f} looks a second by one coordinator and {two:.0f} by two",
    ):
        assert words in page, words
