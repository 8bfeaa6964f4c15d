"""Models of transformers as classifiers: their Fisher information beside a loop over samples."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.common.models.heads import find_head
from tests.support.huggingface import (
    Row,
    bert,
    gpt2,
    images,
    library,
    llama,
    lora,
    loss_of,
    require,
    sequences,
    texts,
    vit,
)

require()
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in v6:FutureWarning")

from disinherit.client.huggingface.batches import adapt, count_classes, make_loader  # noqa: E402
from disinherit.client.huggingface.forms import form_of, original  # noqa: E402
from disinherit.common.errors import DataError, InputError  # noqa: E402


def masked(rows: list[Row]) -> list[Row]:
    """Sequences of which the first half is a prompt, whose tokens do not count."""
    for row in rows:
        half = len(row["input_ids"]) // 2
        row["labels"] = [-100] * half + row["input_ids"][half:]
    return rows


CASES: dict[str, tuple[Callable[[], Any], list[Row]]] = {
    "bert": (bert, texts(5, 1)),
    "vit": (vit, images(4, 1)),
    "llama": (llama, sequences(5, 1)),
    "llama with prompts": (llama, masked(sequences(5, 1))),
    "gpt2": (gpt2, sequences(5, 1)),
    "lora on llama": (lambda: lora(llama(), targets=["q_proj", "lm_head"]), sequences(5, 1)),
    "lora on bert": (
        lambda: lora(bert(), targets=["query"], modules_to_save=["classifier"]),
        texts(5, 1),
    ),
}


def naive(model: nn.Module, rows: list[Row]) -> dict[int, Tensor]:
    """Mean squares of gradients, sample by sample."""
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    found = {id(p): torch.zeros_like(p) for p in parameters}
    for row in rows:
        grads = torch.autograd.grad(loss_of(model, row), parameters, allow_unused=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                found[id(parameter)] += grad.square() / len(rows)
    return found


@pytest.mark.parametrize("case", CASES)
def test_fisher_information_is_that_of_a_loop_over_samples(case: str) -> None:
    build, rows = CASES[case]
    model = build().double()
    expected = naive(model, rows)
    adapted = adapt(model, rows)
    fisher = fisher_diagonal(adapted, make_loader(rows, adapted, batch_size=3), scope="all")
    assert fisher.count == len(rows)
    parameters = dict(adapted.named_parameters())
    assert fisher.values.keys() == parameters.keys()
    assert any(value.any() for value in fisher.values.values())
    rtol = 1e-5 if "llama" in case else 1e-7  # a Llama's norms are in float32 in any case
    for name, value in fisher.values.items():
        torch.testing.assert_close(value, expected[id(parameters[name])], rtol=rtol, atol=1e-15)


def on_the_left(rows: list[Row]) -> dict[str, Tensor]:
    """A batch as collators make it that pad on the left, for generation."""
    width = max(len(row["input_ids"]) for row in rows)
    gaps = [width - len(row["input_ids"]) for row in rows]
    tokens = [[0] * gap + row["input_ids"] for gap, row in zip(gaps, rows, strict=True)]
    mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
    batch = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
    if "label" in rows[0]:
        return {**batch, "labels": torch.tensor([row["label"] for row in rows])}
    return {**batch, "labels": batch["input_ids"]}  # those of padding do not count


@pytest.mark.parametrize("case", ["bert", "llama", "gpt2"])
def test_padding_on_the_left_changes_no_sample(case: str) -> None:
    build, rows = CASES[case]
    model = build().double()
    expected = naive(model, rows)
    adapted = adapt(model, rows, collate=on_the_left)
    loader = make_loader(rows, adapted, batch_size=3, collate=on_the_left)
    fisher = fisher_diagonal(adapted, loader, scope="all")
    parameters = dict(adapted.named_parameters())
    for name, value in fisher.values.items():
        torch.testing.assert_close(value, expected[id(parameters[name])], rtol=1e-5, atol=1e-15)


def test_a_model_called_by_names_answers_as_before() -> None:
    plain: Any = llama()
    adapted: Any = adapt(llama(), sequences(2, 1))
    ids = torch.tensor([[3, 4, 5]])
    before, after = plain(input_ids=ids, labels=ids), adapted(input_ids=ids, labels=ids)
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.loss, after.loss)
    assert adapted.generate(ids, max_new_tokens=2, do_sample=False).shape == (1, 5)
    assert type(original(adapted)) is type(plain)


def test_a_positional_call_gives_the_loss_of_each_sequence() -> None:
    rows = sequences(4, 1)
    model = adapt(llama(), rows)
    ((inputs, targets),) = make_loader(rows, model)
    losses = nn.functional.cross_entropy(model(*inputs), targets, reduction="none")
    one_by_one = [torch.tensor([row["input_ids"]]) for row in rows]
    expected = [model(input_ids=ids, labels=ids).loss for ids in one_by_one]
    torch.testing.assert_close(losses, torch.stack(expected))


def test_a_classifier_has_its_head_and_labels() -> None:
    model = adapt(bert(), texts(2, 1))
    ((inputs, _),) = make_loader(texts(2, 1), model)
    assert find_head(model, inputs).parameters == ("classifier.weight", "classifier.bias")
    assert form_of(bert(), {"input_ids": torch.ones(1, 2).long()}).labels == (
        "no",
        "yes",
        "perhaps",
    )


def test_bfloat16_is_summed_in_float32() -> None:
    rows = sequences(3, 1)
    model = adapt(llama().bfloat16(), rows)
    fisher = fisher_diagonal(model, make_loader(rows, model), scope="all")
    wide = adapt(copy.deepcopy(original(model)).float(), rows)
    expected = fisher_diagonal(wide, make_loader(rows, wide), scope="all")
    for name, value in fisher.values.items():
        assert value.dtype == torch.float32
        assert (value - expected.values[name]).norm() <= 0.1 * expected.values[name].norm()


def test_activations_are_recomputed_in_training_only() -> None:
    rows = sequences(2, 1)
    model = adapt(llama(), rows)
    loader = make_loader(rows, model)
    expected = fisher_diagonal(model, loader, scope="all")
    calls: list[object] = []

    def recompute(function: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        calls.append(function)
        return function(*inputs, **named)

    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            # As `activation_checkpointing_enable` does.
            setattr(module, "gradient_checkpointing", True)  # noqa: B010
            setattr(module, "_gradient_checkpointing_func", recompute)  # noqa: B010
    found = fisher_diagonal(model, loader, scope="all")
    assert calls == []
    for name, value in found.values.items():
        assert torch.equal(value, expected.values[name])
    ((inputs, _),) = loader
    model.train()(*inputs)
    assert len(calls) == 1


def test_other_models_are_refused_by_name() -> None:
    transformers = library()
    config = transformers.T5Config(
        vocab_size=9, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2
    )
    rows = sequences(1, 1)
    with pytest.raises(InputError, match="causal language model .* got a T5ForConditional"):
        adapt(transformers.T5ForConditionalGeneration(config), rows)
    several = bert()
    several.config.problem_type = "multi_label_classification"
    with pytest.raises(InputError, match="one class for each sample, but got multi_label"):
        adapt(several, rows)
    with pytest.raises(InputError, match="model of transformers, .* but got a Linear"):
        form_of(nn.Linear(2, 2), {})
    with pytest.raises(InputError, match="inputs of LlamaForCausalLM .* has are pixel_values"):
        adapt(llama(), images(1, 1))
    peft = library("peft")
    prompts = peft.get_peft_model(
        llama(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    with pytest.raises(InputError, match="adapter in its layers, such as LoRA, but got default"):
        adapt(prompts, rows)


def test_rows_without_what_is_needed_are_refused() -> None:
    model = llama()
    with pytest.raises(DataError, match="one of the batch has none"):
        make_loader([{"input_ids": [3]}], model)
    with pytest.raises(DataError, match="one of the batch has none"):
        make_loader([{"input_ids": [3, 4], "labels": [3, -100]}], model)
    with pytest.raises(DataError, match="one without rows"):
        make_loader([], model)
    with pytest.raises(DataError, match="class index as labels or label"):
        make_loader(sequences(2, 1), bert())
    form = form_of(model, {"input_ids": torch.ones(1), "attention_mask": torch.ones(1)})
    with pytest.raises(DataError, match="attention_mask is missing"):
        make_loader(sequences(1, 1), model, collate=_tokens, form=form)


def _strict(rows: list[Any]) -> Any:
    return {"input_ids": torch.tensor([row["tokens"] for row in rows])}


@pytest.mark.parametrize(
    ("rows", "collate", "message"),
    [
        ([([3, 4], 1)], None, "make no batch: TypeError: tuple indices"),
        (TensorDataset(torch.ones(3, 4).long()), None, "make no batch: TypeError"),
        ([{"input_ids": [3, 4]}, {"tokens": [3]}], None, "make no batch: KeyError: 'input_ids'"),
        (sequences(2, 1), _strict, "make no batch by _strict: KeyError: 'tokens'"),
        ({"train": sequences(2, 1)}, None, "the first row of a dict cannot be read: 0"),
    ],
)
def test_rows_that_make_no_batch_are_one_line(rows: Any, collate: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make_loader(rows, llama(), collate=collate)
    assert "\n" not in str(caught.value)


def test_images_of_several_sizes_are_one_line() -> None:
    rows = [*images(1, 1), {"pixel_values": torch.zeros(3, 9, 8), "label": 0}]
    with pytest.raises(DataError, match="make no batch: RuntimeError: stack expects"):
        count_classes(make_loader(rows, vit()), ["a", "b", "c"])
    with pytest.raises(DataError, match="the numbers that they have are pixel_values"):
        count_classes(make_loader([{**images(1, 1)[0], "label": "cat"}], vit()), ["a"])


def _tokens(rows: list[Any]) -> dict[str, Tensor]:
    return {"input_ids": torch.tensor([row["input_ids"] for row in rows])}
