"""Scenarios, data sets, networks and classes that there are, by name."""

import json

import pytest

from disinherit.cli.choices import DATASETS, GENERATED, NETWORKS
from disinherit.cli.main import run
from disinherit.simulations.data.datasets import known_datasets
from disinherit.simulations.networks.networks import check_network, known_networks
from disinherit.simulations.scenario.scenarios import known_scenarios, load_scenario

Capture = pytest.CaptureFixture[str]


def test_all_that_has_a_name_is_listed(capsys: Capture) -> None:
    assert run(["run", "list", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["scenarios"]] == known_scenarios()
    assert sorted(found["datasets"]) == sorted(DATASETS) == known_datasets()
    assert set(known_networks()) < set(found["networks"]) == set(NETWORKS)
    for network in NETWORKS:
        check_network(network)
    for scenario in GENERATED:
        assert load_scenario(scenario.replace("N", "2")).roots == ("u0",)


def test_simulate_lists_the_same_before_it_wants_a_scenario(capsys: Capture) -> None:
    assert run(["run", "list"]) == 0
    listed = capsys.readouterr().out
    assert run(["simulate", "--list"]) == 0
    assert capsys.readouterr().out == listed
    lines = {line.split("  ")[0]: line for line in listed.splitlines()}
    assert "7 models, federated; forgets at r1" in lines["federated"]
    assert {"chain-N", "glyphs", "transformer"} < set(lines)


def test_classes_of_a_data_set_are_listed_with_their_numbers(capsys: Capture) -> None:
    assert run(["run", "list", "digits"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["number", "class", "samples"]
    assert [line[:2] for line in lines[1:]] == [[str(one)] * 2 for one in range(10)]
    assert sum(int(line[2]) for line in lines[1:]) == 1797
    assert run(["run", "list", "digit"]) == 2
    assert "Did you mean 'digits'?" in capsys.readouterr().err
