"""Completion in the shell: choices, and ids of the coordinator."""

from pathlib import Path

import pytest
import typer.main
from click.shell_completion import ShellComplete

from disinherit.cli.choices import DATASETS
from disinherit.cli.main import app
from disinherit.simulations.data.datasets import known_datasets
from tests.support.service import Running, secret


def complete(*words: str) -> list[str]:
    command = typer.main.get_command(app)
    *before, last = words
    shell = ShellComplete(command, {}, "disinherit", "_DISINHERIT_COMPLETE")
    return [one.value for one in shell.get_completions(list(before), last)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DISINHERIT_SERVER", raising=False)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("requ",), ["request"]),
        (("request", "submit", "--merge", ""), ["max", "mean", "sum"]),
        (("simulate", "fed"), ["federated", "federated-three-roots", "federated-two-roots"]),
        (("simulate", "federated", "--dataset", "mn"), ["mnist5k"]),
        (("graph", "export", "--as", "p"), ["protobuf", "png"]),
        (("bench", "run", "qu"), ["quick"]),
        (("run", "list", "fash"), ["fashion-mnist"]),
        (("request", "list", "-o", "w"), ["wide"]),
    ],
)
def test_choices_are_completed(words: tuple[str, ...], found: list[str]) -> None:
    assert complete(*words) == found


def test_all_data_sets_are_known_without_loading_them() -> None:
    assert sorted(DATASETS) == known_datasets()


def test_ids_are_those_of_the_coordinator(
    running: Running, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr("disinherit.cli.completion._WAIT_SECONDS", 60.0)  # on a busy machine, too
    monkeypatch.setenv("DISINHERIT_SERVER", running.address)
    monkeypatch.setenv("DISINHERIT_TOKEN", secret("viewer"))
    assert complete("model", "show", "r") == ["r1", "r2", "r3", "r4", "r6"]
    assert complete("owner", "show", "") == ["anna", "ben", "cleo"]
    assert len(list((cache / "disinherit").iterdir())) == 2
    monkeypatch.setattr("grpc.insecure_channel", None)  # kept for a while: nobody is asked
    assert complete("owner", "show", "b") == ["ben"]
    assert all(secret("viewer") not in one.name for one in (cache / "disinherit").iterdir())


def test_what_cannot_be_asked_is_not_completed(capfd: pytest.CaptureFixture[str]) -> None:
    assert complete("request", "show", "--server", "127.0.0.1:1", "") == []
    assert complete("request", "show", "--server", "127.0.0.1:1", "--ca", "gone.pem", "") == []
    assert capfd.readouterr().err == ""
