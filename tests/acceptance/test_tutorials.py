"""The tutorials, run as a reader does: what a page says that is printed, is."""

import re
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.tutorial import pattern, run, script_of


def test_the_first_forgetting(tmp_path: Path) -> None:
    run("docs/tutorial-first.md", tmp_path)


def test_a_device_from_a_letter_to_an_attestation(tmp_path: Path) -> None:
    shown = ("50051", "50052", "50053")
    ports = dict(zip(shown, map(str, free_ports(3)), strict=True))
    run("docs/tutorial-erasure.md", tmp_path, ports)
    assert "[" in (tmp_path / "answer.txt").read_text()
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_what_a_page_says_is_compared() -> None:
    assert re.fullmatch(pattern("a 9.5%  of ...\n"), "a 12% of b c\n")
    assert not re.fullmatch(pattern("a 9.5%\n"), "a 12% b\n")


def test_installing_is_no_part_of_the_script() -> None:
    script, printed = script_of("docs/tutorial-first.md")
    assert "pip install" not in script
    assert "python first.py" in script
    assert len(printed) == 2
