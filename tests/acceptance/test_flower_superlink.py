"""The example app on a SuperLink with two SuperNodes: samples, a class and a node are forgotten."""

import json
from pathlib import Path

import pytest

from disinherit.deploy.files import HOST
from tests.support.flower_runs import SECONDS, SUPERLINK, FlowerRuns, flower_runs
from tests.support.ports import free_ports

NODES = 2


def start_nodes(runs: FlowerRuns) -> None:
    """Start the SuperNodes, and wait until all are connected."""
    for place, port in enumerate(free_ports(NODES)):
        words = ["flower-supernode", "--insecure", "--superlink", f"{HOST}:{runs.port}"]
        config = f"partition-id={place} num-partitions={NODES}"
        words += ["--port", str(port), "--node-config", config]
        runs.processes.start(f"node-{place}", words)

    def online() -> bool:
        listed = json.loads(runs.processes.run(["flwr", "supernode", "list", "--format", "json"]))
        connected: int = sum(node["status"] == "online" for node in listed["nodes"])
        return connected == NODES

    runs.processes.wait_for(SUPERLINK, "see all nodes", online, SECONDS)


def test_the_app_forgets_a_class(tmp_path: Path) -> None:
    with flower_runs(tmp_path) as runs:
        start_nodes(runs)
        runs.train(rounds=1)
        lines, states = runs.forget("--class", "3")
        assert ": complete, 3 of 3 models settled, 3 changed" in lines[0]
        assert states == dict.fromkeys(["r1", "r1.node-0", "r1.node-1"], "verified")
        assert 3 not in runs.named()[0]


@pytest.mark.superlink  # each message is a process that imports PyTorch: 340 s of CPU
def test_the_app_forgets_samples_a_class_and_a_node(tmp_path: Path) -> None:
    with flower_runs(tmp_path) as runs:
        start_nodes(runs)
        runs.train(rounds=2)

        lines, states = runs.forget("--samples", "node-0:17,42")
        repeated = [f"training {count} updates again without the samples" for count in (1, 2)]
        assert lines[:2] == repeated
        assert ": complete, 5 of 5 models settled, 5 changed" in lines[2]
        changed = ["r1", "r1.node-0", "r2", "r2.node-0", "r2.node-1"]
        assert states == dict.fromkeys(changed, "verified")
        assert 3 in runs.named()[0]

        lines, states = runs.forget("--class", "3")
        assert ": complete, 6 of 6 models settled, 6 changed" in lines[0]
        assert states == dict.fromkeys([*changed, "r1.node-1"], "verified")
        seen, true = runs.named()
        assert 3 not in seen
        kept = [one == other for one, other in zip(seen, true, strict=True) if other != 3]
        assert sum(kept) > 0.8 * len(kept)

        lines, states = runs.forget("--client", "node-1")
        assert ": complete, 5 of 5 models settled, 3 changed" in lines[0]
        assert states == {
            "r1": "verified",
            "r1.node-1": "exempt",
            "r2": "verified",
            "r2.node-0": "verified",
            "r2.node-1": "exempt",
        }
        assert 3 not in runs.named()[0]
