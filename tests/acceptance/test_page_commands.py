"""Commands of pages, run block by block on a coordinator with seven models, with its names.

Tutorials and the page on upkeep are run whole by tests of their own.  What is not run here is read
by tests/project/test_page_blocks.py.
"""

import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from disinherit.cli.main import run
from disinherit.server.service.token_edits import add_token
from tests import ROOT
from tests.support import campaign
from tests.support.command_line import Capture, as_json
from tests.support.pages import commands, name_of, pages, texts
from tests.support.report import make_report
from tests.support.service import Running, secret, serving, speak_as

RUN_WHOLE = re.compile(r"docs/(tutorial-\w+|upkeep)\.md")
REQUEST = "forget-0123456789ab"

NOT_RUN = {
    "serve|ui|agent( run)?|request watch --all": "runs until it is stopped",
    "demo|run start|simulate|bench (run|family)": "trains for minutes",
    "bench (report|pack|overview|scale)": "reads what such a run wrote",
    "flower": "asks a Flower app that has trained",
    "graph (import|discover)": "reads folders of models",
    "model register": "registers files of weights",
    "agent status": "asks about an agent of this device",
    "deploy|owner admit|doctor --server": "asks about programs of this machine",
}
"""Commands that are not run here -> why; CONTRIBUTING.md says so."""

READER = {
    f"{REQUEST[:6]}-\\.\\.\\.|case-118(?! --reason)": REQUEST,
    r"--server \S+|--ca \S+": "",
    "/etc/disinherit": "etc",
    "--store (/srv/models|models|store)\\b": "--store anna",
    "state/models --id gait": "anna --id r1",
    "acme--base": "r1",
    "owner-3": "ben",
    "owner-8": "cleo",
    "3@r1": "cat@r1",
    "--model chat": "--model r4",
    "model withdraw r1": "model withdraw r6",
    "sqlite:///": "sqlite:///{here}/",
    "revoke-key 9c56\\w+": "revoke-key {key}",
    "--head 9c56[\\w.]+": "--head {head}",
    "--plan 6b86[\\w.]+": "--plan {plan}",
    "family.json": "coordinator.db",
}
"""What a page names -> what is there in its place."""

WAITING = ("approve", "abort")
"""Commands for a request that waits for an approver; all others are for one that has ended."""

BY_APPROVER = ("approve", "rollback")
PARTLY = (
    "request watch",
    "request coverage",
    "coverage",
    "request report",
    "request plan",
    "doctor",
)
"""Commands whose exit code is 1 where not every model has forgotten, or something is lacking."""


def is_left_out(line: str) -> bool:
    return any(re.match(rf"({pattern})( |$)", line) for pattern in NOT_RUN)


def lines_of(text: str) -> list[list[str]]:
    """The commands of a block that are run here, without the name of the program."""
    found = [words[1:] for words in commands(text) if words[0] == "disinherit"]
    return [words for words in found if not is_left_out(" ".join(words))]


def scripts_of(page: Path) -> Iterator[list[list[str]]]:
    """Commands that follow each other: the blocks of a page, and each example of the reference."""
    for text in texts(page, "sh"):
        found = lines_of(text)
        yield from ([one] for one in found) if page.name == "commands.md" else [found]


SCRIPTS = [
    pytest.param(found, id=f"{name_of(page)}-{place}")
    for page in pages()
    if not RUN_WHOLE.fullmatch(name_of(page))
    for place, found in enumerate(scripts_of(page))
    if found
]


def test_what_is_not_run_is_there_and_said() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text().split())
    every = {
        " ".join(words[1:])
        for page in pages()
        for script in texts(page, "sh")
        for words in commands(script)
        if words[0] == "disinherit"
    }
    for pattern, why in NOT_RUN.items():
        assert why in text
        for one in re.split(r"\|(?![^(]*\))", pattern):
            assert any(re.match(rf"({one})( |$)", line) for line in every), one


def ask(*words: str, who: str = "operator") -> None:
    assert run([*words, "--token", secret(who)]) == 0, words


@pytest.fixture
def reader(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> Iterator[Running]:
    """A coordinator, and the folder of somebody with all the files that pages name."""
    campaign.copy(built, tmp_path / "world").store.close()
    with serving(tmp_path / "world") as running:
        speak_as("operator", running, monkeypatch)
        here = tmp_path / "here"
        shutil.copytree(running.world.root, here, ignore=shutil.ignore_patterns("signing*"))
        monkeypatch.chdir(here)
        for folder in ("etc", "runs/demo"):
            Path(folder).mkdir(parents=True)
        write_files(running.world.root, capsys)
        yield running


def write_files(world: Path, capsys: Capture) -> None:
    Path("serve.toml").write_text(
        f'database = "{world}/coordinator.db"\ntokens = "tokens.toml"\n'
        '[agents]\nauthority = "authority"\nhosts = ["localhost"]\n'
        'listen = "127.0.0.1:0"\nenrol_listen = "127.0.0.1:0"\n'
    )
    Path("runs/demo/report.json").write_text(json.dumps(make_report()))
    shutil.copy("coordinator.db", "runs/demo")
    Path("ids.txt").write_text("patient 7\npatient 8\n")
    capsys.readouterr()
    assert run(["samples", "digest", "ids.txt", "--store", "anna", "--model", "r1"]) == 0
    Path("erased.json").write_text(capsys.readouterr().out)


def prepare(line: str, running: Running) -> None:
    """Have what a command is about: a request in a state, and files of earlier commands."""
    words = line.split()
    if line.startswith("owner revoke"):
        assert run(["owner", "invite", "anna", "--config", "serve.toml"]) == 0
    if "token revoke" in line:
        add_token(Path("tokens.toml"), "alice", "operator", None)
    if words[:2] == ["token", "new"] and "--tokens" in words:
        Path(words[-1]).parent.mkdir(exist_ok=True)
        Path(words[-1]).touch()
    if line.startswith("config check etc"):
        assert run(["init", "agent", "--folder", "etc"]) == 0
        Path("etc/ca.pem").touch()
    if REQUEST in line or words[0] == "audit":
        begin(running, words)
    if "rollback" in words:
        run(["request", "watch", REQUEST])  # a page may have sent it again just before


def begin(running: Running, words: list[str]) -> None:
    if REQUEST in running.world.store.requests():
        return
    if "pause" in words or "resume" in words:
        running.world.transport.twists["cleo", "train.unlearn"] = campaign.gone
    at_once = ("--alpha", "1", "--lambda", "0.5", "--gauge", "3")
    ask("request", "submit", "--forget", "cat@r1", "--id", REQUEST, *at_once)
    if words[1] in WAITING:
        return
    ask("request", "approve", REQUEST, who="approver")
    if "resume" in words:
        ask("request", "pause", REQUEST)
    if "pause" in words or "resume" in words:
        return
    ask("request", "watch", REQUEST)
    if words[:2] == ["audit", "verify"]:
        ask("audit", "export", "--out", "audit.jsonl")
        ask("audit", "keys", "--out", "coordinator.pub")
        ask("audit", "attest", REQUEST, "--out", "attestation.json")


def found_out(running: Running, line: str, capsys: Capture) -> dict[str, str]:
    """What a reader has read off earlier output: hashes and places."""
    capsys.readouterr()
    found = {"here": str(Path.cwd())}
    if "{plan}" in line:
        found["plan"] = as_json(capsys, "request", "show", REQUEST)["plan_sha256"]
    if "{head}" in line:
        found["head"] = as_json(capsys, "audit", "export", "--out", "audit.jsonl")["head"]
    if "{key}" in line:
        (key,) = as_json(capsys, "audit", "keys", "--out", "coordinator.pub")["keys"]
        found["key"] = key["id"]
    return found


@pytest.mark.parametrize("lines", SCRIPTS)
def test_the_commands_of_a_page_do_what_they_are_there_for(
    lines: list[list[str]], reader: Running, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for words in lines:
        line = "\0".join(words)
        for theirs, here in READER.items():
            line = re.sub(theirs.replace(" ", "\0"), here.replace(" ", "\0"), line)
        prepare(line.replace("\0", " "), reader)
        line = line.format(**found_out(reader, line, capsys))
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # where a person is asked
        changes_deadline = {"resume", "--deadline"} <= {*words}
        approving = bool({*BY_APPROVER} & {*words}) or changes_deadline
        who = "approver" if approving else "operator"
        monkeypatch.setenv("DISINHERIT_TOKEN", secret(who))
        capsys.readouterr()
        code = run([word for word in line.split("\0") if word])
        printed = capsys.readouterr()
        allowed = {0, 1} if line.replace("\0", " ").startswith(PARTLY) else {0}
        assert code in allowed, f"{line}\n{printed.out}\n{printed.err}"
