"""Files of other projects are those that NOTICE lists, byte for byte."""

import hashlib
import re

import pytest

from tests import ROOT
from tests.support.vendored import Vendored, vendored

FOLDERS = ("ui/static/vendor", "tests/ui/vendor")


@pytest.mark.parametrize("one", list(vendored()), ids=lambda one: one.file)
def test_a_file_is_as_it_was_published(one: Vendored) -> None:
    assert hashlib.sha256((ROOT / one.file).read_bytes()).hexdigest() == one.sha256


def test_every_file_is_listed_with_its_licence() -> None:
    listed = {one.file for one in vendored()}
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).iterdir()
        if path.is_file()
    }
    assert found == listed
    licences = {one.package for one in vendored() if one.path == "LICENSE"}
    assert {one.package for one in vendored()} == licences


def test_files_from_pypi_are_listed_and_unchanged() -> None:
    listed = dict(
        re.findall(
            r"^  (tests/project/\S+)\n    flwr \S+ \S+, Apache-2\.0, .+\n    sha256 (\w{64})$",
            (ROOT / "NOTICE").read_text(),
            re.MULTILINE,
        )
    )
    found = {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / "tests/project/flwr_new").iterdir()
    }
    assert found == listed
