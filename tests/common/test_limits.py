"""The table of limits, its checks, and its copy in the docs."""

import re

import pytest

from disinherit.common.errors import GraphError, InputError
from disinherit.common.limits import (
    CLASSES,
    LOG_LINE,
    NAME,
    TABLE,
    check_digest,
    check_names,
    clipped,
)
from tests import ROOT

DOCS = (ROOT / "docs" / "limits.md").read_text()


def test_the_docs_show_the_table_of_limits() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", DOCS, re.MULTILINE)[2:]
    limits = [(one.name, f"{one.most:,} {one.unit}".strip(), one.what) for one in TABLE]
    assert rows == limits
    assert len({one.name for one in TABLE}) == len(TABLE)


def test_values_at_the_limit_pass_and_larger_ones_are_named() -> None:
    NAME.check_text("x" * 256, "a class name")
    with pytest.raises(GraphError, match=r"Expected a class name to have at most 256 char.* 257;"):
        NAME.check_text("x" * 257, "a class name", GraphError)
    CLASSES.check_items(range(100_000), "the classes")
    with pytest.raises(InputError, match=r"the classes to have at most 100,000 names, .* 100,001;"):
        CLASSES.check_items(range(100_001), "the classes")


@pytest.mark.parametrize("digest", ["", "0123456789abcdef" * 4])
def test_a_sha256_or_nothing_is_a_digest(digest: str) -> None:
    check_digest(digest, "the digest")


@pytest.mark.parametrize("digest", ["0a", "AB" * 32, "ab" * 32 + "\n", "٣" * 64, "0" * 3_145_248])
def test_anything_else_is_no_digest_and_the_message_stays_short(digest: str) -> None:
    with pytest.raises(InputError, match="Expected the digest to be 64 lower-case") as refused:
        check_digest(digest, "the digest")
    assert len(str(refused.value)) < 200


def test_a_name_that_is_too_long_is_shown_by_its_beginning() -> None:
    with pytest.raises(InputError, match=r"class 'yyy.*\.\.\.' to have at most 256") as refused:
        check_names(["cat", "y" * 10**6], "class")
    assert len(str(refused.value)) < 200


def test_a_log_line_is_clipped_to_its_limit() -> None:
    assert clipped("short") == "short"
    assert len(clipped("x" * 10**6)) == LOG_LINE.most
