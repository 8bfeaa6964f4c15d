"""Alignment by class name: algebra on drawn label spaces, and all refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from disinherit.common.errors import LabelError
from disinherit.common.fiun.alignment import align_rows
from disinherit.common.graph.labels import check_label_mapping, class_indices, union_labels

untimed = settings(deadline=None)  # a busy machine is not a wrong result

names = st.sampled_from([f"class {index}" for index in range(12)])
spaces = st.lists(names, unique=True, max_size=8)


def rows_for(labels: list[str] | tuple[str, ...], width: int = 3) -> Tensor:
    """`[len(labels), width]`, every value different and none of them 0."""
    count = len(labels) * width
    return torch.arange(1, count + 1, dtype=torch.float64).reshape(len(labels), width)


class TestAlignRows:
    @untimed
    @given(spaces)
    def test_aligning_to_the_same_labels_is_identity(self, space: list[str]) -> None:
        rows = rows_for(space)
        assert torch.equal(align_rows(rows, space, space), rows)

    @untimed
    @given(spaces, st.lists(spaces, max_size=3))
    def test_aligning_to_a_union_and_back_is_identity(
        self, space: list[str], others: list[list[str]]
    ) -> None:
        union = union_labels([*others, space])
        rows = rows_for(space)
        there = align_rows(rows, space, union, fill=math.nan)
        assert torch.equal(align_rows(there, union, space), rows)

    @untimed
    @given(spaces, spaces)
    def test_every_row_is_aligned_by_name_or_filled(
        self, source: list[str], target: list[str]
    ) -> None:
        rows = rows_for(source)
        aligned = align_rows(rows, source, target, fill=-1.0)
        assert aligned.shape == (len(target), 3)
        for row, name in zip(aligned, target, strict=True):
            expected = rows[source.index(name)] if name in source else torch.full_like(row, -1.0)
            assert torch.equal(row, expected)

    @untimed
    @given(spaces, st.data())
    def test_permutation_commutes(self, source: list[str], data: st.DataObject) -> None:
        order = data.draw(st.permutations(range(len(source))))
        shuffled = [source[index] for index in order]
        rows = rows_for(source)
        assert torch.equal(align_rows(rows, source, shuffled), rows[list(order)])

    @untimed
    @given(spaces, st.data())
    def test_renaming_all_and_back_is_identity(
        self, source: list[str], data: st.DataObject
    ) -> None:
        renamed = data.draw(st.permutations(source))
        mapping = dict(zip(source, renamed, strict=True))
        back = {new: old for old, new in mapping.items()}
        rows = rows_for(source)
        there = align_rows(rows, source, renamed, mapping)
        assert torch.equal(there, rows)  # the n-th name became the n-th name
        assert torch.equal(align_rows(there, renamed, source, back), rows)

    def test_mapping_by_hand(self) -> None:
        rows = torch.tensor([[1.0], [2.0], [3.0]])
        aligned = align_rows(
            rows, ["cat", "dog", "owl"], ["owl", "hound", "fox"], {"dog": "hound"}, fill=9.0
        )
        assert aligned.tolist() == [[3.0], [2.0], [9.0]]

    def test_names_may_be_swapped(self) -> None:
        aligned = align_rows(torch.tensor([1.0, 2.0]), ["a", "b"], ["a", "b"], {"a": "b", "b": "a"})
        assert aligned.tolist() == [2.0, 1.0]

    @pytest.mark.parametrize("dim", [1, -1])
    def test_rows_may_be_in_another_dimension(self, dim: int) -> None:
        aligned = align_rows(torch.tensor([[1.0, 2.0]]), ["a", "b"], ["b", "c", "a"], dim=dim)
        assert aligned.tolist() == [[2.0, 0.0, 1.0]]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64])
    def test_dtype_is_kept_and_input_untouched(self, dtype: torch.dtype) -> None:
        rows = torch.ones(2, 2, dtype=dtype)
        aligned = align_rows(rows, ["a", "b"], ["a", "b"])
        assert aligned.dtype == dtype
        aligned.fill_(5)
        assert rows.tolist() == [[1, 1], [1, 1]]

    def test_result_is_detached(self) -> None:
        rows = torch.ones(1, 2, requires_grad=True)
        assert not align_rows(rows, ["a"], ["a"]).requires_grad

    def test_a_wrong_number_of_rows_is_refused(self) -> None:
        with pytest.raises(LabelError, match=r"Expected 2 rows.*\[3\]"):
            align_rows(torch.ones(3), ["a", "b"], ["a"])

    @pytest.mark.parametrize(("tensor", "dim"), [(torch.ones(()), 0), (torch.ones(1), 1)])
    def test_a_missing_dimension_is_refused(self, tensor: Tensor, dim: int) -> None:
        with pytest.raises(LabelError, match=f"in dimension {dim}"):
            align_rows(tensor, ["a"], ["a"], dim=dim)

    def test_an_ambiguous_mapping_is_refused(self) -> None:
        with pytest.raises(LabelError, match="'a' and 'b'"):
            align_rows(torch.ones(2), ["a", "b"], ["b"], {"a": "b"})


class TestCheckLabelMapping:
    @pytest.mark.parametrize(
        ("source", "target", "mapping"),
        [
            (["a", "b"], ["c"], {}),
            (["a", "b"], ["b", "c"], {"a": "c"}),
            (["a", "b"], ["a", "b"], {"a": "b", "b": "a"}),
            (["a", "b"], ["b", "c"], {"a": "b", "b": "c"}),
            (["a"], ["a"], {"a": "a"}),
        ],
    )
    def test_accepted(self, source: list[str], target: list[str], mapping: dict[str, str]) -> None:
        check_label_mapping(source, target, mapping)

    @pytest.mark.parametrize(
        ("source", "target", "mapping", "message"),
        [
            (["a"], ["a"], {"x": "a"}, r"from classes of the source \['a'\], but got \['x'\]"),
            (["a"], ["b"], {"a": "x"}, r"to classes of the target \['b'\], but got \['x'\]"),
            (["a", "b"], ["c"], {"a": "c", "b": "c"}, "target class 'c', but got 'a' and 'b'"),
            (["a", "b"], ["b"], {"a": "b"}, "target class 'b', but got 'a' and 'b'"),
            (["b", "a"], ["b"], {"a": "b"}, "target class 'b', but got 'b' and 'a'"),
            (["a", "b", "a"], ["a"], {}, r"the source label space, but got \['a'\]"),
            (["a"], ["a", "b", "b"], {}, r"the target label space, but got \['b'\]"),
        ],
    )
    def test_refused(
        self, source: list[str], target: list[str], mapping: dict[str, str], message: str
    ) -> None:
        with pytest.raises(LabelError, match=message):
            check_label_mapping(source, target, mapping)


class TestClassIndices:
    @untimed
    @given(spaces, st.data())
    def test_indices_point_at_the_names(self, space: list[str], data: st.DataObject) -> None:
        wanted = data.draw(st.lists(st.sampled_from(space), max_size=5)) if space else []
        assert [space[index] for index in class_indices(space, wanted)] == wanted

    def test_unknown_classes_are_named_with_the_known_ones(self) -> None:
        with pytest.raises(LabelError, match=r"among \['cat', 'dog'\], but got unknown \['fox'\]"):
            class_indices(["cat", "dog"], ["cat", "fox"])

    def test_an_ambiguous_label_space_is_refused(self) -> None:
        with pytest.raises(LabelError, match="distinct"):
            class_indices(["cat", "cat"], ["cat"])


class TestUnionLabels:
    def test_a_union_keeps_the_order_of_first_appearance(self) -> None:
        assert union_labels([["b", "a"], [], ["c", "a"], ["d"]]) == ("b", "a", "c", "d")
        assert union_labels([]) == ()

    @untimed
    @given(st.lists(spaces, max_size=4))
    def test_a_union_has_each_name_once(self, drawn: list[list[str]]) -> None:
        union = union_labels(drawn)
        assert len(set(union)) == len(union)
        assert set(union) == {name for space in drawn for name in space}

    @untimed
    @given(st.lists(spaces, max_size=4))
    def test_idempotent(self, drawn: list[list[str]]) -> None:
        union = union_labels(drawn)
        assert union_labels([union, *drawn]) == union
