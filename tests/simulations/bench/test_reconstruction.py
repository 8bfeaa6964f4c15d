"""Attack on the change of a root: its parts against direct computation, and that it works."""

import json

import pytest
import torch
from torch import Tensor

from disinherit.simulations.bench.reconstruction.__main__ import table
from disinherit.simulations.bench.reconstruction.attack import closed_form, estimated_gradients
from disinherit.simulations.bench.reconstruction.measuring import Images, World, measured
from disinherit.simulations.bench.reconstruction.protections import protections
from disinherit.simulations.bench.reconstruction.quality import (
    directions,
    reconstruction_quality,
    ssims,
    told_apart,
)
from disinherit.simulations.bench.reconstruction.roots import (
    DAMPING,
    Root,
    cnn_roots,
    flat,
    gradients,
    product,
    ridge,
)
from disinherit.simulations.data.datasets import load_dataset
from tests import ROOT

# PyTorch's own forward mode uses what PyTorch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_dataset("digits")
    return data.inputs, data.targets


def enlarged(samples: tuple[Tensor, Tensor], first: int, last: int) -> Images:
    inputs = torch.nn.functional.interpolate(samples[0][first:last], size=28)
    return Images(inputs, samples[1][first:last])


def test_curvature_of_a_linear_root_is_the_mean_square_of_its_inputs(
    digits: tuple[Tensor, Tensor],
) -> None:
    inputs, targets = digits[0][:50], digits[1][:50]
    root = ridge(inputs, targets)
    vector = torch.randn(10 * 65, generator=torch.Generator().manual_seed(0))
    weight, bias = vector[:640].view(10, 64), vector[640:, None]
    rows = torch.cat([inputs.flatten(1), torch.ones(50, 1)], 1)
    expected = torch.cat([weight, bias], 1) @ (rows.T @ rows / 50 + DAMPING * torch.eye(65))
    found = product(root, inputs, vector)
    torch.testing.assert_close(found[:640].view(10, 64), expected[:, :64], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[640:], expected[:, 64], rtol=1e-4, atol=1e-4)


def test_with_the_true_curvature_the_deleted_sample_is_found(
    digits: tuple[Tensor, Tensor],
) -> None:
    inputs, targets = digits[0][:300], digits[1][:300]
    root = ridge(inputs, targets)
    change = root.change([7])
    gradient = estimated_gradients(root, change, inputs)[0]
    true = flat(gradients(root, inputs[7:8], targets[7:8]))
    assert torch.cosine_similarity(gradient, true, 0) > 0.999
    mean = inputs.mean(0)
    quality = reconstruction_quality(
        closed_form(gradient, inputs), inputs[7:8], inputs[8:], mean
    ).tolist()
    assert quality[0] > 0.99
    assert quality[2] == 1


def test_step_of_a_cnn_solves_its_damped_system(digits: tuple[Tensor, Tensor]) -> None:
    own, public = enlarged(digits, 0, 100), enlarged(digits, 100, 200)
    step, short, long = cnn_roots(*own.pair, *public.pair)
    found = product(step, own.inputs, flat(step.change([3, 4])))
    true = flat(gradients(step, *own.at([3, 4]).pair)) / 100
    # 50 steps of conjugate gradients in float32 leave 2 or 3 %, by the kind of processor
    assert (found - true).norm() < 0.05 * true.norm()
    for replayed in (short, long):
        assert not flat(replayed.change([])).any()  # without none, it is the same training
        assert flat(replayed.change([3])).any()


def test_similarity_of_an_image_to_itself_is_one(digits: tuple[Tensor, Tensor]) -> None:
    images = enlarged(digits, 0, 4).inputs
    found = ssims(images, images)
    torch.testing.assert_close(found.diagonal(), torch.ones(4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found, found.T)
    assert found[0, 1] < 0.9


def test_telling_apart_is_the_share_of_pairs_in_order() -> None:
    gradient = torch.tensor([1.0, 0.0])
    deleted = torch.tensor([[0.9, 0.0], [0.2, 0.0]])
    others = torch.tensor([[0.5, 1.0], [0.2, 1.0]])
    assert told_apart(gradient, deleted, others) == (2 + 0.5) / 4


def test_directions_have_length_one(digits: tuple[Tensor, Tensor]) -> None:
    root: Root = ridge(digits[0][:50], digits[1][:50])
    found = directions(root, digits[0][:5], digits[1][:5])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize(
    ("name", "ratio"), [("noise of its norm", 1), ("noise of 5 x its norm", 5)]
)
def test_noise_has_the_norm_it_says(name: str, ratio: float) -> None:
    change = {"w": torch.full((100, 100), 0.5), "b": torch.zeros(100)}
    noise = flat(protections()[name](change)) - flat(change)
    assert noise.norm() == pytest.approx(ratio * 50, rel=0.05)


def test_a_small_measurement_has_every_row(digits: tuple[Tensor, Tensor]) -> None:
    parts = [enlarged(digits, 100 * i, 100 * i + 100) for i in range(4)]
    rows = measured(World(*parts), {1: 1}, steps=1)
    assert len(rows) == 3 * len(protections()) + 1
    assert table(rows).count("\n") == len(rows) + 2


def test_the_page_shows_the_stored_figures() -> None:
    stored = json.loads((ROOT / "docs/figures/reconstruction.json").read_text())
    assert table(stored["rows"]) in (ROOT / "docs/privacy.md").read_text()
