"""The loss of a sequence as two logits: cross-entropy and gradient are those of the loss itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from disinherit.common.errors import FisherError
from disinherit.common.models.sequences import (
    AnswersSequences,
    as_logits,
    loss_of_guess,
    sequence_losses,
)


@given(st.floats(-12, 3))
def test_cross_entropy_and_gradient_are_those_of_the_loss(exponent: float) -> None:
    loss = torch.tensor([10**exponent], dtype=torch.float64, requires_grad=True)
    found = F.cross_entropy(as_logits(loss), torch.tensor([0]))
    (gradient,) = torch.autograd.grad(found, loss)
    assert found.item() == pytest.approx(loss.item(), rel=1e-3, abs=1e-14)
    assert gradient.item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 1e-38, 1e-3, 0.6931, 50.0, 1e4])
def test_logits_are_finite_in_float32_with_the_class_that_is_more_probable(value: float) -> None:
    logits = as_logits(torch.tensor([value]))
    assert logits.isfinite().all()
    assert bool(logits.argmax(1) == 0) is (value < math.log(2))


def test_losses_are_means_over_the_tokens_that_count() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7, dtype=torch.float64)
    labels = torch.tensor([[1, 2, 3, 4, 5], [6, -100, 1, -100, -100]])
    each = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    each = each.view(2, 4)
    expected = torch.stack([each[0].mean(), each[1, 1]])
    torch.testing.assert_close(sequence_losses(logits, labels), expected)
    assert sequence_losses(logits, torch.full_like(labels, -100)).tolist() == [0, 0]


def test_gradients_of_well_fitted_tokens_do_not_cancel() -> None:
    logits = torch.zeros(1, 2, 3)
    logits[0, 0, 1] = 40
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(sequence_losses(logits, torch.tensor([[0, 1]])).sum(), logits)
    expected = -2 * math.exp(-40)  # p - 1 is 0 in float32
    assert gradient[0, 0, 1].item() == pytest.approx(expected, rel=1e-4)


def test_other_shapes_are_refused() -> None:
    for shape, positions in (((2, 7), 7), ((2, 1, 7), 1), ((2, 4, 7), 3)):
        with pytest.raises(FisherError, match=r"Expected logits \[n, T, V\]"):
            sequence_losses(torch.zeros(shape), torch.zeros(2, positions).long())


def test_a_guess_is_among_classes_or_among_tokens() -> None:
    class Decoder(AnswersSequences, nn.Module):
        vocabulary = 50

    assert loss_of_guess(nn.Linear(1, 2), 4) == math.log(4)
    assert loss_of_guess(Decoder(), 2) == math.log(50)
