"""The command line as a client of the service: submit, control, watch, list, and errors."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from disinherit.cli.main import run
from disinherit.cli.request.report import _measured, _print_evidence
from disinherit.client.store.store import ModelStore
from disinherit.common.graph.records import Provenance
from disinherit.common.tensors.checkpoints import save_checkpoint
from disinherit.documents.campaign.evidence_words import recognition_in_words
from disinherit.server.states import CampaignEvent
from disinherit.server.transport.base import Answer, Ask
from disinherit.v1 import unlearning_pb2
from tests.support import campaign
from tests.support.command_line import Capture, as_json, error_line
from tests.support.service import Running, secret, speak_as, write_tokens


@pytest.fixture
def running(running: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    speak_as("operator", running, monkeypatch)
    return running


METHOD = ("--alpha", "1", "--lambda", "0.5", "--gauge", "3")
SUBMIT = ("request", "submit", "--forget", "cat@r1", "--reason", "asked to", "--alpha", "1")


def lines_of(capsys: Capture) -> list[str]:
    """Lines of a watch in a pipe, without the times that each change begins with."""
    return [
        re.sub(r"^[0-2][0-9]:[0-5][0-9]:[0-5][0-9] (?=[a-z])", "", line)
        for line in capsys.readouterr().out.splitlines()
    ]


def test_from_submission_to_coverage(running: Running, capsys: Capture) -> None:
    status = as_json(capsys, *SUBMIT, "--lambda", "0.5", "--gauge", "3", "--deadline", "7d")
    request = status["id"]
    assert re.fullmatch("forget-[0-9a-f]{12}", request)
    assert status["state"] == "awaiting_approval"
    assert status["roots"] == [
        {"model": "r1", "classes": ["cat"], "samples": [], "sample_count": 0, "salt": None}
    ]
    assert status["deadline"] is not None
    assert as_json(capsys, *SUBMIT, "--lambda", "0.5", "--gauge", "3") == status
    owners = {"anna": ["r1", "r4"], "ben": ["r2", "r6"], "cleo": ["r3"]}
    assert as_json(capsys, "request", "show", request) == {**status, "owners": owners}
    assert re.fullmatch("[0-9a-f]{64}", status["plan_sha256"])
    assert as_json(capsys, "request", "list") == [{**status, "plan_sha256": None}]
    uncovered = as_json(capsys, "coverage", request, code=1)
    assert {one["state"] for one in uncovered} == {"pending"}

    assert run(["request", "approve", request]) == 4  # an operator is no approver
    assert "Expected the token of an approver to approve a request" in error_line(capsys)
    approver = ("--token", secret("approver"))
    assert as_json(capsys, "request", "approve", request, *approver)["state"] == "running"

    assert run(["request", "watch", request, "--format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["state"] == "complete"
    assert lines[-1]["tasks"] == {"verified": 5}

    covered = as_json(capsys, "coverage", request)
    assert [one["model"] for one in covered] == list(campaign.AFFECTED)
    assert all(one["successor"].startswith(one["model"]) for one in covered)
    models = {one["id"]: one for one in as_json(capsys, "model", "list")}
    assert models["r1"]["status"] == "superseded"
    assert models[covered[0]["successor"]]["digest"] == covered[0]["digest_after"]


def test_a_plan_is_what_a_submission_would_do(running: Running, capsys: Capture) -> None:
    command = ("request", "plan", *SUBMIT[2:], "--mechanism", "delta")
    planned = as_json(capsys, *command)
    assert [one["model"] for one in planned["models"]] == list(campaign.AFFECTED)
    assert planned["models"][0] == {
        **{"model": "r1", "owner": "anna", "role": "root", "state": "pending", "reason": ""},
        **{"recipe": None, "shares": {"r1": 1.0}},
    }
    assert planned["method"]["mechanism"] == "delta"
    if isinstance(running.world.place, Path):
        assert as_json(capsys, *command, "--store", str(running.world.root)) == planned
    assert as_json(capsys, "request", "list") == []
    assert run([*command]) == 0
    out = capsys.readouterr().out
    assert "descendant" in out
    assert "of r1" in out
    assert run([*command, "--canary", "nobody"]) == 2
    assert "nobody" in error_line(capsys)
    assert run([*command, "--store", "elsewhere.db"]) == 2
    assert "elsewhere.db" in error_line(capsys)
    assert run([*command, "--deadline", "soon"]) == 2
    assert "duration" in error_line(capsys)
    assert run(["request", "plan"]) == 2
    assert "at least one class" in error_line(capsys)


def test_a_plan_names_the_options_of_roots_that_it_warns_of(
    running: Running, capsys: Capture
) -> None:
    assert run(["request", "plan", "--forget", "cat@r1"]) == 0
    (hint,) = (line for line in lines_of(capsys) if line.startswith("to name them as roots"))
    named = hint.partition(": ")[2].split()
    assert named[::2] == ["--forget"] * 4
    assert {*named[1::2]} == {"cat@r2", "cat@r3", "cat@r4", "cat@r6"}
    assert run(["request", "plan", "--forget", "cat@r1", *named]) == 0
    assert "to name them" not in capsys.readouterr().out


def test_tables_for_people(running: Running, capsys: Capture) -> None:
    assert run([*SUBMIT, "--id", "q"]) == 0
    assert "cat at r1" in capsys.readouterr().out
    for command in (["request", "list"], ["request", "show", "q"]):
        assert run(command) == 0
        out = capsys.readouterr().out
        assert "awaiting_approval" in out
        assert "5 pending" in out
    assert run(["coverage", "q"]) == 1
    assert "cleo" in capsys.readouterr().out
    assert run(["model", "list", "--owner", "ben"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_abort_pause_and_resume(running: Running, capsys: Capture) -> None:
    as_json(capsys, *SUBMIT, "--id", "q")
    assert run(["request", "pause", "q"]) == 2
    assert "awaiting_approval" in error_line(capsys)
    running.world.transport.twists["anna", "query.fisher"] = campaign.gone
    as_json(capsys, "request", "approve", "q", "--token", secret("approver"))
    assert as_json(capsys, "request", "pause", "q")["state"] == "paused"
    assert run(["request", "resume", "q", "--deadline", "30d"]) == 4
    assert "approver" in error_line(capsys)
    approver = ("--token", secret("approver"))
    resumed = as_json(capsys, "request", "resume", "q", "--deadline", "30d", *approver)
    assert resumed["state"] == "running"
    assert resumed["deadline"] is not None
    assert as_json(capsys, "request", "abort", "q")["state"] == "aborted"
    assert run(["request", "watch", "q"]) == 1
    assert lines_of(capsys)[0].startswith("aborted: ")


def test_a_watch_says_why_a_request_with_failed_models_goes_on(
    running: Running, capsys: Capture
) -> None:
    passes = []

    def fails_until_aborted(ask: Ask, honest: Callable[[], Answer]) -> Answer:
        passes.append(ask)
        if len(passes) == 2:
            running.world.store.transition("q", CampaignEvent.ABORT)
        return campaign.broken(ask, honest)

    running.world.transport.twists["anna", "query.fisher"] = fails_until_aborted
    as_json(capsys, *SUBMIT, "--id", "q")
    as_json(capsys, "request", "approve", "q", "--token", secret("approver"))
    assert run(["request", "watch", "q"]) == 1
    lines = lines_of(capsys)
    assert lines[-1].startswith("aborted: ")
    hints = [line for line in lines if line.startswith("What failed is tried again")]
    assert len(hints) == 1
    assert "`disinherit coverage q` says why" in " ".join(lines)


def test_a_roll_out_halts_by_itself(running: Running, capsys: Capture) -> None:
    def loses(reply: unlearning_pb2.UnlearnReply) -> None:
        for model in reply.models:
            model.retain_after = model.retain_before - 0.09

    running.world.transport.twists["cleo", "train.unlearn"] = campaign.lying(loses)
    staged = ("--canary", "cleo", "--wave", "50%", "--max-drop", "2")
    status = as_json(capsys, *SUBMIT, *staged, "--id", "q")
    assert status["waves"] == {"begun": 1, "of": 2}
    as_json(capsys, "request", "approve", "q", "--token", secret("approver"))
    assert run(["request", "watch", "q"]) == 1
    last = lines_of(capsys)[-1]
    assert last.startswith("halted (halted in wave 1 of 2: r3 lost 9.0 points of retain accuracy")
    assert last.endswith(": 4 halted, 1 verified")
    covered = as_json(capsys, "coverage", "q", code=1)
    assert {one["model"]: one["wave"] for one in covered if one["owner"] == "cleo"} == {"r3": 1}
    assert "halted in wave 1" in as_json(capsys, "request", "show", "q", code=1)["halted"]
    assert as_json(capsys, "request", "report", "q", code=1)["coverage"]["halted"] == 4

    assert run(["request", "resume", "q"]) == 4  # only an approver passes a gate
    assert "an approver" in error_line(capsys)
    assert as_json(capsys, "request", "show", "q", code=1)["state"] == "halted"
    resumed = as_json(capsys, "request", "resume", "q", "--token", secret("approver"))
    assert resumed["state"] == "running"
    assert run(["request", "watch", "q"]) == 0
    assert lines_of(capsys)[-1] == "complete: 5 verified"
    # A person reads there what the page says.
    values = as_json(capsys, "request", "report", "q")
    said = {recognition_in_words(one["applied"]["forget"]) for one in values["models"]}
    assert run(["request", "report", "q"]) == 0
    shown = capsys.readouterr().out
    assert all(words in shown for words in said)


def test_samples_are_reported_with_all_that_was_measured(capsys: Capture) -> None:
    """An AUC alone hides a few samples that are found again."""
    found = {
        **{"measure": "auc", "before": 0.8, "after": 0.51, "floor": 0.5, "margin": 0.1},
        **{"named_before": 0.95, "named_after": 0.2, "named_chance": 0.3, "samples": 40},
        "at_1_percent_false_alarms": {
            **{"before": 0.3, "after": 0.0, "unseen": 200, "never_saw": 0.01}
        },
    }
    worse = {**found, "after": 0.7}
    models = [
        {"model": name, "applied": {"forget": figures}}
        for name, figures in (("r1", found), ("r2", found), ("u1", worse), ("u2", None))
    ]
    _print_evidence(models)
    _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("u1")
    assert second.startswith("r1 and r2  an attacker picks")
    assert "names 20.0 % of them by their own labels" in second
    assert "an attacker finds 0 of 40" in second
    assert _measured(models[0], "forget") == "named 95.0 → 20.0 %, AUC 0.80 → 0.51 of 40"


def test_retention_is_set_at_submission(running: Running, capsys: Capture) -> None:
    assert as_json(capsys, *SUBMIT, "--id", "q", "--retention", "12h")["retention_seconds"] == 43200
    assert as_json(capsys, *SUBMIT, "--id", "r")["retention_seconds"] is None
    assert running.world.store.request("q").retention_seconds == 43200
    assert run([*SUBMIT, "--id", "s", "--retention", "long"]) == 2
    assert "'long'" in error_line(capsys)


def test_a_request_is_rolled_back(running: Running, capsys: Capture) -> None:
    digests = {one["id"]: one["digest"] for one in as_json(capsys, "model", "list")}
    as_json(capsys, *SUBMIT, "--lambda", "0.5", "--gauge", "3", "--id", "q")
    approver = ("--token", secret("approver"))
    back = ("request", "rollback", "q", "--reason", "too much\nwas lost")
    assert run([*back, *approver]) == 2
    assert "awaiting_approval" in error_line(capsys)
    as_json(capsys, "request", "approve", "q", *approver)
    assert run(["request", "watch", "q"]) == 0
    capsys.readouterr()
    assert run([*back]) == 4  # an operator is no approver
    assert "Expected the token of an approver to roll a request back" in error_line(capsys)
    assert run([*back, "--model", "d", *approver]) == 2
    assert "'d'" in error_line(capsys)
    assert as_json(capsys, *back, "--model", "r4", *approver)["state"] in (
        "rolling_back",
        "rolled_back",
    )
    assert run(["request", "watch", "q"]) == 0
    assert lines_of(capsys)[-1] == "rolled_back: 1 rolled_back, 4 verified"
    as_json(capsys, *back, *approver)
    assert run(["request", "watch", "q"]) == 0
    capsys.readouterr()
    covered = as_json(capsys, "coverage", "q", code=1)
    assert {(one["state"], one["reason"]) for one in covered} == {
        ("rolled_back", "too much was lost")
    }
    models = {one["id"]: one for one in as_json(capsys, "model", "list")}
    current = {id: one["digest"] for id, one in models.items() if one["status"] == "active"}
    assert current == digests
    assert models["r4~q"]["status"] == "retired"
    assert run(["request", "rollback", "nobody", "--reason", "x", *approver]) == 5
    assert "'nobody'" in error_line(capsys)


def test_registering_a_version_by_its_checkpoint(
    running: Running, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "new.safetensors"
    digest = save_checkpoint(path, running.world.weights("r4"))
    old = running.world.store.graph().model("r4")
    register = ["model", "register", str(path), "--id", "new", "--owner", "anna"]
    register += [f"--label={name}" for name in old.labels]
    register += ["--parent", "r4", "--kind", "incremental", "--dataset", "x", "--samples", "cat=3"]
    (shown,) = as_json(capsys, *register)
    assert shown["digest"] == digest
    assert shown["architecture"] == old.architecture
    graph = running.world.store.graph()
    provenance = graph.model("new").provenance
    assert provenance is not None
    assert dict(provenance.samples_per_class) == {"cat": 3}
    assert [(edge.parent, edge.weight) for edge in graph.parents("new")] == [("r4", 1.0)]
    assert as_json(capsys, *register) == [shown]
    assert run([*register, *(f"--label=more-{place}" for place in range(50))]) == 2
    assert f"but got {len(old.labels) + 50}, and no tensor of it has so many" in error_line(capsys)
    merge = [*register[:3], "--id", "merged", "--owner", "anna", *register[7:-8]]
    assert run([*merge, "--parent", "r1=0.6", "--parent", "r2=0.3"]) == 2
    assert "sum to 1" in error_line(capsys)
    assert run([*merge, "--parent", "r1=most"]) == 2
    assert "'r1=most'" in error_line(capsys)


def test_registering_a_version_by_the_folder_of_its_owner(
    running: Running, tmp_path: Path, capsys: Capture
) -> None:
    old = running.world.store.graph().model("r4")
    labels = ("tabby", *old.labels[1:])
    counts = Provenance("pets", {"tabby": 5})
    with ModelStore(tmp_path / "ivan", "ivan") as store:
        record = replace(old, id="kept", owner="ivan", labels=labels, provenance=counts)
        store.add(replace(record, fisher_digest="", fisher_scale=None), running.world.weights("r4"))
    register = ["model", "register", str(tmp_path / "ivan"), "--id", "kept", "--owner", "ivan"]
    parents = ["--parent", "r4", "--kind", "transfer"]
    (shown,) = as_json(capsys, *register, *parents, "--rename", f"r4:{old.labels[0]}=tabby")
    assert (shown["digest"], tuple(shown["labels"])) == (old.digest, labels)
    graph = running.world.store.graph()
    assert graph.model("kept").provenance == counts
    (edge,) = graph.parents("kept")
    assert dict(edge.labels) == {old.labels[0]: "tabby"}
    for words, reason in (
        (["--label", "cat"], "whose record says them"),
        ([*parents, "--rename", "r4"], "PARENT:CLASS=NAME, but got 'r4'"),
        ([*parents, "--rename", "r1:cat=tabby"], "--rename for a --parent, but got it for 'r1'"),
        ([*parents, "--kind", "transfer"], "once for each of 1 parents, but got it 2 times"),
    ):
        assert run([*register, *words]) == 2
        assert reason in error_line(capsys)
    assert run(["model", "register", str(tmp_path), *register[3:]]) == 2
    assert "has no index.db" in error_line(capsys)


def test_samples_or_a_client_can_be_submitted_instead_of_classes(
    running: Running, tmp_path: Path, capsys: Capture
) -> None:
    ids, named = tmp_path / "ids.txt", tmp_path / "erased.json"
    ids.write_text("cat-0\ndog-3\n\ncat-0\n")
    store = ("--store", str(running.world.root / "anna"))
    assert run(["samples", "digest", str(ids), *store, "--model", "r1", "--salt", "0f" * 16]) == 0
    named.write_text(capsys.readouterr().out)
    assert "cat-0" not in named.read_text()
    strength = ("--scope", "all", "--alpha", "3", "--lambda", "1", "--gauge", "0")
    asked = ("request", "submit", "--samples", str(named), *strength)
    status = as_json(capsys, *asked)
    (root,) = status["roots"]
    assert (root["model"], root["classes"], root["salt"]) == ("r1", [], "0f" * 16)
    assert root["samples"] == json.loads(named.read_text())["digests"]
    assert status["client"] is None
    assert run([*asked]) == 0
    assert "2 samples at r1" in capsys.readouterr().out
    approver = ("--token", secret("approver"))
    as_json(capsys, "request", "approve", status["id"], *approver)
    # The root fits these two samples perfectly and is not trained again exactly, so nothing shows
    # that it forgot them; nor in another model of its owner, where their losses did not rise.
    assert run(["request", "watch", status["id"]]) == 1
    assert "partial: 5 ineffective" in capsys.readouterr().out
    status = as_json(capsys, "request", "submit", "--client", "ben")
    assert status["client"] == "ben"
    assert {root["model"] for root in status["roots"]} == {"s", "r2", "r6"}
    assert as_json(capsys, "request", "submit", "--client", "ben") == status
    assert run(["request", "submit", "--client", "ben"]) == 0
    assert "all of ben at r2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("request", "submit"), "--forget cat@r1"),
        (("request", "submit", "--forget", "cat"), "'cat'"),
        (("request", "submit", "--samples", "gone.json"), "gone.json"),
        (("request", "submit", "--forget", "cat@r1", "--client", "ben"), "several of these"),
        (("request", "submit", "--client", "zoe"), "'zoe' trained none"),
        (
            ("request", "submit", "--forget", "dodo@r1"),
            "of 'r1' ('cat', 'dog', 'owl', 'yak'), but class 1",
        ),
        (("request", "submit", "--forget", "cat@nobody"), "'nobody'"),
        (("request", "submit", "--forget", "catt@r1"), "unknown. Did you mean 'cat'?"),
        (("request", "submit", "--forget", "cat@r11"), "the id. Did you mean 'r1'?"),
        (("request", "plan", "--forget", "cat@r11"), "the id. Did you mean 'r1'?"),
        (("request", "submit", "--client", "benn"), "registered. Did you mean 'ben'?"),
        (("request", "submit", "--forget", "cat@r1", "--canary", "anne"), "Did you mean 'anna'?"),
        (("request", "submit", "--forget", "cat@r1", "--alpha", "0"), "alpha > 0"),
        (("request", "submit", "--forget", "cat@r1", "--deadline", "soon"), "'soon'"),
        (
            ("request", "submit", "--forget", "cat@r1", "--wave", "some"),
            "10% or 25, but got 'some'",
        ),
        (("request", "submit", "--forget", "cat@r1", "--canary", "zoe"), "'zoe'"),
        (("request", "submit", "--forget", "cat@r1", "--max-drop", "-1"), "got -1"),
        (("request", "list", "--ca", "gone.pem"), "gone.pem"),
    ],
)
def test_wrong_input_prints_one_line(
    arguments: tuple[str, ...], named: str, running: Running, capsys: Capture
) -> None:
    assert run(list(arguments)) == 2
    assert named in error_line(capsys)
    assert running.world.store.requests() == []


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ("request show nothing", 5, "'nothing'"),
        ("request watch nothing", 5, "'nothing'"),
        ("coverage nothing", 5, "'nothing'"),
        ("request list --token wrong", 4, "token"),
        ("request list --token=", 4, "DISINHERIT_TOKEN"),
        ("request approve nothing", 4, "approver"),
    ],
)
def test_exit_codes_say_what_kind_of_error_it_is(
    arguments: str, code: int, named: str, running: Running, capsys: Capture
) -> None:
    assert run(arguments.split()) == code
    assert named in error_line(capsys)


class _Failed(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "UNKNOWN: ipv4:127.0.0.1:1: [Errno 111] Connection refused"


@pytest.mark.parametrize("more", [(), ("--verbose",)])
def test_what_grpc_says_is_for_those_who_ask(
    more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(*_: object) -> None:
        raise _Failed

    monkeypatch.setattr("disinherit.cli.connection.Connection.open_channel", fail)
    assert run(["request", "list", *more]) == 3
    assert ("Errno 111" in error_line(capsys)) == bool(more)


def test_unreachable_service_prints_one_line(capsys: Capture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for command in (["request", "list"], ["request", "watch", "q"]):
        assert run([*command, "--server", address]) == 3
        line = error_line(capsys)
        assert f"a coordinator at {address}" in line
        assert "refused" in line
        assert "--server" in line


@pytest.mark.parametrize(
    "command",
    ["serve", "coverage", "model register", "model list", "audit export"]
    + [
        f"request {name}"
        for name in (
            "submit",
            "approve",
            "list",
            "show",
            "watch",
            "abort",
            "pause",
            "resume",
            "rollback",
            "export",
        )
    ],
)
def test_help_has_examples_and_all_options(command: str, capsys: Capture) -> None:
    assert run([*command.split(), "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"disinherit {command}" in out.partition("Example")[2]
    if command != "serve":
        assert "DISINHERIT_SERVER" in out
        assert ("--as" if command == "request export" else "--format") in out


# The service itself


def test_a_service_in_a_process_of_its_own(built: Path, tmp_path: Path, capsys: Capture) -> None:
    root = shutil.copytree(built, tmp_path / "copy")
    write_tokens(root / "tokens.toml")
    (root / "serve.toml").write_text(
        'database = "coordinator.db"\ntokens = "tokens.toml"\nlisten = "127.0.0.1:0"\n'
    )
    code = "import sys; from disinherit.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", "--config", str(root / "serve.toml")]
    with subprocess.Popen(
        [*command, "--plaintext"], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            assert process.stderr is not None
            port = re.search("serving on port ([0-9]+)", process.stderr.readline())
            assert port is not None
            server = ("--server", f"127.0.0.1:{port[1]}", "--token", secret("viewer"))
            assert len(as_json(capsys, "model", "list", *server)) == 7
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "--database"),
        ("--database {}/c.db", "--tokens"),
        ("--database {}/c.db --tokens {}/tokens.toml", "--plaintext"),
        ("--database {}/c.db --tokens {}/gone --plaintext", "gone"),
        ("--database {}/no/c.db --tokens {}/tokens.toml --plaintext --listen 127.0.0.1:0", "c.db"),
        ("--database {}/c.db --tokens {}/tokens.toml --plaintext --listen 0.0.0.0:0", "loopback"),
    ],
)
def test_failed_service_start_prints_the_reason(
    arguments: str, named: str, tmp_path: Path, capsys: Capture
) -> None:
    write_tokens(tmp_path / "tokens.toml")
    assert run(["serve", *arguments.replace("{}", str(tmp_path)).split()]) == 2
    assert named in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.toml"]


def finished(running: Running, capsys: Capture, *arguments: str) -> str:
    """Submit a request, have it approved, and return its id once it is complete."""
    submit = (*SUBMIT, "--lambda", "0.5", "--gauge", "3", *arguments)
    request: str = as_json(capsys, *submit)["id"]
    as_json(capsys, "request", "approve", request, "--token", secret("approver"))
    assert run(["request", "watch", request]) == 0
    capsys.readouterr()
    return request


def test_an_erasure_that_was_done_is_said_and_done_again_on_demand(
    running: Running, capsys: Capture
) -> None:
    first = finished(running, capsys)
    # The same request is the same one, whatever its reason; nothing is submitted.
    other = [*SUBMIT[:4], "--reason", "asked once more", *SUBMIT[6:], "--lambda", "0.5"]
    assert run([*other, "--gauge", "3", "-q"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{first}\n"
    assert f"cat at r1: this was asked before, and {first} is complete since" in printed.err
    assert "--again" in printed.err
    assert len(as_json(capsys, "request", "list")) == 1
    # The same erasure in other words is refused, with what did it.
    assert run([*SUBMIT, "--id", "other"]) == 2
    line = error_line(capsys)
    assert f"cat at r1 was forgotten by {first} on 20" in line
    assert "--again" in line
    # Once more, on demand: under an id of its own, and once only.
    renewed = as_json(capsys, *other, "--gauge", "3", "--again")
    assert renewed["id"] == f"{first}-2"
    assert as_json(capsys, *other, "--gauge", "3", "--again")["id"] == f"{first}-2"
    assert as_json(capsys, *SUBMIT, "--id", "other", "--again")["id"] == "other"


def test_each_state_says_what_to_do_next(running: Running, capsys: Capture) -> None:
    assert run([*SUBMIT, "--id", "q"]) == 0
    said = capsys.readouterr().err
    assert "Waiting for an approver: disinherit request approve q" in said
    assert "disinherit request watch q" in said
    assert run(["request", "abort", "q"]) == 0
    assert "disinherit request rollback q" in capsys.readouterr().err


def test_ids_alone_are_for_scripts(running: Running, capsys: Capture) -> None:
    assert run(["request", "list"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "No requests yet. Submit one: disinherit request submit" in printed.err
    assert run([*SUBMIT, "-q", "--id", "q"]) == 0
    assert run(["request", "list", "-q"]) == 0
    assert capsys.readouterr().out == "q\nq\n"
    assert run(["request", "list", "-q", "--owner", "cleo"]) == 0
    assert capsys.readouterr().out == "q\n"
    assert run(["request", "list", "--owner", "nobody"]) == 0
    assert capsys.readouterr().err == "No request affects a model of nobody.\n"
    assert run(["model", "list", "-q", "--owner", "anna"]) == 0
    assert "r1" in capsys.readouterr().out.splitlines()
    assert run(["request", "list", "-o", "wide"]) == 0
    assert "+00:00" in capsys.readouterr().out
