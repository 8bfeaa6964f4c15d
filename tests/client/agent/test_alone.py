"""An agent in an environment with only its own dependencies."""

import subprocess
from pathlib import Path

import pytest

from disinherit.v1 import unlearning_pb2 as pb
from tests.support.lean_install import (
    AGENT_HELP,
    NOT_FOR_AGENTS,
    installed,
    link_part,
    unlearn_over_tls,
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return link_part(tmp_path_factory.mktemp("lean") / "venv", "agent")


def test_flower_ray_database_and_web_stack_are_not_installed(python: str) -> None:
    assert installed(python, ["torch", "grpc", *NOT_FOR_AGENTS]) == ["torch", "grpc"]


def test_the_command_prints_its_help(python: str) -> None:
    command = [python, "-c", AGENT_HELP, "agent", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "--enrol" in done.stdout


def test_a_command_of_another_extra_names_that_extra(python: str, tmp_path: Path) -> None:
    command = [python, "-c", AGENT_HELP, "serve", "--tokens", str(tmp_path / "tokens.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "pip install '.[server]'" in done.stderr


@pytest.mark.slow
def test_an_agent_enrols_connects_and_unlearns(python: str, tmp_path: Path) -> None:
    result = unlearn_over_tls(python, tmp_path)
    assert result.outcome == pb.OUTCOME_APPLIED, result.error
