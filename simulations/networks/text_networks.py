"""Networks over token ids: a recurrent one and a small transformer.  Padding is id 0."""

import math

import torch
from torch import Tensor, nn

PADDING = 0


class RecurrentFeatures(nn.Module):
    """The mean over a text's tokens of an LSTM's outputs, then a ReLU layer.

    Args:
        vocabulary: number of ids.
        embedding: width of an embedding.
        width: of the LSTM and of the features, `d`.
    """

    def __init__(self, vocabulary: int, embedding: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=PADDING)
        self.recurrent = nn.LSTM(embedding, width, batch_first=True)
        self.out = nn.Linear(width, width)
        self.positive = nn.ReLU()

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids `[n, L]` to features `[n, d]`; padding at the end has no influence."""
        outputs, _ = self.recurrent(self.embedding(ids))
        features: Tensor = self.positive(self.out(masked_mean(outputs, ids)))
        return features


class TransformerFeatures(nn.Module):
    """A transformer encoder with learned positions; the mean over a text's tokens, and a ReLU.

    Args:
        vocabulary: number of ids.
        length: of a text, `L`.
        width: of the embeddings and of the features, `d`.
        heads: of attention.
        blocks: number of blocks.
    """

    def __init__(
        self, vocabulary: int, length: int, width: int, heads: int = 4, blocks: int = 2
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList([TransformerBlock(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.positive = nn.ReLU()

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids `[n, L]` to features `[n, d]`; padding has no influence."""
        # For every text, so that each has a gradient of its own, which closed forms need.
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        hidden = self.embedding(ids) + self.positions(places)
        hidden_from = (ids == PADDING)[:, None, None, :]
        for block in self.blocks:
            hidden = block(hidden, hidden_from)
        features: Tensor = self.positive(self.out(masked_mean(self.norm(hidden), ids)))
        return features


class TransformerBlock(nn.Module):
    """Self-attention and a two-layer network, each on normalised inputs and added to them.

    Args:
        width: `d`.
        heads: of attention; they share `d` out evenly.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.queries = nn.Linear(width, width)
        # A bias of the keys would shift all scores of a query alike, which softmax does not see.
        self.keys = nn.Linear(width, width, bias=False)
        self.values = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)
        self.norm_layers = nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, inputs: Tensor, hidden_from: Tensor) -> Tensor:
        """Map `[n, L, d]` to `[n, L, d]`.

        Args:
            inputs: `[n, L, d]`.
            hidden_from: `[n, 1, 1, L]`, true at positions that attention leaves out.
        """
        normed = self.norm_attention(inputs)
        queries, keys, values = (
            layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.queries, self.keys, self.values)
        )
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
        # Not minus infinity: a text of nothing but padding would have no weights at all.
        weights = scores.masked_fill(hidden_from, -1e9).softmax(dim=-1)
        mixed = inputs + self.mix((weights @ values).transpose(1, 2).flatten(2))
        outputs: Tensor = mixed + self.layers(self.norm_layers(mixed))
        return outputs


def masked_mean(values: Tensor, ids: Tensor) -> Tensor:
    """Return the mean of values `[n, L, d]` over the tokens that are no padding: `[n, d]`."""
    mask = (ids != PADDING).unsqueeze(-1).to(values.dtype)
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
