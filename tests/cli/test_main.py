"""The command line: help, exit codes, and errors in one line."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from disinherit.cli.commands import LazyCommand
from disinherit.cli.main import COMMANDS, run
from tests.support import direct_grid

SMALL = ("--dataset", "digits", "--network", "mlp", "--clients", "2", "--epochs", "20")
PINNED = (
    "--learning-rate",
    "5e-3",
    "--limit",
    "10",
    "--alpha",
    "1",
    "--lambda",
    "1",
    "--gauge",
    "1",
)


def federated(out: Path, *more: str) -> int:
    return run(["simulate", "federated", "--out", str(out), *SMALL, *PINNED, *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on standard error, an error message."""
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert printed.err.splitlines()[-1] == lines[0]
    assert "Traceback" not in printed.err
    return lines[0]


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.2.3 of {name}")
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "disinherit 1.2.3 of disinherit\n"


def test_the_package_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "disinherit", "request", "aprove"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'disinherit request approve'?" in done.stderr


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    for command in [
        "demo",
        "report",
        "simulate",
        "graph",
        "serve",
        "request",
        "model",
        "coverage",
        "agent",
    ]:
        assert command in out
    assert "disinherit demo" in out


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ("demo", "disinherit demo --forget 7"),
        ("report", "disinherit report runs/demo"),
        ("simulate federated", "disinherit simulate federated --dataset digits"),
        ("invite", "disinherit invite anna"),
        ("agent", "disinherit agent --config"),
        ("graph show", "disinherit graph show runs/demo"),
        ("graph export", "disinherit graph export runs/demo"),
    ],
)
def test_help_of_a_command_has_an_example(
    command: str, example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command.split(), "--help"]) == 0
    assert example in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_same_summary_in_its_own_help(name: str) -> None:
    place, summary = COMMANDS[name]
    help = LazyCommand(name, place, summary).load().help
    assert help is not None
    assert " ".join(help.partition("\n\n")[0].split()) == summary


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage" in capsys.readouterr().out


def test_help_waits_for_nothing_heavy() -> None:
    check = (
        "import sys, disinherit.cli.main; "
        "print([m for m in ('torch', 'flwr', 'grpc', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("forgive",), "forgive"),
        (("demo", "--forgot", "3"), "--forgot"),
        (("demo", "--epochs", "many"), "many"),
        (("simulate", "federated"), "--out"),
        (("simulate", "nowhere", "--out", "x"), "chain-N"),
        (("simulate", "nowhere.toml", "--out", "x"), "nowhere.toml"),
        (("graph", "show", "nowhere"), "nowhere"),
        (("report", "nowhere"), "nowhere"),
    ],
)
def test_a_wrong_command_line_is_named(
    arguments: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(list(arguments)) == 2
    assert named in error_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--dataset", "nowhere", "--forget", "3"), "'nowhere'"),
        (("--forget", "13"), "'13'"),
        (("--forget", "3", "--forget", "cat@r2"), "'cat'"),
        ((), "Say which, e.g. --forget 3"),
        (tuple(a for i in range(10) for a in ("--forget", str(i))), "at least two of the 10"),
        (("--forget", "3", "--alpha", "0"), "alpha"),
        (("--forget", "3", "--alpha", "-1"), "alpha"),
        (("--forget", "3", "--alpha", "nan"), "alpha"),
    ],
)
def test_invalid_run_prints_one_line_and_writes_nothing(
    arguments: tuple[str, ...],
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert federated(tmp_path / "run", *arguments) == 2
    assert named in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_custom_scenario_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    direct_grid.install(monkeypatch)
    mine = tmp_path / "mine.toml"
    mine.write_text('roots = ["a"]\nedges = ["a -> b", "b -> c"]\n[models]\nc = { train = "head" }')
    out = ("--out", str(tmp_path / "run"))
    assert run(["simulate", str(mine), *out, *SMALL, *PINNED, "--forget", "3"]) == 0
    printed = capsys.readouterr()
    assert "3 affected models" in " ".join(printed.out.split()) or "of 3 affected" in printed.out
    assert run(["simulate", str(mine), *out, *SMALL, *PINNED, "--forget", "3@d"]) == 2
    assert "a, b, c after '@', but got 'd'" in error_line(capsys)
    mine.write_text('roots = ["a"]\nedges = ["a > b"]')
    assert run(["simulate", str(mine), *out, *SMALL, *PINNED, "--forget", "3"]) == 2
    assert "'a > b'" in error_line(capsys)


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    assert federated(tmp_path / "file" / "run", "--forget", "3") == 2
    line = error_line(capsys)
    assert str(tmp_path / "file" / "run") in line
    assert "Choose another --out" in line
    assert contents(tmp_path) == {"file": b"mine"}


def test_a_folder_with_other_files_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_bytes(b"mine")
    assert federated(tmp_path, "--forget", "3") == 2
    assert "holds other files" in error_line(capsys)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_a_run_is_done_then_unchanged_then_refused_when_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    direct_grid.install(monkeypatch)
    assert federated(tmp_path, "--forget", "3", "--format", "json") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["campaign"]["outcome"] == "complete"
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert "trained r6" in printed.err  # progress goes to standard error

    done = contents(tmp_path)
    assert federated(tmp_path, "--forget", "3") == 0
    assert "finished before" in capsys.readouterr().out
    assert contents(tmp_path) == done

    (model,) = (m for m in report["models"] if m["id"] == "r4")
    objects = tmp_path / "owners" / model["owner"] / "objects"
    path = objects / f"{model['digest_before']}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01\x02")
    damaged = contents(tmp_path)
    assert federated(tmp_path, "--forget", "3") == 2
    line = error_line(capsys)
    assert "'r4" in line
    assert path.name in line
    assert contents(tmp_path) == damaged


def test_system_error_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["graph", "show", "a" * 300]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error == f"error: Expected to use {'a' * 300!r}, but: File name too long."
    assert run(["deploy", "down", "--folder", "/no-\udcff"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error == r"error: Expected names in UTF-8, but got 'FLWR_HOME=/no-\udcff'."
    program = Path(sys.executable).with_name("disinherit")
    with Path("/dev/full").open("w") as full:
        shown = subprocess.run([program, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert shown.returncode == 2
    assert (
        shown.stderr == "error: Expected the system to allow this, but: No space left on device.\n"
    )


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("disinherit.simulations.run.run.prepare_folder", stop)
    assert federated(Path("unused"), "--forget", "3") == 130
    assert "run the same command again" in error_line(capsys)


def test_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'mlxtend'", name="mlxtend")

    monkeypatch.setattr("disinherit.cli.simulate.run_and_show", missing)
    assert run(["demo", "--out", "never-made"]) == 2
    printed = capsys.readouterr()
    assert "Expected the package 'mlxtend' to be installed" in printed.err
    assert "pip install '.[simulation]'" in printed.err


def test_a_package_that_every_installation_has_is_named_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("disinherit.cli.simulate.run_and_show", missing)
    assert run(["demo", "--out", "never-made"]) == 2
    assert "Expected the package 'torch' to be installed, but it is not. Run `pip install .`" in (
        error_line(capsys)
    )


def test_misspelt_command_is_suggested_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["request", "aprove", "x"]) == 2
    assert error_line(capsys).count("Did you mean") == 1
