"""Sequences as samples: the loss of a language model on a sequence, as a classifier's two logits.

All that unlearns asks a network for logits `[n, C]` whose cross-entropy is the loss of a sample.  A
language model has a loss per sequence, L, and no classes.  With the logits::

    z = (-log(e^L - 1), 0)    softmax(z) = (e^-L, 1 - e^-L)

the cross-entropy of the first class *is* L, and so is its gradient.  With L the mean of the losses
of its tokens, the first class wins if these have a probability above 1/2 in their geometric mean:
if the model knows the sequence by heart.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disinherit.common.errors import FisherError

IGNORED = -100
"""Label of a token that does not count, as PyTorch and transformers have it."""


class AnswersSequences:
    """A network whose samples are sequences, with logits `[n, 2]` of `as_logits`.

    Attributes:
        vocabulary: number of tokens that it chooses among.
    """

    vocabulary: int

    def token_logits(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of tokens `[n, T, V]` and labels `[n, T]`, as `sequence_losses` takes them.

        Args:
            *inputs: those of a call.
        """
        raise NotImplementedError


def loss_of_guess(network: nn.Module, classes: int) -> float:
    """Return the loss of a guess, in nats: among classes, or among tokens."""
    tokens = network.vocabulary if isinstance(network, AnswersSequences) else classes
    return math.log(tokens)


def sequence_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of the tokens of each sequence, as a language model is trained on them.

    The logits at a position are for the next token.  For a well-fitted token, the loss
    log(1 + Σ_{k ≠ y} exp(z_k - z_y)) and its gradient do not cancel.

    Args:
        logits: `[n, T, V]`; half precision is computed in float32.
        labels: token indices `[n, T]`; `IGNORED` where a token does not count, such as padding.

    Returns:
        Losses `[n]` in nats; 0 for a sequence without a token that counts.

    Raises:
        FisherError: if the shapes do not fit, or there are fewer than two positions.

    Example:
        >>> sequence_losses(torch.zeros(1, 3, 4), torch.tensor([[0, 2, -100]])).exp()
        tensor([4.])
    """
    if logits.ndim != 3 or logits.shape[:2] != labels.shape or logits.shape[1] < 2:
        raise FisherError(
            f"Expected logits [n, T, V] of a language model, T > 1, for labels "
            f"{list(labels.shape)}, but got {list(logits.shape)}."
        )
    wide = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    following = labels[:, 1:].to(logits.device)
    counted = following != IGNORED
    chosen = following.where(counted, 0).unsqueeze(2)
    others = wide.scatter(2, chosen, -torch.inf).logsumexp(2)
    losses = F.softplus(others - wide.gather(2, chosen).squeeze(2), threshold=50)
    # A product with the mask would make NaN of an infinite loss that does not count.
    return losses.where(counted, 0).sum(1) / counted.sum(1).clamp(min=1)


def as_logits(losses: Tensor) -> Tensor:
    """Return logits whose cross-entropy with the first of two classes is a loss.

    Args:
        losses: `[n]`, >= 0, in nats.

    Returns:
        Logits `[n, 2]`.

    Example:
        >>> F.cross_entropy(as_logits(torch.tensor([0.25])), torch.tensor([0])).item()
        0.25
    """
    positive = losses.clamp(min=torch.finfo(losses.dtype).tiny)
    known = -positive - torch.log(-torch.expm1(-positive))
    return torch.stack([known, torch.zeros_like(known)], dim=1)
