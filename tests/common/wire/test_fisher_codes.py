"""Short encodings: the relative error is within its bound, and damage is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.encodings import Encoding
from disinherit.common.errors import FisherError, InputError
from disinherit.common.wire.fisher_codes import decode_values, encode_values
from disinherit.common.wire.packets import PackedFisher, encode_fisher, merge

SHAPES = st.sampled_from([(7,), (1,), (3, 5), (2, 3, 2), (0, 4), (4, 0), ()])
VALUES = st.one_of(st.just(0.0), st.floats(-100, 80).map(lambda power: 2.0**power))


@st.composite
def fishers(draw: st.DrawFn) -> Tensor:
    shape = draw(SHAPES)
    size = math.prod(shape)
    values = draw(st.lists(VALUES, min_size=size, max_size=size))
    return torch.tensor(values, dtype=draw(st.sampled_from([torch.float32, torch.float64]))).view(
        shape
    )


def there_and_back(value: Tensor, encoding: Encoding) -> Tensor:
    stored = encode_values({"w": value}, encoding)
    return decode_values(stored, encoding, "it")["w"]


@given(value=fishers())
def test_the_full_encoding_is_bit_for_bit(value: Tensor) -> None:
    assert there_and_back(value, Encoding.FULL) is value


@given(value=fishers())
def test_bfloat16_is_within_a_quarter_of_a_hundredth(value: Tensor) -> None:
    found = there_and_back(value, Encoding.BFLOAT16)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), value.double(), rtol=2**-8, atol=0)


@given(value=fishers())
def test_log8_is_within_half_a_step_of_each_row(value: Tensor) -> None:
    """Compare with the formula, in float64, one value at a time."""
    found = there_and_back(value, Encoding.LOG8)
    assert found.dtype == torch.float32
    assert found.shape == value.shape
    rows = value.unsqueeze(0) if value.dim() < 2 else value
    for row, got in zip(rows.double(), found.view(rows.shape).double(), strict=True):
        positive = [x for x in row.flatten().tolist() if x]
        if not positive:
            assert not got.any()
            continue
        high = math.log2(max(positive))
        low = max(math.log2(min(positive)), high - 32)
        half = (high - low) / 254 / 2
        for x, y in zip(row.flatten().tolist(), got.flatten().tolist(), strict=True):
            if not x or math.log2(x) < low - half - 1e-4:
                assert y == 0
            elif math.log2(x) >= low - half + 1e-4:
                assert abs(math.log2(y) - math.log2(x)) <= half + 1e-4


def test_log8_takes_a_byte_a_value_and_eight_a_row() -> None:
    value = torch.rand(10, 640)
    sizes = {
        encoding: sum(
            t.numel() * t.element_size() for t in encode_values({"w": value}, encoding).values()
        )
        for encoding in Encoding
        if encoding is not Encoding.FACTORED
    }
    assert sizes == {Encoding.FULL: 25600, Encoding.BFLOAT16: 12800, Encoding.LOG8: 6400 + 80}


def test_values_too_large_for_bfloat16_do_not_become_infinite() -> None:
    value = torch.full((3,), torch.finfo(torch.float32).max)
    assert torch.isfinite(there_and_back(value, Encoding.BFLOAT16)).all()


@pytest.mark.parametrize("encoding", [Encoding.LOG8, Encoding.BFLOAT16])
def test_the_largest_numbers_and_half_precision_are_encoded(encoding: Encoding) -> None:
    most = torch.finfo(torch.float32).max
    for value in (
        torch.tensor([[most]]),
        torch.tensor([[most, 1e30], [1.0, 2.0]]),
        torch.tensor([[1.0, 6e-8]], dtype=torch.float16),
    ):
        found = there_and_back(value, encoding)
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found.double(), value.double(), rtol=0.05, atol=0)


def test_log8_keeps_float64_beyond_the_range_of_float32() -> None:
    for value in (
        torch.tensor([[1e-60, 1e-55], [1.0, 2.0]], dtype=torch.float64),
        torch.tensor([[1e60, 1e52], [0.0, 2.0]], dtype=torch.float64),
        torch.tensor([[1e-44, 1e-42]]),
    ):
        found = there_and_back(value, Encoding.LOG8)
        torch.testing.assert_close(found.double(), value.double(), rtol=0.05, atol=0)


GOOD = encode_values({"w": torch.rand(3, 4)}, Encoding.LOG8)
CODES, SCALES = GOOD["codes.w"], GOOD["scales.w"]


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        ({"codes.w": CODES}, "scales.w"),
        ({"scales.w": SCALES}, "scales.w"),
        ({**GOOD, "w": torch.rand(3)}, "'w'"),
        ({**GOOD, "codes.w": CODES.int()}, "torch.int32"),
        ({**GOOD, "scales.w": SCALES[:2]}, r"\[2, 2\]"),
        ({**GOOD, "scales.w": SCALES.double()}, "torch.float64"),
        ({**GOOD, "scales.w": SCALES * torch.nan}, "finite scales"),
        ({**GOOD, "scales.w": -SCALES.abs() - 1}, "steps >= 0"),
    ],
)
def test_invalid_codes_are_refused(stored: dict[str, Tensor], named: str) -> None:
    with pytest.raises(FisherError, match=named):
        decode_values(stored, Encoding.LOG8, "it")


def test_a_packet_is_read_by_its_encoding_only() -> None:
    values = {"head.weight": torch.rand(2, 3)}
    for encoding in Encoding:
        packet = encode_fisher(
            values,
            labels=["cat", "dog"],
            head_weight="head.weight",
            head_bias="",
            sources=["r"],
            classes=["cat"],
            samples=3,
            encoding=encoding,
        )
        found = PackedFisher.from_packet(packet).values["head.weight"]
        torch.testing.assert_close(found, values["head.weight"], rtol=0.06, atol=0)
        merged, tensors = merge([PackedFisher.from_packet(packet)], "max", Encoding.LOG8)
        assert merged.encoding == Encoding.LOG8.to_proto()
        assert not merged.tensors
        assert b"codes.head.weight" in tensors
        for other in {Encoding.BFLOAT16, Encoding.LOG8} - {encoding}:
            packet.encoding = other.to_proto()
            with pytest.raises(FisherError, match="the Fisher packet of r"):
                PackedFisher.from_packet(packet)
        packet.encoding = 99  # type: ignore[assignment]
        with pytest.raises(FisherError, match="number 99"):
            PackedFisher.from_packet(packet)


def test_codes_are_no_values() -> None:
    """A `full` packet must have a float type to compute in, and `log8` codes are none."""
    packet = encode_fisher(
        {"w": torch.rand(2, 3)},
        labels=[],
        head_weight="",
        head_bias="",
        sources=["r"],
        classes=[],
        samples=3,
        encoding=Encoding.LOG8,
    )
    packet.encoding = Encoding.FULL.to_proto()
    with pytest.raises(FisherError, match="Expected float64, float32"):
        PackedFisher.from_packet(packet)


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(InputError, match="full, bfloat16, log8, factored, but got 'gzip'"):
        Encoding.named("gzip")
