"""Codes of changes: errors within their bounds in float64, and damage is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.deltas.codes import StoredChanges, encode_changes
from disinherit.common.errors import FisherError
from disinherit.common.method import DELTA_CODES, DeltaCode

SHAPES = st.sampled_from([(7,), (1,), (3, 5), (2, 3, 2), (6, 4, 3, 3), (0, 4), (4, 0), (0,), ()])
MAGNITUDES = st.one_of(st.just(0.0), st.floats(-100, 80).map(lambda power: 2.0**power))
VALUES = st.tuples(MAGNITUDES, st.sampled_from([-1.0, 1.0])).map(math.prod)
CODES = list(DELTA_CODES)


@st.composite
def changes(draw: st.DrawFn) -> Tensor:
    shape = draw(SHAPES)
    size = math.prod(shape)
    values = draw(st.lists(VALUES, min_size=size, max_size=size))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return torch.tensor(values, dtype=dtype).view(shape)


def there_and_back(value: Tensor, code: DeltaCode, rank: int = 0) -> Tensor:
    stored = encode_changes({"w": value}, code, rank)
    found = StoredChanges.read(stored, code, rank, "it")
    assert found.shapes == {"w": tuple(value.shape)}
    return found.decode("w")


@given(value=changes())
def test_the_full_code_is_bit_for_bit(value: Tensor) -> None:
    assert there_and_back(value, "full") is value


@given(value=changes())
def test_bfloat16_is_within_its_bound(value: Tensor) -> None:
    found = there_and_back(value, "bfloat16")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), value.double(), rtol=2**-8, atol=0)


@given(value=changes())
def test_int8_is_within_half_a_step_of_the_largest_value_of_each_row(value: Tensor) -> None:
    """Compare with the formula, in float64, one value at a time."""
    found = there_and_back(value, "int8")
    assert found.dtype == torch.float32
    assert found.shape == value.shape
    rows = value.unsqueeze(0) if value.dim() < 2 else value
    for row, got in zip(rows.double(), found.view(rows.shape).double(), strict=True):
        most = max(map(abs, row.flatten().tolist()), default=0.0)
        for x, y in zip(row.flatten().tolist(), got.flatten().tolist(), strict=True):
            assert abs(x - y) <= most / 254 * (1 + 1e-5) + 2**-140
            assert x * y >= 0


@settings(max_examples=60)
@given(
    shape=st.sampled_from([(12, 9), (9, 12), (8, 3, 3, 3), (16, 40), (5, 4, 6)]),
    rank=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_factors_are_as_near_as_any_of_their_rank(
    shape: tuple[int, ...], rank: int, seed: int
) -> None:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    found = there_and_back(value, "full", rank)
    rows, columns = shape[0], math.prod(shape[1:])
    if rank * (rows + columns) >= rows * columns:
        assert torch.equal(found, value)
        return
    lost = torch.linalg.svdvals(value.double().flatten(1))[rank:].square().sum().sqrt()
    error = (found.double() - value.double()).norm()
    torch.testing.assert_close(error, lost, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("code", CODES)
def test_a_matrix_of_the_rank_is_within_the_bound_of_its_coded_factors(code: DeltaCode) -> None:
    """‖L R - L' R'‖ <= ‖E_L‖ ‖R'‖ + ‖L‖ ‖E_R‖, with errors of factors as for any tensor."""
    generator = torch.Generator().manual_seed(3)
    left, right = torch.randn(40, 3, generator=generator), torch.randn(3, 60, generator=generator)
    right *= torch.tensor([[1.0], [1e-2], [1e-4]])
    value = (left @ right).view(40, 20, 3)
    found = there_and_back(value, code, 3)
    singular = torch.linalg.svdvals(value.double().flatten(1))[:3]
    u = torch.linalg.svd(value.double().flatten(1), full_matrices=False)[0][:, :3]
    if code == "int8":
        off_left = (u.abs().amax(1) / 254).square().sum().mul(3).sqrt()
        off_right = singular.square().sum().sqrt() * math.sqrt(60) / 254
    else:
        off_left = off_right = torch.tensor({"full": 1e-6, "bfloat16": 2**-8}[code]).double()
        off_left, off_right = off_left * math.sqrt(3), off_right * singular.norm()
    bound = off_left * (singular.norm() + off_right) + off_right
    assert float((found.double() - value.double()).norm()) <= float(bound)
    # Each singular value has a scale of its own.
    small = u[:, 2] @ (found.double() - value.double()).flatten(1)
    if code == "int8":
        assert float(small.norm()) < float(singular[0]) / 254


@pytest.mark.parametrize(("code", "size"), [("full", 4), ("bfloat16", 2), ("int8", 1)])
def test_lengths_are_those_of_the_code(code: DeltaCode, size: int) -> None:
    def length(rank: int) -> int:
        stored = encode_changes({"w": torch.randn(50, 40, 3)}, code, rank)
        return sum(tensor.nbytes for tensor in stored.values())

    scales = 4 if code == "int8" else 0
    assert length(0) == 50 * 120 * size + 50 * scales
    assert length(8) == 8 * (50 + 120) * size + (50 + 8) * scales


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("rank", [0, 2])
def test_the_same_change_gives_the_same_bytes(code: DeltaCode, rank: int) -> None:
    value = torch.randn(30, 20, generator=torch.Generator().manual_seed(1))
    first, second = (encode_changes({"w": value.clone()}, code, rank) for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("rank", [0, 1])
def test_names_that_look_like_prefixes_are_kept_apart(code: DeltaCode, rank: int) -> None:
    names = ["left.w", "right.w", "whole.w", "codes.w", "scales.w", "w", ""]
    values = {name: torch.full((4, 4), float(place)) for place, name in enumerate(names)}
    values["left.w"] = torch.ones(3)
    found = StoredChanges.read(encode_changes(values, code, rank), code, rank, "it")
    assert found.shapes.keys() == values.keys()
    for name, value in values.items():
        torch.testing.assert_close(found.decode(name), value, rtol=0.01, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("code", CODES)
def test_a_change_that_is_not_finite_is_not_encoded(value: float, code: DeltaCode) -> None:
    with pytest.raises(FisherError, match="finite values for 'w' in a change"):
        encode_changes({"w": torch.tensor([1.0, value])}, code, 0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float8_e4m3fn])
def test_only_floats_to_compute_in_are_changes(dtype: torch.dtype) -> None:
    with pytest.raises(FisherError, match=str(dtype)):
        encode_changes({"w": torch.zeros(2).to(dtype)}, "full", 0)


@pytest.mark.parametrize("code", ["bfloat16", "int8"])
def test_values_beyond_the_range_of_a_code_are_refused_and_the_largest_pass(
    code: DeltaCode,
) -> None:
    most = torch.finfo(torch.bfloat16).max
    found = there_and_back(torch.tensor([[most, -most]]), code)
    torch.testing.assert_close(found, torch.tensor([[most, -most]]), rtol=1e-6, atol=0)
    for value in (torch.finfo(torch.float32).max, -1e300):
        with pytest.raises(FisherError, match=f"for the encoding {code}, but got .*Send it in"):
            encode_changes({"w": torch.tensor([value], dtype=torch.float64)}, code, 0)


INT8 = encode_changes({"w": torch.randn(3, 4)}, "int8", 0)
SIGNED, SCALES = INT8["codes.w"], INT8["scales.w"]
LOW = encode_changes({"w": torch.randn(8, 8)}, "full", 2)
LEFT, RIGHT = LOW["left.w"], LOW["right.w"]


@pytest.mark.parametrize(
    ("stored", "code", "rank", "named"),
    [
        ({"codes.w": SIGNED}, "int8", 0, "scales.w"),
        ({"scales.w": SCALES}, "int8", 0, "scales.w"),
        ({**INT8, "w": torch.rand(3)}, "int8", 0, "'w'"),
        ({**INT8, "codes.w": SIGNED.to(torch.uint8)}, "int8", 0, "torch.uint8"),
        ({**INT8, "scales.w": SCALES[:2]}, "int8", 0, r"\[2, 1\]"),
        ({**INT8, "scales.w": SCALES.double()}, "int8", 0, "torch.float64"),
        ({**INT8, "scales.w": SCALES * torch.nan}, "int8", 0, "finite scales"),
        ({**INT8, "scales.w": -SCALES}, "int8", 0, "finite scales >= 0"),
        ({"w": torch.rand(3)}, "bfloat16", 0, "torch.float32"),
        ({"w": torch.ones(3, dtype=torch.int8)}, "full", 0, "torch.int8"),
        (LOW, "bfloat16", 2, "torch.float32"),
        ({"w": torch.rand(3)}, "full", 2, "'w' alone"),
        ({"left.w": LEFT}, "full", 2, "'left.w' alone"),
        ({"right.w": RIGHT}, "full", 2, "'right.w' alone"),
        ({**LOW, "whole.w": torch.rand(8, 8)}, "full", 2, "'(whole|left).w' alone, twice"),
        (LOW, "full", 1, "k from 1 to 1"),
        ({**LOW, "right.w": RIGHT[:1]}, "full", 2, r"\[8, 2\] and \[1, 8\]"),
        ({**LOW, "left.w": LEFT[:, :, None]}, "full", 2, r"\[8, 2, 1\]"),
        ({**LOW, "right.w": RIGHT[:, 0]}, "full", 2, r"\[8, 2\] and \[2\]"),
        ({"left.w": torch.rand(9, 0), "right.w": torch.rand(0, 9)}, "full", 2, "k from 1 to 2"),
    ],
)
def test_tensors_that_do_not_fit_the_code_are_refused(
    stored: dict[str, Tensor], code: DeltaCode, rank: int, named: str
) -> None:
    with pytest.raises(FisherError, match=named) as refused:
        StoredChanges.read(stored, code, rank, "it")
    assert "\n" not in str(refused.value)
