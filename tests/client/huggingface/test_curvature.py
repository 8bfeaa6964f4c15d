"""Curvature of language models: per token, against the exact Gauss-Newton matrix.

Llama normalises in float32, whatever its weights are, so more than five digits do not agree.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jacrev

from disinherit.client.dampening.summaries import register
from disinherit.client.roots.ekfac import EkfacStep
from disinherit.client.roots.problems import root_problem
from disinherit.client.roots.root_method import unlearn_root
from disinherit.client.store.store import ModelStore
from disinherit.common.curvature import sweeping
from disinherit.common.curvature.ekfac import Curvature, gradients, measure, squares
from disinherit.common.method import Method
from disinherit.common.models.sequences import IGNORED
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.huggingface import Row, counting, fit, llama, loss_of, require, sequences

require()

from disinherit.client.huggingface.batches import adapt, make_loader  # noqa: E402
from disinherit.client.huggingface.owner import HuggingFaceOwner  # noqa: E402

CPU = torch.device("cpu")
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROWS: list[Row] = [
    {"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]},
    {"input_ids": [2, 4, 1], "labels": [IGNORED, IGNORED, 1]},  # as an answer, and padded
    {"input_ids": [3, 3, 2, 1], "labels": [3, IGNORED, 2, 1]},
]


def tiny(vocabulary: int) -> Any:
    sizes: dict[str, Any] = {"hidden_size": 4, "intermediate_size": 6, "vocab_size": vocabulary}
    model = llama(**sizes, attn_implementation="eager").double()
    for parameter in model.parameters():
        parameter.data *= 12  # so that it is sure of something
    return model


@pytest.fixture(scope="module")
def measured() -> tuple[Any, list[Any], Curvature]:
    model = adapt(tiny(5), ROWS)
    batches = list(make_loader(ROWS, model, batch_size=2))
    names = [name for name, _ in model.named_parameters()]
    return model, batches, measure(model, names, batches, CPU)


def counted(row: Row) -> list[int]:
    return [at for at, label in enumerate(row["labels"]) if at and label != IGNORED]


def exact(model: Any, rows: list[Row], name: str) -> Tensor:
    """Gauss-Newton matrix of one weight: a token after the other, each by its share."""
    fixed = dict(model.named_parameters())

    def logits(weight: Tensor, row: Row, at: int) -> Tensor:
        tokens = {"input_ids": torch.tensor([row["input_ids"]])}
        found = functional_call(model, {**fixed, name: weight}, (), tokens)
        chosen: Tensor = found.logits[0, at - 1]
        return chosen

    weight = fixed[name].detach()
    total = torch.zeros(weight.numel(), weight.numel(), dtype=torch.float64)
    for row in rows:
        for at in counted(row):
            jacobian = jacrev(logits)(weight, row, at).flatten(1).detach()
            p = logits(weight, row, at).detach().softmax(0)
            total += jacobian.mT @ (p.diag() - p.outer(p)) @ jacobian / len(counted(row))
    return total


def test_linear_layers_are_covered_and_tied_embeddings_are_not(measured: Any) -> None:
    _, _, curvature = measured
    assert {path.rpartition(".")[2] for path in curvature.layers} == set(LINEAR)
    assert curvature.count == 3


@pytest.mark.parametrize("layer", LINEAR)
def test_values_are_the_diagonal_of_the_exact_matrix_in_the_basis(
    measured: Any, layer: str
) -> None:
    model, _, curvature = measured
    ((path, one),) = [(p, c) for p, c in curvature.layers.items() if p.endswith(layer)]
    basis = torch.kron(one.outputs, one.inputs)
    diagonal = (basis.mT @ exact(model, ROWS, f"{path}.weight") @ basis).diagonal()
    assert diagonal.max() > 1e-6
    # The softmax of attention is float32 as well, and queries and keys are behind it.
    atol = (2e-3 if layer in ("q_proj", "k_proj") else 1e-5) * float(diagonal.max())
    torch.testing.assert_close(one.values.flatten(), diagonal, rtol=1e-4, atol=atol)


def test_gradients_are_those_of_the_mean_losses_of_sequences(measured: Any) -> None:
    model, batches, curvature = measured
    found = gradients(model, curvature, batches, CPU)
    torch.stack([loss_of(model, row) for row in ROWS]).sum().backward()
    for path, one in curvature.layers.items():
        expected = one.outputs.mT @ model.get_parameter(f"{path}.weight").grad @ one.inputs
        torch.testing.assert_close(found[path], expected, rtol=1e-4, atol=1e-10)
    model.zero_grad()


def test_what_sequences_add_is_subtracted_exactly(measured: Any) -> None:
    model, batches, curvature = measured
    first, others = (squares(model, curvature, [batch], CPU) for batch in batches)
    for path, one in curvature.layers.items():
        torch.testing.assert_close(one.values - first[path], others[path], rtol=1e-4, atol=1e-10)


def test_many_tokens_are_combined_at_random_without_bias() -> None:
    model = adapt(tiny(24), ROWS)
    batches = list(make_loader(ROWS, model, batch_size=1)) * 30
    layer = "model.layers.0.mlp.down_proj"
    curvature = measure(model, [f"{layer}.weight"], batches, CPU)
    expected = 30 * exact(model, ROWS, f"{layer}.weight").trace()
    assert sweeping.COLUMNS < 24 * 3
    assert float(curvature.layers[layer].values.sum() / expected) == pytest.approx(1, abs=0.15)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HuggingFaceOwner]:
    rows = [*sequences(4, 1), *counting(16, 1)]
    folder: Path = tmp_path_factory.mktemp("store")
    model = fit(llama(hidden_size=32, intermediate_size=48), rows, 100)
    with HuggingFaceOwner(ModelStore(folder, "lab")) as lab:
        lab.add("llm", model, rows, ids="id", curvature=True)
        lab.add("other", model, rows, ids="id")
        register(lab, pb.RegisterTask(scope="all"))
        yield lab


def test_a_root_forgets_by_a_step_with_its_registered_curvature(lab: HuggingFaceOwner) -> None:
    forget = [f"s1-{at}" for at in range(4)]
    record = lab.store.record("llm")
    problem = root_problem(lab, record, Method(scope="all"), "case", forget)
    name, made = unlearn_root(problem, "ekfac")
    assert name == "ekfac"
    assert "left as they are: model.embed_tokens.weight" in made.note
    before, after = lab.load("llm"), lab.load("llm")
    after.load_state_dict(made.weights, strict=False)
    for rows, most in ((sequences(4, 1), None), (counting(16, 1), 0.3)):
        with torch.no_grad():
            rise = float(sum(loss_of(after, r) - loss_of(before, r) for r in rows) / len(rows))
        assert rise > 1 if most is None else rise < most
    other = root_problem(lab, lab.store.record("other"), Method(scope="all"), "case", forget)
    assert "No curvature" in EkfacStep().refusal(other)
