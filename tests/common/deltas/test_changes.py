"""Changes of weights: difference, sum in place, and what is left, against oracles in float64."""

import copy
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from disinherit.common.deltas import changes
from disinherit.common.deltas.changes import add, difference, left_in, length
from disinherit.common.errors import FisherError
from disinherit.common.tensors.lazy import LazyTensors


class Allocated(TorchDispatchMode):
    """Counts the bytes of storages that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {
            one.untyped_storage().data_ptr()
            for one in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(one, Tensor)
        }
        made = func(*args, **(kwargs or {}))
        for one in torch.utils._pytree.tree_leaves(made):
            if isinstance(one, Tensor) and one.untyped_storage().data_ptr() not in given:
                size = one.untyped_storage().nbytes()
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(one, self._free, size)
        return made

    def _free(self, size: int) -> None:
        self.now -= size


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 3),
    )


def trained(model: nn.Sequential, seed: int = 0, steps: int = 3) -> nn.Sequential:
    model = copy.deepcopy(model).train()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(steps):
        inputs = torch.randn(16, 1, 8, 8, generator=generator)
        targets = torch.randint(0, 3, (16,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# --- difference


def test_a_difference_has_parameters_and_float_buffers_and_no_counts() -> None:
    start = network()
    before, after = state(start), state(trained(start))
    found = difference(before, after)
    assert found.keys() == before.keys() - {"1.num_batches_tracked"}
    assert found["1.running_var"].any()
    for name, change in found.items():
        assert torch.equal(change, after[name] - before[name])


def test_a_difference_leaves_out_what_is_as_it_was() -> None:
    before = {"a": torch.ones(2), "b": torch.ones(2)}
    found = difference(before, {"a": torch.ones(2), "b": torch.tensor([1.0, 2.0])})
    assert found.keys() == {"b"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_difference_of_halves_is_exact(dtype: torch.dtype) -> None:
    before, after = torch.tensor([1.0]).to(dtype), torch.tensor([1.0078125 * 100]).to(dtype)
    found = difference({"w": before}, {"w": after})["w"]
    assert found.dtype == torch.float32
    assert found.item() == after.item() - before.item()


def test_a_tied_parameter_has_one_change() -> None:
    embed, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embed.weight
    model = nn.ModuleDict({"embed": embed, "head": head})
    changed = copy.deepcopy(model)
    nn.init.zeros_(changed.get_parameter("embed.weight"))
    assert difference(model.state_dict(), changed.state_dict()).keys() == {"embed.weight"}
    # From files, the names share no memory.
    ties = [("embed.weight", "head.weight")]
    assert difference(state(model), state(changed), ties).keys() == {"embed.weight"}
    assert len(difference(state(model), state(changed))) == 2


def test_a_tied_change_has_the_first_name_of_the_network() -> None:
    """Files sort names: the head may come first, which a model that derives may not have."""
    before = {"head.weight": torch.zeros(2), "model.embed.weight": torch.zeros(2)}
    after = {name: value + 1 for name, value in before.items()}
    ties = [("model.embed.weight", "head.weight")]
    assert difference(before, after, ties).keys() == {"model.embed.weight"}
    assert add(after, [({"model.embed.weight": torch.ones(2)}, 1.0)], ties)
    assert torch.equal(after["head.weight"], torch.full((2,), 2.0))


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}, "only in one a, b"),
        ({"a": torch.ones(2)}, {"a": torch.ones(3)}, r"shape of 'a' .* \[2\] and \[3\]"),
        ({"a": torch.ones(2)}, {"a": torch.tensor([1.0, math.nan])}, "'a' in the weights after"),
        ({"a": torch.tensor([math.inf])}, {"a": torch.ones(1)}, "'a' in the weights before"),
        ({"a": torch.tensor([-3e38])}, {"a": torch.tensor([3e38])}, "'a' in the difference"),
    ],
)
def test_weights_without_a_difference_are_refused(
    before: dict[str, Tensor], after: dict[str, Tensor], named: str
) -> None:
    with pytest.raises(FisherError, match=named):
        difference(before, after)


# --- sums


@given(
    seed=st.integers(0, 50),
    shares=st.lists(st.floats(-2, 2), min_size=1, max_size=3),
    shape=st.sampled_from([(5,), (4, 3), (7, 3, 2), (), (0, 3), (40, 30)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    transposed=st.booleans(),
)
def test_shares_of_several_roots_add_up(
    seed: int, shares: list[float], shape: tuple[int, ...], dtype: torch.dtype, transposed: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random() -> Tensor:
        return torch.randn(shape, generator=generator)

    weight = random().to(dtype)
    if transposed and weight.dim():
        weight = weight.transpose(0, -1).contiguous().transpose(0, -1)
    given = [({"w": random()}, share) for share in shares]
    expected = weight.double()
    for change, share in given:
        expected = expected + share * change["w"].double()
    before, weights = weight.clone(), {"w": weight, "other": torch.ones(3)}
    counts = add(weights, given)
    assert weights["w"] is weight
    assert weight.dtype == dtype
    torch.testing.assert_close(weight, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-15)
    assert counts == {"w": int((weight != before).sum())}
    assert torch.equal(weights["other"], torch.ones(3))


def test_the_whole_change_makes_the_weights_after() -> None:
    start = network()
    before, after = state(start), state(trained(start))
    weights = state(start)
    counts = add(weights, [(difference(before, after), 1.0)])
    assert set(counts) == before.keys() - {"1.num_batches_tracked"}
    for name, value in weights.items():
        wanted = before if name == "1.num_batches_tracked" else after
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-6)


def test_a_running_variance_never_falls_below_zero() -> None:
    model = network()
    weights = state(model)
    drop = {name: torch.full((4,), -3.0) for name in ("1.running_var", "1.running_mean")}
    counts = add(weights, [(drop, 1.0)])
    assert torch.equal(weights["1.running_var"], torch.zeros(4))
    assert torch.equal(weights["1.running_mean"], torch.full((4,), -3.0))
    assert counts == {"1.running_mean": 4, "1.running_var": 4}
    model.load_state_dict(weights)
    assert model.eval()(torch.randn(2, 1, 8, 8)).isfinite().all()


def test_a_tied_parameter_is_changed_once_under_all_its_names() -> None:
    shared = torch.ones(2, 3)
    weights = {"a": shared, "b": shared, "c": torch.ones(2, 3), "d": torch.ones(2, 3)}
    counts = add(weights, [({"b": torch.ones(2, 3), "d": torch.ones(2, 3)}, 1.0)], [("c", "d")])
    assert counts == {"a": 6, "c": 6}
    for value in weights.values():
        assert torch.equal(value, torch.full((2, 3), 2.0))


def test_parameters_of_adapters_are_parameters() -> None:
    weights = {"base.weight": torch.ones(4, 4), "lora_A.weight": torch.ones(1, 4)}
    add(weights, [({"lora_A.weight": torch.ones(1, 4)}, 0.5)])
    assert torch.equal(weights["lora_A.weight"], torch.full((1, 4), 1.5))
    assert torch.equal(weights["base.weight"], torch.ones(4, 4))


@pytest.mark.parametrize(
    ("change", "coefficient", "named"),
    [
        ({"x": torch.ones(2), "w": torch.ones(2)}, 1.0, "those of x. Make"),
        ({"w": torch.ones(2), "v": torch.ones(3)}, 1.0, r"'v', .* but got \[3\]"),
        ({"w": torch.ones(2), "n": torch.ones(())}, 1.0, "'n', as the model has torch.int64"),
        ({"w": torch.ones(2)}, math.nan, "finite share .* nan"),
        ({"w": torch.ones(2)}, math.inf, "finite share .* inf"),
        ({"w": torch.ones(2), "tied": torch.ones(2)}, 1.0, "tied parameter 'tied', .* as 'w'"),
    ],
)
def test_nothing_is_changed_by_what_does_not_fit(
    change: dict[str, Tensor], coefficient: float, named: str
) -> None:
    shared = torch.ones(2)
    weights = {"w": shared, "tied": shared, "v": torch.ones(2), "n": torch.tensor(3)}
    with pytest.raises(FisherError, match=named):
        add(weights, [({"v": torch.ones(2)}, 1.0), (change, coefficient)])
    assert torch.equal(shared, torch.ones(2))
    assert torch.equal(weights["v"], torch.ones(2))


def test_a_sum_beyond_its_dtype_is_refused() -> None:
    with pytest.raises(FisherError, match="finite values of 'w' .* beyond torch.float16"):
        add({"w": torch.tensor([6e4], dtype=torch.float16)}, [({"w": torch.tensor([6e4])}, 1.0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("roots", [1, 3])
def test_a_sum_needs_less_memory_than_the_largest_tensor_and_a_fifth(
    dtype: torch.dtype, roots: int
) -> None:
    weights = {f"w{n}": torch.randn(256, 512).to(dtype) for n in range(6)}
    shares = [({name: torch.randn(256, 512) for name in weights}, 0.3) for _ in range(roots)]
    with Allocated() as allocated:
        add(weights, shares)
    assert 0 < allocated.most <= 1.2 * 256 * 512 * dtype.itemsize
    assert not allocated.now


def test_a_large_tensor_is_summed_in_pieces_of_a_bounded_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "_PIECE", 1000)
    weights, shares = {"w": torch.randn(300, 400)}, [({"w": torch.randn(300, 400)}, 1.0)]
    with Allocated() as allocated:
        add(weights, shares)
    assert allocated.most <= 25 * 1000 + 100


def test_a_small_tensor_is_summed_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    divide = changes._pieces

    def counted(tensors: Sequence[Tensor], most: int) -> Iterator[Sequence[Tensor]]:
        calls.append(tensors[0].shape)
        return divide(tensors, most)

    monkeypatch.setattr(changes, "_pieces", counted)
    weights = {"w": torch.randn(64, 128), "b": torch.randn(64)}
    add(weights, [({name: torch.randn(value.shape) for name, value in weights.items()}, 1.0)])
    assert calls == [(64, 128), (64,)]


# --- what is left of an update


def naive_left(*four: dict[str, Tensor], names: Sequence[str]) -> float:
    model, model_start, root, root_start = (
        torch.cat([one[name].double().flatten() for name in names]) for one in four
    )
    update = root - root_start
    return float((model - model_start) @ update / (update @ update))


@given(seed=st.integers(0, 20))
def test_what_is_left_is_the_projection_on_the_roots_update(seed: int) -> None:
    start = network(seed)
    root = trained(start, seed)
    child = trained(root, seed + 1)
    four = state(child), state(start), state(root), state(start)
    names = [name for name, _ in start.named_parameters()]
    assert left_in(*four) == pytest.approx(naive_left(*four, names=names), rel=1e-9)
    assert left_in(state(root), *four[1:]) == pytest.approx(1.0)
    assert left_in(state(start), *four[1:]) == 0.0
    average = {n: (a + b) / 2 for (n, a), b in zip(four[1].items(), four[2].values(), strict=True)}
    assert left_in(average, *four[1:]) == pytest.approx(0.5, rel=1e-4)


def test_what_is_left_is_summed_over_pieces_and_common_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "_PIECE", 7)
    four = [{"w": torch.randn(5, 6), "head": torch.randn(3, 6)} for _ in range(4)]
    four[0]["head"] = four[1]["head"] = torch.randn(4, 6)
    four[2]["more"] = four[3]["more"] = torch.randn(2)
    found = left_in(four[0], four[1], four[2], four[3])
    assert found == pytest.approx(naive_left(*four, names=["w"]))


@pytest.mark.parametrize(
    ("model", "root"),
    [
        ({"w": torch.ones(2)}, {"w": torch.zeros(2)}),
        ({"w": torch.ones(3)}, {"w": torch.ones(2)}),
        ({"v": torch.ones(2)}, {"w": torch.ones(2)}),
        ({"w": torch.tensor([math.nan, 1.0])}, {"w": torch.ones(2)}),
    ],
)
def test_without_a_common_update_nothing_can_be_left(
    model: dict[str, Tensor], root: dict[str, Tensor]
) -> None:
    zero = {"w": torch.zeros(2)}
    start = {name: torch.zeros_like(value) for name, value in model.items()}
    with pytest.raises(FisherError, match="root whose training changed weights that the model"):
        left_in(model, start, root, zero)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64])
def test_other_types_are_refused_by_name(dtype: torch.dtype) -> None:
    before, after = torch.ones(4).to(dtype), (2 * torch.ones(4)).to(dtype)
    with pytest.raises(FisherError, match=rf"'w'.* {dtype}"):
        difference({"w": before}, {"w": after})
    with pytest.raises(FisherError, match=rf"'w'.* {dtype}"):
        add({"w": before}, [({"w": torch.ones(4)}, 1.0)])


def test_complex_buffers_that_stay_are_left_out() -> None:
    table = torch.ones(4, dtype=torch.complex64)
    before, after = {"t": table, "w": torch.ones(1)}, {"t": table.clone(), "w": torch.zeros(1)}
    assert difference(before, after).keys() == {"w"}


def test_a_length_is_that_of_all_together() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(3, 5), torch.randn(2**21).bfloat16(), torch.tensor(2.0)]
    flat = torch.cat([value.double().flatten() for value in tensors])
    assert length([*tensors, torch.tensor([9])]) == pytest.approx(float(flat.norm()), rel=1e-12)
    assert length([]) == 0.0


def test_what_is_left_is_measured_in_one_reading_of_each_tensor() -> None:
    read: Counter[str] = Counter()
    value = torch.tensor([0.0, 4.0])

    def stored(of: str, factor: float) -> LazyTensors:
        def compute(name: str) -> Tensor:
            read[of] += 1
            return factor * value

        return LazyTensors(["w"], compute)

    start = stored("start", 0)
    assert left_in(stored("model", 0.5), start, stored("root", 1), start) == 0.5
    assert read == {"start": 1, "model": 1, "root": 1}
