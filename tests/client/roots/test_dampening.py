"""Dampening at the root: the same weights as the dampening of today's requests."""

from dataclasses import replace
from pathlib import Path

import torch

from disinherit.client.actions.fisher import forget_fishers
from disinherit.client.dampening.one import dampen_model
from disinherit.client.roots.dampening import RootDampening
from disinherit.common.method import Method
from disinherit.common.wire.packets import PackedFisher
from disinherit.v1 import unlearning_pb2 as pb
from tests.client.roots.test_root_method import problem_of
from tests.support.owner import samples_root
from tests.support.retraining_owner import RetrainingOwner

SAMPLES = ["cat-0", "cat-1", "dog-7"]


def test_it_is_the_dampening_of_a_request_for_samples(tmp_path: Path) -> None:
    with RetrainingOwner(tmp_path) as owner:
        method = Method(scope="all", mechanism="fisher", alpha=0.001, lam=0.001)
        problem = replace(problem_of(owner, SAMPLES), method=method)
        assert RootDampening().refusal(problem) == ""
        found = RootDampening().unlearn(problem)
        root = samples_root("m", tmp_path, SAMPLES)
        task = pb.FisherTask(request_id="forget", roots=[root], method=method.to_proto())
        (answer,) = forget_fishers(owner, task).roots
        assert not answer.error
        packet = PackedFisher.from_packet(answer.packets[0])
        expected = dampen_model(owner, problem.record, packet, method, SAMPLES, "forget").weights
        assert not found.exact
        assert " values dampened" in found.note
        assert any(not torch.equal(v, problem.weights[n]) for n, v in found.weights.items())
        for name, value in expected.items():
            torch.testing.assert_close(found.weights[name], value, rtol=1e-6, atol=1e-9)


def test_it_needs_the_samples(tmp_path: Path) -> None:
    with RetrainingOwner(tmp_path) as owner:
        owner.keeps_data = False
        assert "'m' has to forget are gone" in RootDampening().refusal(problem_of(owner, SAMPLES))


def test_a_client_is_dampened_as_well(tmp_path: Path) -> None:
    with RetrainingOwner(tmp_path) as owner:
        assert RootDampening().unlearn(problem_of(owner, None)).weights.keys() == {
            "0.weight",
            "0.bias",
            "2.weight",
            "2.bias",
        }
