"""The example app under the simulation engine: samples are forgotten in all its rounds."""

from pathlib import Path

import pytest

from tests.support.flower_runs import flower_runs


@pytest.mark.superlink  # 230 s of CPU
def test_samples_are_forgotten_in_three_rounds(tmp_path: Path) -> None:
    with flower_runs(tmp_path, "--simulation") as runs:
        runs.train(rounds=3)
        lines, states = runs.forget("--samples", "node-0:17,42")
    repeated = [f"training {count} updates again without the samples" for count in (1, 2, 2)]
    assert lines[:3] == repeated
    assert ": complete, 8 of 8 models settled, 8 changed" in lines[3]
    of_others = ["r2.node-1", "r3.node-1"]  # its update of the first round knew none of them
    own = [f"r{place}.node-0" for place in (1, 2, 3)]
    assert states == dict.fromkeys(["r1", "r2", "r3", *own, *of_others], "verified")
