"""The pages of the reference: made from the code, and with all of it."""

import re
from types import ModuleType

import pytest
import typer.main

from disinherit.cli.main import SECTIONS, app
from disinherit.server.states import CampaignState, TaskState
from tests import ROOT
from tests.support import (
    commands_page,
    messages_page,
    metrics_page,
    pictures,
    schemas_page,
    states_page,
)
from tests.support.messages_page import all_names
from tests.support.reference import meanings_of
from tests.support.schema_words import OF_ATTESTATIONS, OF_REPORTS
from tests.support.schemas_page import keys, predicates, reports

# Flower imports typer, which uses what click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click:DeprecationWarning")

PAGES = (commands_page, messages_page, metrics_page, schemas_page, states_page)


@pytest.mark.parametrize("made", PAGES, ids=lambda made: made.PAGE.name)
def test_a_page_is_made_from_the_code(made: ModuleType) -> None:
    assert made.PAGE.read_text() == made.page(), "run `make reference`"


def test_every_command_is_in_the_reference() -> None:
    root = typer.main.get_command(app)
    listed = re.findall(r"^### `(disinherit .+)`$", commands_page.page(), re.MULTILINE)
    assert len(listed) == len(set(listed)) > 40
    first = {name.split()[1] for name in listed}
    assert first == {
        n for section, names in SECTIONS.items() if section != "Other names" for n in names
    }
    assert first <= root.commands.keys()  # type: ignore[attr-defined]


def test_every_message_has_a_section_and_every_type_leads_to_one() -> None:
    text = messages_page.page()
    sections = re.findall(r"^### (?:Service )?`(\w+)`$", text, re.MULTILINE)
    assert sorted(sections) == sorted(all_names())
    assert {*re.findall(r"\]\(#(\w+)\)", text)} <= {name.lower() for name in sections}


@pytest.mark.parametrize("kind", [TaskState, CampaignState])
def test_every_state_has_a_meaning(kind: type[TaskState | CampaignState]) -> None:
    assert list(meanings_of(kind)) == [state.value for state in kind]


def test_exit_codes_are_said_alike_on_both_pages() -> None:
    """In words for people on one, and with the errors of each on the other."""
    text = (ROOT / "docs" / "command-line.md").read_text()
    said = dict(re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE))
    listed = dict(re.findall(r"^\| (\d+) \| (.*?) \|", states_page.page(), re.MULTILINE))
    assert said.keys() == listed.keys()
    assert {code: said[str(code)] for code in states_page.OUTCOMES} == states_page.OUTCOMES


def test_what_is_said_of_keys_is_of_keys_that_are_there() -> None:
    assert keys(reports()).keys() == OF_REPORTS.keys()
    assert keys(predicates()).keys() == OF_ATTESTATIONS.keys()


def test_the_schema_of_a_report_is_made_from_its_types() -> None:
    assert schemas_page.SCHEMA.read_text() == schemas_page.schema(), "run `make reference`"


def test_pictures_are_drawn_by_the_code_of_reports() -> None:
    stored = {path.name: path.read_text() for path in pictures.FOLDER.iterdir()}
    assert stored == pictures.pictures(), "run `make reference`"
