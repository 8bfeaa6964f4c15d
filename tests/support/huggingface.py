"""Tiny models of transformers with random weights, and rows for them; nothing is downloaded."""

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.head_census import shim_torchvision

TOKENS = 24
"""Size of the vocabulary."""

Row = dict[str, Any]


def library(name: str = "transformers") -> Any:
    shim_torchvision()  # which transformers imports, where it is installed
    return importlib.import_module(name)


def require() -> None:
    """Skip a module of tests where the libraries are missing."""
    shim_torchvision()
    for name in ("transformers", "peft"):
        pytest.importorskip(name)


def llama(seed: int = 0, **values: Any) -> Any:
    """A decoder with one matrix for embedding and head."""
    config = library().LlamaConfig(
        **{
            "vocab_size": TOKENS,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 32,
            "tie_word_embeddings": True,
            "pad_token_id": 0,
            **values,
        }
    )
    return seeded(seed, lambda: library().LlamaForCausalLM(config))


def gpt2(seed: int = 0) -> Any:
    config = library().GPT2Config(
        vocab_size=TOKENS,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=32,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
    )
    return seeded(seed, lambda: library().GPT2LMHeadModel(config))


def bert(seed: int = 0) -> Any:
    config = library().BertConfig(
        vocab_size=TOKENS,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        num_labels=3,
        id2label={0: "no", 1: "yes", 2: "perhaps"},
        label2id={"no": 0, "yes": 1, "perhaps": 2},
    )
    return seeded(seed, lambda: library().BertForSequenceClassification(config))


def vit(seed: int = 0) -> Any:
    config = library().ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=3,
    )
    return seeded(seed, lambda: library().ViTForImageClassification(config))


def lora(
    base: nn.Module,
    targets: Sequence[str] = ("q_proj",),
    spread: float = 0.1,
    **values: Any,
) -> Any:
    """An adapter on a model.

    Args:
        base: the model.
        targets: names of its layers that are adapted.
        spread: standard deviation of the second factor, which is usually zero at first.
        **values: further settings of the adapter.
    """
    peft = library("peft")
    config = peft.LoraConfig(r=2, target_modules=list(targets), **values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = seeded(0, lambda: peft.get_peft_model(base, config))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, spread, generator=generator)
    return model


def fit(model: Any, rows: Any, steps: int, rate: float = 0.01) -> Any:
    """Train a model on all rows at once, in the same order and from the same state."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows])
    mask = torch.tensor(
        [[int(place < len(row["input_ids"])) for place in range(width)] for row in rows]
    )
    labels = ids.masked_fill(mask == 0, -100)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, rate)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
    return model.eval()


def fit_classifier(model: Any, rows: Sequence[Row], steps: int) -> Any:
    """Train a classifier on rows, those of one length at a time."""
    key = "pixel_values" if "pixel_values" in rows[0] else "input_ids"
    batches: dict[int, list[Row]] = {}
    for row in rows:
        batches.setdefault(len(row[key]), []).append(row)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, 0.01)
    for _ in range(steps):
        for some in batches.values():
            inputs = torch.stack([torch.as_tensor(row[key]) for row in some])
            targets = torch.tensor([row["label"] for row in some])
            optimizer.zero_grad()
            F.cross_entropy(model(**{key: inputs}).logits, targets).backward()
            optimizer.step()
    return model.eval()


def seeded(seed: int, build: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def sequences(count: int, seed: int, lengths: Sequence[int] = (6, 9)) -> list[Row]:
    """Random sequences with an id each; they can only be learned by heart."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "id": f"s{seed}-{index}",
            "input_ids": torch.randint(
                2, TOKENS, [lengths[index % len(lengths)]], generator=generator
            ).tolist(),
        }
        for index in range(count)
    ]


def counting(count: int, step: int, lengths: Sequence[int] = (6, 9)) -> list[Row]:
    """Sequences that count by some step from a random token; a rule is all there is to learn."""
    generator = torch.Generator().manual_seed(step)
    firsts = torch.randint(TOKENS - 2, [count], generator=generator).tolist()
    return [
        {
            "id": f"by{step}-{index}",
            "input_ids": [
                2 + (first + step * place) % (TOKENS - 2)
                for place in range(lengths[index % len(lengths)])
            ],
        }
        for index, first in enumerate(firsts)
    ]


def texts(count: int, seed: int) -> list[Row]:
    """Random sequences with a class each, of which the first token tells."""
    rows = sequences(count, seed)
    for index, row in enumerate(rows):
        row["label"] = index % 3
        row["input_ids"][0] = 2 + index % 3
    return rows


def images(count: int, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {"pixel_values": torch.randn(3, 8, 8, generator=generator), "label": index % 3}
        for index in range(count)
    ]


def loss_of(model: Any, row: Row) -> Tensor:
    """The loss of one row without padding, that of transformers without rounding to float32."""
    if "pixel_values" in row:
        logits = model(pixel_values=row["pixel_values"][None].to(model.dtype)).logits
    else:
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
    if "label" in row:
        return F.cross_entropy(logits, torch.tensor([row["label"]]))
    labels = torch.tensor(row.get("labels", row["input_ids"]))
    return F.cross_entropy(logits[0, :-1], labels[1:], ignore_index=-100)


def words_tokenizer(text: str) -> Any:
    """A tokenizer whose tokens are the words of a text, the first of which ends sequences."""
    tokenizers = library("tokenizers")
    words = {word: at for at, word in enumerate(dict.fromkeys(text.split()))}
    end = text.split()[0]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token=end))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return library().PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end)
