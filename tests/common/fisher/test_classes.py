"""Sums of a head by rows, and of single classes, against those of every class in full."""

import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from disinherit.common.errors import FisherError
from disinherit.common.fisher import summation, totals
from disinherit.common.fisher.classes import ClassFishers
from disinherit.common.fisher.diagonal import MethodName, fisher_diagonal
from tests.support.fisher_cases import CASES, CLASSES, all_sums, last_layer, make, oracle, rows

PRESENT = CLASSES - 1
"""Of the targets that `make` draws, the last class has none."""
NO_HEAD = ("tied", "borrowed", "bypassed")
"""Their last layer's weight is used elsewhere too, or by no call of the layer."""
HEADS = [
    (case, method)
    for case, method in product(CASES, ("head", "layers", "vmap"))
    if case not in NO_HEAD and method in CASES[case].head_by
]


@pytest.fixture
def by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every head by rows, however small it is."""
    monkeypatch.setattr(summation, "WHOLE", 0)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12 * float(expected.max()))


def head_of(case: str) -> tuple[Any, Any, Tensor, dict[str, Tensor]]:
    model, inputs, targets = make(case, 9)
    sums = oracle(model, inputs, targets)
    return model, inputs, targets, {name: sums[name] for name in last_layer(model)}


def check_rows(found: ClassFishers, whole: dict[str, Tensor]) -> None:
    """Compare own and other rows with the sums `[C, C, ...]` of every class in full."""
    assert found.by_rows
    assert found.others.keys() == whole.keys()
    for name, value in whole.items():
        for row in range(CLASSES):
            others = sum(value[c][row] for c in range(CLASSES) if c != row)
            assert isinstance(others, Tensor)
            close(found.others[name][row], others)
        for place, label in enumerate(found.classes.tolist()):
            close(found.sums[name][place], value[label][label])


@pytest.mark.parametrize(("case", "method"), HEADS)
@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_a_head_by_rows_equals_the_full_head(
    case: str, method: MethodName, clip_norm: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs, targets = make(case, 9)
    batches = [
        (rows(inputs, part), targets[part]) for part in (torch.arange(4), torch.arange(4, 9))
    ]
    names = ",".join(last_layer(model))

    def computed() -> ClassFishers:
        return fisher_diagonal(
            model, batches, scope=names, per_class=True, method=method, clip_norm=clip_norm
        )

    whole = computed()
    assert not whole.by_rows
    for large in (2**16, 0):  # large gradients are added differently
        monkeypatch.setattr(summation, "WHOLE", 0)
        monkeypatch.setattr("disinherit.common.fisher.sums._LARGE", large)
        found = computed()
        check_rows(found, all_sums(whole))
        assert found.counts.equal(whole.counts)
        assert found.behind.equal(whole.counts.sum() - whole.counts)
        for name, value in found.total().values.items():
            close(value, whole.total().values[name])


def test_one_backward_pass_per_sample_keeps_rows_too(by_rows: None) -> None:
    model, inputs, targets, whole = head_of("branching")
    check_rows(fisher_diagonal(model, [(inputs, targets)], scope="all", per_class=True), whole)


def test_only_the_layer_that_makes_the_logits_is_kept_by_rows(by_rows: None) -> None:
    model, inputs, targets = make("perceptron", 5)
    found = fisher_diagonal(model, [(inputs, targets)], scope="all", per_class=True)
    assert found.others.keys() == {"2.weight"}
    assert found.sums["0.weight"].shape == (len(targets.unique()), 6, 3)
    for case in NO_HEAD:
        model, inputs, targets = make(case, 5)
        scope = ",".join(last_layer(model))
        found = fisher_diagonal(model, [(inputs, targets)], scope=scope, per_class=True)
        assert not found.by_rows


def test_a_head_of_several_layers_is_kept_by_rows(by_rows: None) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, CLASSES), nn.Conv1d(3, CLASSES, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.one(x) + self.two(torch.tanh(x)[:, :, None]).mean(2)
            return logits / 2

    model = Mean().double()
    inputs, targets = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 2, 0, 2])
    found = fisher_diagonal(model, [(inputs, targets)], per_class=True)
    assert found.others.keys() == {"one.weight", "one.bias", "two.weight"}
    check_rows(found, oracle(model, inputs, targets))


def test_a_head_by_rows_suffices_for_rows_of_forgotten_classes(by_rows: None) -> None:
    model, inputs, targets, whole = head_of("perceptron")
    found = fisher_diagonal(model, [(inputs, targets)], per_class=True)
    full = ClassFishers(whole, found.counts)
    for label in found.classes.tolist():
        own, own_full = (f.each([label], [label])[label] for f in (found, full))
        rest, rest_full = (f.excluding([label], [label]) for f in (found, full))
        assert (own.count, rest.count) == (own_full.count, rest_full.count)
        for name in whole:
            close(own.values[name][label], own_full.values[name][label])
            close(rest.values[name][label], rest_full.values[name][label])
            assert own.values[name].count_nonzero() <= own.values[name][label].numel()
            assert rest.values[name].count_nonzero() <= rest.values[name][label].numel()
    pair = found.excluding([0, 1], [0, 1])
    for name, row in product(whole, (0, 1)):
        behind = int(found.counts.sum() - found.counts[row])
        close(pair.values[name][row], found.others[name][row] / behind)


def test_other_rows_of_single_classes_are_refused(by_rows: None) -> None:
    model, inputs, targets, _ = head_of("perceptron")
    found = fisher_diagonal(model, [(inputs, targets)], per_class=True)
    for ask in (found.over, found.excluding, found.each):
        with pytest.raises(FisherError, match=r"all rows of 2\.weight, but of 4 classes only"):
            ask([0])
    with pytest.raises(FisherError, match=r"classes that are left out, but got \[2\]"):
        found.excluding([0], [0, 2])
    with pytest.raises(FisherError, match="which have none"):
        found.each([PRESENT], [PRESENT])


def test_a_forgotten_class_is_removed_from_a_head_by_rows(by_rows: None) -> None:
    model, inputs, targets, _ = head_of("perceptron")
    found = fisher_diagonal(model, [(inputs, targets)], per_class=True)
    before = {name: value.clone() for name, value in found.sums.items()}
    left = found.without([1])
    assert left.counts.tolist() == [c * (k != 1) for k, c in enumerate(found.counts.tolist())]
    place = found.classes.tolist().index(1)
    assert not left.sums["2.weight"][place].any()
    rest, asked = left.excluding([0], [0]), found.excluding([0], [0])
    assert rest.values["2.weight"].equal(asked.values["2.weight"])
    assert left.without([0]).behind.equal(found.behind)
    assert all(found.sums[name].equal(value) for name, value in before.items())


def test_totals_of_classes_are_bounded_by_their_own_rows(by_rows: None) -> None:
    for case in ("perceptron", "conv2d", "text"):
        model, inputs, targets, whole = head_of(case)
        found = fisher_diagonal(model, [(inputs, targets)], per_class=True).class_totals()
        for label, bound in enumerate(found):
            exact = sum(float(value[label].sum()) for value in whole.values())
            assert exact <= bound * (1 + 1e-12) <= 2 * exact * (1 + 1e-12) + 1e-300
        full = ClassFishers(whole, torch.bincount(targets, minlength=CLASSES)).class_totals()
        assert full == pytest.approx(
            [sum(float(v[c].sum()) for v in whole.values()) for c in range(CLASSES)]
        )


def test_scalar_parameters_have_totals_and_can_be_clipped() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.head = nn.Linear(3, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(x * self.scale)
            return logits

    batch = torch.randn(5, 3), torch.tensor([0, 1, 1, 2, 0])
    plain, clipped = (
        fisher_diagonal(Scaled(), [batch], scope="scale", per_class=True, clip_norm=clip)
        for clip in (None, 1e-6)
    )
    assert plain.class_totals()[:3] == pytest.approx(plain.sums["scale"].tolist())
    assert clipped.sums["scale"].tolist() == pytest.approx([2e-6, 2e-6, 1e-6])


def test_shards_by_rows_with_different_classes_add_up(by_rows: None) -> None:
    model, inputs, targets, whole = head_of("perceptron")
    order = targets.argsort()
    shards = [
        fisher_diagonal(model, [(rows(inputs, part), targets[part])], per_class=True)
        for part in (order[:4], order[4:])
    ]
    assert shards[0].classes.tolist() != shards[1].classes.tolist()
    check_rows(shards[0] + shards[1], whole)
    with pytest.raises(FisherError, match="the same shapes"):
        shards[0] + ClassFishers(whole, torch.tensor([1, 1, 1, 1]))


@pytest.mark.parametrize("method", ["head", "layers", "vmap"])
def test_classes_apart_have_all_their_rows(method: MethodName, by_rows: None) -> None:
    model, inputs, targets, whole = head_of("perceptron")
    found = fisher_diagonal(
        model, [(inputs, targets)], per_class=True, apart=[0], method=method, num_classes=CLASSES
    )
    full = ClassFishers(whole, torch.bincount(targets, minlength=CLASSES))
    assert found.classes.tolist() == [0, 1]
    assert found.counts.tolist() == [int(full.counts[0]), int(full.counts[1:].sum()), 0, 0]
    for name in whole:
        close(found.over([0]).values[name], full.over([0]).values[name])
        close(found.excluding([0]).values[name], full.excluding([0]).values[name])
    with pytest.raises(FisherError, match=r"classes in \[0, 4\), but got \[7\]"):
        fisher_diagonal(model, [(inputs, targets)], per_class=True, apart=[7])


def test_malformed_sums_by_rows_are_errors() -> None:
    counts = torch.tensor([1, 0, 2])
    own = {"w": torch.zeros(2, 4)}
    with pytest.raises(FisherError, match="ascending indices"):
        ClassFishers(own, counts, torch.tensor([2, 0]))
    with pytest.raises(FisherError, match="ascending indices"):
        ClassFishers(own, counts, torch.tensor([0, 1]))
    with pytest.raises(FisherError, match="ascending indices"):
        ClassFishers(own, counts, torch.tensor([0, 3]))
    with pytest.raises(FisherError, match=r"of shape \[3, 4\] for parameter 'w', but got \[2, 4\]"):
        ClassFishers(own, counts, torch.tensor([0, 2]), {"w": torch.zeros(2, 4)})
    with pytest.raises(FisherError, match="counts of others"):
        ClassFishers(own, counts, torch.tensor([0, 2]), {}, torch.tensor([1, 1]))


def test_sums_that_do_not_fit_into_memory_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(totals, "_LITTLE", 0)
    monkeypatch.setattr(totals, "memory_left", lambda device: 100)
    batch = torch.randn(4, 3), torch.tensor([0, 1, 1, 3])
    with pytest.raises(FisherError) as raised:
        fisher_diagonal(nn.Linear(3, CLASSES), [batch], per_class=True)
    assert str(raised.value).startswith("Expected 384 bytes of memory on cpu for another [4, 4, 3]")
    assert "but there is 100 bytes." in str(raised.value)
    assert "narrower scope" in str(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"),
        MemoryError("no memory"),
    ],
)
def test_memory_that_runs_out_is_not_blamed_on_the_inputs(error: Exception) -> None:
    class Full(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            raise error

    with pytest.raises(torch.OutOfMemoryError, match="memory"):
        fisher_diagonal(Full(3, CLASSES), [(torch.randn(4, 3), torch.tensor([0, 1, 1, 3]))])


LARGE = """
import sys, torch
from torch import nn
from disinherit.common.fisher.diagonal import fisher_diagonal
from disinherit.simulations.bench.memory import with_peak
classes, width, present = map(int, sys.argv[1:])
model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, classes))
targets = torch.arange(present).repeat(2)
data = [(torch.randn(len(targets), 8), targets)]
found, peak = with_peak(lambda: fisher_diagonal(model, data, per_class=True))
kept = sum(t.nbytes for part in (found.sums, found.others) for t in part.values())
print(kept, peak or 0)
"""


@pytest.mark.parametrize(
    ("classes", "present", "most"), [(1000, 50, 5e6), (1000, 1000, 5e6), (20_000, 3, 50e6)]
)
def test_a_head_of_many_classes_takes_a_few_times_its_own_memory(
    classes: int, present: int, most: float
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(classes), "512", str(present)],
        check=True,
        capture_output=True,
        text=True,
    )
    kept, peak = map(int, done.stdout.split())
    assert kept <= most
    assert peak <= 1e9
