"""Heads of foreign classifiers: timm's and transformers', and adapters of PEFT.

The table of all of them is docs/figures/heads.csv (`head_census`).  By default one of each family
and outcome is built again and compared with the table; with `-m census` all are.
"""

import importlib
import importlib.util
import warnings
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit.common.errors import ScopeError
from disinherit.common.models.heads import find_head
from tests.support.head_census import (
    LARGEST,
    TABLE,
    Row,
    all_names,
    check_head,
    quickest,
    read_table,
    shim_torchvision,
    take,
)

PACKAGES = ("timm", "torchvision", "transformers", "peft")
ROWS = read_table(TABLE)
PICKED = [row for row in quickest(ROWS) if row.seconds <= 5]

pytestmark = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(package) is None for package in PACKAGES),
        reason=f"needs {', '.join(PACKAGES)}",
    ),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shim_torchvision()


def same(row: Row) -> None:
    again = take(row.name, row.family)
    assert (again.outcome, again.layers) == (row.outcome, row.layers), again.reason
    assert (again.exact, again.gauge_free) == (row.exact, row.gauge_free)


@pytest.mark.slow
@pytest.mark.parametrize("row", PICKED, ids=[row.name for row in PICKED])
def test_one_of_each_family_matches_the_table(row: Row) -> None:
    same(row)


@pytest.mark.census
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_every_architecture_matches_the_table(row: Row) -> None:
    if row.outcome == "not built":
        pytest.skip(row.reason)
    if row.outcome != "like":
        same(row)
        return
    like, found = ROWS[row.reason], take(row.name, row.family)
    if found.outcome == "not built":
        pytest.skip(found.reason)
    assert (found.outcome, found.exact) == (like.outcome, like.exact), found.reason


def test_the_table_has_all_architectures_and_refuses_for_a_reason() -> None:
    outcomes = Counter(row.outcome for row in ROWS.values())
    assert outcomes["one"] + outcomes["several"] > 0.9 * (len(ROWS) - outcomes["like"])
    assert outcomes["not built"] < 0.05 * len(ROWS)
    for row in ROWS.values():
        if row.outcome == "none":
            # Either no sum of linear layers, or an encoder that returns no logits at all.
            phrases = ("Give another scope, such as", "to return floating-point logits")
            assert any(words in row.reason for words in phrases)
        elif row.outcome == "like":
            assert ROWS[row.reason].outcome != "like"
        elif row.outcome == "not built":
            assert row.reason != "too large" or row.parameters > LARGEST
        else:
            assert row.layers
    assert len(ROWS) > 0.98 * len(all_names())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.classifier = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Any:
        return self.classifier(torch.relu(self.b(torch.relu(self.a(x)))))


def adapted(**values: Any) -> nn.Module:
    peft: Any = importlib.import_module("peft")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = peft.get_peft_model(Net(), peft.LoraConfig(r=2, **values))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first
            nn.init.normal_(parameter, 0, 0.3)
    return model


BASE = "base_model.model.classifier"
ADAPTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "on the classifier": (
        {"target_modules": ["a", "b", "classifier"]},
        [f"{BASE}.base_layer", f"{BASE}.lora_B.default"],
    ),
    "the classifier saved": (
        {"target_modules": ["a", "b"], "modules_to_save": ["classifier"]},
        [f"{BASE}.modules_to_save.default"],
    ),
    "below the classifier": ({"target_modules": ["a"]}, [BASE]),
}


@pytest.mark.parametrize("case", ADAPTED)
def test_the_head_of_an_adapted_model(case: str) -> None:
    values, expected = ADAPTED[case]
    model, inputs = adapted(**values), torch.randn(6, 6)
    head = find_head(model, inputs)
    assert [layer.module for layer in head.layers] == expected
    assert head.gauge_free
    check_head(model.eval(), inputs, head)


def test_a_classifier_whose_adapter_normalises_is_refused() -> None:
    model = adapted(target_modules=["classifier"], use_dora=True)
    with pytest.raises(ScopeError, match="5 logits of PeftModel .* Give another scope"):
        find_head(model, torch.randn(6, 6))
