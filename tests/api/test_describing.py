"""Records of models, and labels that do not fit their heads."""

import pytest
import torch
from torch import nn

from disinherit.common.errors import FisherError, LabelError
from disinherit.common.graph.records import ModelRecord
from disinherit.common.models.scope import architecture_fingerprint
from disinherit.describing import describe_model


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 6))


def describe(labels: int, inputs: torch.Tensor | None = None) -> ModelRecord:
    names = [str(i) for i in range(labels)]
    return describe_model("m", network(), owner="me", labels=names, created_us=1, inputs=inputs)


@pytest.mark.parametrize("inputs", [None, torch.randn(3, 5)])
def test_a_record_has_a_label_for_each_row(inputs: torch.Tensor | None) -> None:
    record = describe(6, inputs)
    assert record.labels == tuple("012345")
    assert record.architecture == architecture_fingerprint(network().state_dict())


def test_labels_that_fit_no_tensor_are_refused() -> None:
    with pytest.raises(
        LabelError, match=r"model 'm', but got 10, and no .*rows: 0.weight: 16, 2.weight: 6\."
    ):
        describe(10)


def test_inputs_show_how_many_labels_there_are() -> None:
    assert len(describe(16).labels) == 16  # as many as features: nothing to see without inputs
    with pytest.raises(LabelError, match="each of the 6 logits of model 'm', but got 16: 0, 1"):
        describe(16, torch.randn(3, 5))
    with pytest.raises(FisherError, match="inputs that Sequential can take"):
        describe(6, torch.randn(3, 4))
