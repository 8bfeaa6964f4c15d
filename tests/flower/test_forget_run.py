"""The run of Flower that forgets: its bundle, what it hands on, and how it fails."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.flower_app import APP, CONFIG, AppGrid, context_of, example_app

from disinherit.cli.main import run  # isort: skip
from disinherit.common.errors import CampaignError, InputError, RequestError  # isort: skip
from disinherit.flower import forget_run  # isort: skip
from disinherit.flower.asked_for import PREFIX, VALUE, read_asked  # isort: skip
from disinherit.flower.forget_app import app  # isort: skip

Capture = pytest.CaptureFixture[str]


class FakeFlwr:
    """A program in the place of `flwr`, which prints lines; it keeps what it was called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
        self.lines = lines
        self.words: list[str] = []
        self.project: dict[str, Any] = {}
        monkeypatch.setattr(forget_run, "flwr_command", self)

    def __call__(self, *words: str) -> list[str]:
        self.words = [*words]
        self.project = tomllib.loads(Path(words[1], "pyproject.toml").read_text())
        return [sys.executable, "-c", "import sys; print(*sys.argv[1:], sep='\\n')", *self.lines]


def test_the_bundle_is_the_app_with_another_server(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    flwr = FakeFlwr(
        monkeypatch, "INFO : starting", "disinherit: request q: complete, 3 of 3 models", "bye"
    )
    assert run(["flower", "forget", str(APP), "hospital", "--samples", "node-0:3, 4"]) == 0
    assert capsys.readouterr().out == "request q: complete, 3 of 3 models\n"
    assert flwr.words[0] == "run"
    assert flwr.words[2:] == ["hospital", "--stream"]
    project = flwr.project["tool"]["flwr"]["app"]
    assert project["components"] == {
        "serverapp": "disinherit.flower.forget_app:app",
        "clientapp": "flower_app.client_app:app",
    }
    asked = read_asked(project["config"]["forget"])
    assert asked.samples == {"node-0": ("3", "4")}
    assert not Path(flwr.words[1]).exists()


def test_programs_get_json_and_people_see_it_beside(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    outcome = {"request": "q", "outcome": "partial", "changed": ["a~q"]}
    models = [{"model": "a", "state": "verified"}, {"model": "b", "state": "pending"}]
    said = "disinherit: request q: partial, 1 of 2 models settled"
    values = (f"disinherit: value {json.dumps(one)}" for one in (outcome, *models))
    FakeFlwr(monkeypatch, *values, said)
    assert run(["flower", "forget", str(APP), "hospital", "--class", "3", "-o", "json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {**outcome, "models": models}
    assert printed.err.splitlines()[1:] == ["request q: partial, 1 of 2 models settled"]


def test_exit_codes_and_reasons(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    words = ["flower", "forget", str(APP), "hospital", "--class", "3"]
    FakeFlwr(monkeypatch, "disinherit: request q: partial, 2 of 3 models settled")
    assert run(words) == 1
    FakeFlwr(monkeypatch, "disinherit: error: Expected a class, but got none.")
    assert run(words) == 1
    assert capsys.readouterr().err.endswith("\nerror: Expected a class, but got none.\n")
    FakeFlwr(monkeypatch, "Traceback", "flwr.X.ConnectionError: nobody listens", "more")
    assert run(words) == 1
    assert "ended with: flwr.X.ConnectionError: nobody listens. See flwr log" in (
        capsys.readouterr().err
    )
    framed = (
        "╭─ Error ─╮",
        "│ Failed to start within 15s. See │",
        "│ logs at x.log.        │",
        "╰─╯",
    )
    FakeFlwr(monkeypatch, "Starting local SuperLink...", *framed)
    assert run(words) == 1
    assert "ended with: Failed to start within 15s. See logs at x.log. See flwr log" in (
        capsys.readouterr().err
    )
    wrapper = "RuntimeError: An error was encountered. Ending simulation."
    FakeFlwr(monkeypatch, "AttributeError: first", "", "flwr.X.AppError: no app.", wrapper)
    assert run(words) == 1
    assert "ended with: flwr.X.AppError: no app. See flwr log" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "Expected one of --class, --samples and --client"),
        (["--class", "3", "--client", "node-1"], "Expected one of --class, --samples"),
        (["--samples", "node-0"], "such as node-0:17,42, but got 'node-0'"),
        (["--samples", ":1"], "but got ':1'"),
    ],
)
def test_wrong_words_are_refused(words: list[str], reason: str, capsys: Capture) -> None:
    assert run(["flower", "forget", str(APP), *words]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_a_folder_that_is_no_app_is_refused(tmp_path: Path) -> None:
    for text in (None, "[tool]", "[[["):
        if text is not None:
            (tmp_path / "pyproject.toml").write_text(text)
        with pytest.raises(InputError, match="Expected the folder of a Flower app"):
            forget_run.run_forget(tmp_path, "", "{}", print, print)


@pytest.mark.parametrize("text", [None, 3, "3", "[1]", "{", '{"class": ["3"]}', '{"classes": "3"}'])
def test_what_is_asked_is_json(text: object) -> None:
    with pytest.raises(InputError) as raised:
        read_asked(text)
    assert "\n" not in str(raised.value)


def test_the_server_app_prints_what_became_of_it(tmp_path: Path, capsys: Capture) -> None:
    with example_app(tmp_path / "models") as load:
        grid = AppGrid(load("flower_app.client_app").app, 2)
        with pytest.raises(RequestError, match="Train first"):
            app(grid, context_of({**CONFIG, "forget": '{"classes": ["3"]}'}))
        assert (
            "disinherit: error: Expected models of 'disinherit.flower-app'"
            in capsys.readouterr().out
        )
        load("flower_app.server_app").app(grid, context_of())
        app(grid, context_of({**CONFIG, "forget": json.dumps({"classes": ["3"]})}))
    printed = capsys.readouterr().out.splitlines()
    said = [one.removeprefix(PREFIX) for one in printed if one.startswith(PREFIX)]
    lines = [one for one in said if not one.startswith(VALUE)]
    first, *models = (json.loads(one.removeprefix(VALUE)) for one in said if one not in lines)
    assert first["outcome"] == "complete"
    assert {one["state"] for one in models} == {"verified"}
    assert models[-1]["forget"]["after"] == 0
    assert ": complete, " in lines[0]
    assert lines[-1].endswith("final_model.pt")


def test_an_app_that_is_no_owner_app_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("disinherit.flower.owner_apps._MADE", [])
    with example_app(tmp_path / "models") as load:
        server = load("flower_app.server_app")
        stock = AppGrid(load("flwr.clientapp").ClientApp(), 2)
        with pytest.raises(InputError, match=r"Write app = owner_app\(ClientApp\(\)"):
            server.app(stock, context_of())


def test_failures_of_campaigns_have_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeFlwr(monkeypatch)
    with pytest.raises(CampaignError, match="it ended with: nothing"):
        forget_run.run_forget(APP, "hospital", "{}", print, print)
