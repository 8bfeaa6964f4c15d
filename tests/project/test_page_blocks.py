"""Commands and configurations on the pages are those of the programs, which read them here."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
from packaging.requirements import Requirement

from disinherit.cli.commands import LazyCommand
from disinherit.cli.main import app
from disinherit.client.agent.config import read_config
from disinherit.client.privacy.acceptance import read_acceptance
from disinherit.client.privacy.policy import read_policy
from disinherit.common.audit.canonical import canonical
from disinherit.common.audit.export import entry_line, header_line, read_entry, read_header
from disinherit.simulations.scenario.scenarios import load_scenario
from tests import ROOT
from tests.support.pages import blocks, commands, inline, name_of, pages, texts
from tests.support.tutorial import NAMED

LANGUAGES = {"python", "sh", "toml", "json", "pycon", ""}
"""Languages of blocks: test_readme.py runs Python, and `pycon` is of doctests; no language is for
what a program printed, and for drawings."""

READ = {
    "docs/agent.md": {"toml": 1},
    "docs/audit.md": {"json": 1},
    "docs/dashboard.md": {"toml": 1},
    "docs/federation.md": {"toml": 2},
    "docs/privacy.md": {"toml": 2},
    "docs/scenarios.md": {"toml": 1},
    "docs/service.md": {"toml": 1},
    "docs/tutorial-agent.md": {"toml": 3},
    "docs/tutorial-erasure.md": {"toml": 2},
    "docs/tutorial-federation.md": {"toml": 1},
}
"""Page -> blocks of settings and data that a test reads; those of federation.md:
test_readme.py; of dashboard.md: test_settings.py; of tutorials: test_tutorials.py."""

OF_THE_SYSTEM = {
    *(
        "/opt/open-unlearning/.venv/bin/pip",
        "apt-get",
        "cat",
        "cd",
        "cp",
        "docker",
        "export",
        "flwr",
        "git",
        "grep",
        "install",
        "jobs",
        "kill",
        "mv",
        "rm",
        "sleep",
        "source",
        "ssh-keygen",
        "systemctl",
        "tail",
        "true",
        "useradd",
        "wait",
    ),
}
"""Programs that are not ours; the units and files that they name are looked up."""

SAVED = {named[1] for page in pages() for _, text in blocks(page) if (named := NAMED.match(text))}
"""Files that a tutorial has its reader save; test_tutorials.py runs them."""

UNITS = {path.name for path in (ROOT / "deploy" / "systemd").iterdir()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Flower imports typer, which uses what click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click:DeprecationWarning")


def test_every_block_is_read_by_a_test() -> None:
    found: dict[str, dict[str, int]] = {}
    for page in pages():
        for language, _ in blocks(page):
            assert language in LANGUAGES, page
            if language in ("toml", "json"):
                counts = found.setdefault(name_of(page), {})
                counts[language] = counts.get(language, 0) + 1
    assert found == READ


def parse(words: list[str]) -> click.Context:
    """Read the words after `disinherit` as it does, and run nothing."""
    command: click.Command = typer.main.get_command(app)
    name, context, rest = "disinherit", None, words
    while True:
        command = command.load() if isinstance(command, LazyCommand) else command
        for one in command.params:
            if not one.is_eager:
                one.callback = None  # it would look for files of the reader
        context = command.make_context(name, list(rest), context)
        if not isinstance(command, click.Group):
            return context
        found, chosen, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None
        assert chosen is not None
        name, command = found, chosen


def check(words: list[str]) -> None:
    """Refuse a command that does not exist, or has options that it does not."""
    program, *rest = words
    if program in ("disinherit", "/opt/disinherit/bin/disinherit"):
        parse(rest)
    elif program == "make":
        check_make(rest)
    elif re.fullmatch(r"(\.venv/bin/)?python3?", program):
        check_python(rest)
    elif re.fullmatch(r"(/opt/disinherit/bin/)?pip", program):
        package, *others = rest[1:]
        found = re.fullmatch(r"(?:\.|/usr/local/src/disinherit)(?:\[([\w,]+)\])?", package)
        assert found, package
        assert {*filter(None, (found[1] or "").split(","))} <= PROJECT[
            "optional-dependencies"
        ].keys()
        assert all(Requirement(one).name for one in others)
    elif program == ".venv/bin/pytest":
        assert all((ROOT / one).exists() for one in rest if not one.startswith("-"))
    elif program == "flower-supernode":
        assert list(entry_points(group="console_scripts", name=program))
        shown = subprocess.run(
            [sys.executable, "-m", "disinherit.deploy.supernode", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert {one for one in rest if one.startswith("--")} <= {
            *re.findall(r"--[\w-]+", shown.stdout)
        }
    else:
        assert program in OF_THE_SYSTEM, program
        named = re.findall(r"disinherit-\w+(?:\.service)?", " ".join(rest))
        if program in ("systemctl", "install"):
            assert {one.removesuffix(".service") + ".service" for one in named} <= UNITS


def check_make(words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):(?!=)", text, re.MULTILINE))
    for word in words:
        variable, given, _ = word.partition("=")
        if given:
            assert f"$({variable})" in text
        else:
            assert word in targets


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
    else:
        assert (ROOT / words[0]).is_file() or words[0] in SAVED


SCRIPTS = [
    pytest.param(text, id=f"{name_of(page)}-{place}")
    for page in pages()
    for place, text in enumerate(texts(page, "sh"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_script_of_a_page_runs_is_there(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    found = commands(script)
    assert found
    for words in found:
        check(words)


MENTIONED = sorted(
    {
        text
        for page in pages()
        if page.name != "CHANGELOG.md"  # of what was
        for text in inline(page)
        if re.match(r"(disinherit|make|python|pip) ", text)
    }
)


@pytest.mark.parametrize("mentioned", MENTIONED)
def test_a_command_in_a_sentence_is_there(mentioned: str) -> None:
    """It may lack what the sentence is not about."""
    for words in commands(mentioned):
        try:
            check(words)
        except (click.MissingParameter, click.exceptions.NoArgsIsHelpError, click.exceptions.Exit):
            continue  # the last of them: --help


def examples_of(command: click.Command) -> Iterator[str]:
    """The examples in the help of a command, and of the commands in it."""
    command = command.load() if isinstance(command, LazyCommand) else command
    yield from re.findall(r"disinherit [^\n]+", command.epilog or "")
    if isinstance(command, click.Group):
        for one in command.commands.values():
            yield from examples_of(one)


def test_the_examples_in_the_help_are_there() -> None:
    found = list(examples_of(typer.main.get_command(app)))
    assert len(found) > 25
    for example in found:
        for words in commands(example):
            check(words)


def test_a_command_that_is_not_there_is_noticed() -> None:
    with pytest.raises(click.NoSuchOption, match="--speed"):
        check(["disinherit", "request", "submit", "--forget", "3@r1", "--speed", "high"])
    with pytest.raises(click.UsageError, match="No such command 'forget'"):
        check(["disinherit", "request", "forget"])
    with pytest.raises(AssertionError):
        check(["make", "coffee"])


def settings_of(page: str, tmp_path: Path, place: int = 0) -> Path:
    text = texts(page, "toml")[place]
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_an_agent_reads_the_configuration_of_its_page(tmp_path: Path) -> None:
    config = read_config(settings_of("docs/agent.md", tmp_path))
    assert config.owner == "anna"
    assert config.release.min_forget_samples == 20
    assert config.hours is not None


def test_a_policy_is_read_from_the_configuration_of_its_page(tmp_path: Path) -> None:
    values = tomllib.loads(settings_of("docs/privacy.md", tmp_path).read_text())
    policy = read_policy(values.pop("release"), "agent.toml")
    assert policy.max_sample_share == 0.5
    assert values == {}
    values = tomllib.loads(settings_of("docs/privacy.md", tmp_path, 1).read_text())
    assert not read_acceptance(values.pop("acceptance"), "agent.toml").accept_deltas
    assert values == {}


def test_a_scenario_is_read_from_its_page(tmp_path: Path) -> None:
    topology = load_scenario(str(settings_of("docs/scenarios.md", tmp_path)))
    assert topology.name == "mine"
    assert topology.ids == ("base", "tuned", "renamed", "mean")


def test_the_lines_of_an_export_are_in_the_form_of_their_page() -> None:
    (text,) = texts("docs/audit.md", "json")
    header, entry = values_in(text)
    line = canonical(header)
    assert header_line(read_header(line)) == line
    line = canonical(entry)
    assert entry_line(read_entry(line)) == line
    assert read_header(canonical(header)).head == read_entry(line).hash


def values_in(text: str) -> Iterator[dict[str, Any]]:
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        yield value
        rest = rest[end:].strip()
