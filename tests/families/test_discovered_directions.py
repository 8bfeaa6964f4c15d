"""Directions that weights decide, and those that they do not: each case as people make it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from disinherit.common.recipes.averages import average
from disinherit.families.discovering import Kin, discover
from tests.support.discovery_cases import (
    CASES,
    Case,
    Weights,
    cast,
    int8,
    matrices,
    merged,
    nf4,
    step,
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def find(folder: Path, *bases: str, **models: Weights) -> list[Kin]:
    for name, one in models.items():
        (folder / name).mkdir()
        file = folder / name / "model.safetensors"
        save_file({key: value.contiguous() for key, value in one.items()}, file)
    return list(discover(folder, bases).kin)


def directed(kin: list[Kin]) -> dict[str, set[str]]:
    return {one.child: {name for name, _ in one.parents} for one in kin if one.directed}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4, 1e-5])
def test_a_fine_tune_in_float32_is_no_original_of_its_short_base(
    dtype: torch.dtype, size: float, tmp_path: Path
) -> None:
    """A short one rounds back to its base, value for value; then its errors are too small."""
    base = cast(matrices(w=(64, 64)), dtype)
    tune = {"w": base["w"].float() * (1 + size * torch.randn(64, 64))}
    (one,) = find(tmp_path, base=base, tune=tune)
    assert not one.directed
    assert "--base" in one.evidence


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_rounded_copy_has_a_direction(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = matrices(w=(64, 64))
    (one,) = find(tmp_path, copy=cast(whole, dtype), whole=whole)
    assert directed([one]) == {"copy": {"whole"}}
    assert "rounded to" in one.evidence


def test_the_same_values_in_a_longer_type_have_no_direction(tmp_path: Path) -> None:
    short = cast(matrices(w=(64, 64)), torch.bfloat16)
    (one,) = find(tmp_path, short=short, long=cast(short, torch.float32))
    assert not one.directed


def test_a_copy_that_was_rounded_and_stored_in_float32_has_a_direction(tmp_path: Path) -> None:
    whole = matrices(w=(64, 64))
    copy = cast(cast(whole, torch.bfloat16), torch.float32)
    assert directed(find(tmp_path, copy=copy, whole=whole)) == {"copy": {"whole"}}


@pytest.mark.parametrize("grown", ["head.weight", "bias", "rows", "columns"])
def test_what_was_zero_before_training_was_not_pruned(grown: str, tmp_path: Path) -> None:
    sizes = {"w": (64, 64), "bias": (64,), "head.weight": (8, 64), "rows": (64, 32)}
    tune = matrices(**sizes, columns=(32, 64))
    base = dict(tune)
    if grown == "rows":  # of new tokens, say
        base[grown] = torch.cat((tune[grown][:40], torch.zeros(24, 32)))
    elif grown == "columns":
        base[grown] = torch.cat((tune[grown][:, :40], torch.zeros(32, 24)), dim=1)
    else:
        base[grown] = torch.zeros_like(tune[grown])
    if grown == "bias":  # much of a small model
        base, tune = ({n: one[n] for n in ("bias", "head.weight")} for one in (base, tune))
    (one,) = find(tmp_path, base=base, tune=tune)
    assert not one.directed


def test_a_head_that_was_zero_is_directed_by_a_named_base(tmp_path: Path) -> None:
    tune = matrices(w=(64, 64)) | {"head.weight": 20 * torch.randn(8, 64)}
    base = tune | {"head.weight": torch.zeros(8, 64)}
    (one,) = find(tmp_path, "base", base=base, tune=tune)
    assert directed([one]) == {"tune": {"base"}}
    assert "zero in base" in one.evidence


@pytest.mark.parametrize("way", ["smallest", "any", "2:4", "convolution"])
def test_a_pruned_copy_has_a_direction(way: str, tmp_path: Path) -> None:
    sizes = (32, 16, 3, 3) if way == "convolution" else (64, 64)
    whole = matrices(w=sizes)
    if way == "any":
        kept = torch.rand(sizes) > 0.3
    elif way == "2:4":
        fours = whole["w"].abs().reshape(-1, 4)
        kept = (fours >= fours.sort(dim=1).values[:, 2:3]).reshape(sizes)
    else:
        kept = whole["w"].abs() > whole["w"].abs().median()
    assert directed(find(tmp_path, pruned={"w": whole["w"] * kept}, whole=whole)) == {
        "pruned": {"whole"}
    }


@pytest.mark.parametrize("distance", [0.08, 0.01, 0.003])
@pytest.mark.parametrize("copy", [int8, nf4])
def test_a_quantised_copy_of_an_absent_model_is_not_the_bases(
    copy: Callable[[Weights], Weights], distance: float, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    base = {"w.weight": torch.randn(128, 128)}
    (one,) = find(tmp_path, base=base, q=copy(step(base, distance)))
    assert not one.directed
    assert "are not those of base: a copy of another model" in one.evidence


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_quantised_copies_have_a_direction(dtype: torch.dtype, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base = cast({"w.weight": torch.randn(128, 128)}, dtype)
    tune = cast(step(cast(base, torch.float32), 0.003), dtype)
    copies = {"bytes": int8(tune), "blocks": nf4(tune), "doubly": nf4(tune, doubly=True)}
    if dtype is not torch.bfloat16:  # of which it is the same as "blocks"
        copies["loaded"] = nf4(cast(tune, torch.bfloat16))  # as transformers may load it
    found = find(tmp_path, base=base, tune=tune, **copies)
    assert directed(found) == {name: {"tune"} for name in copies}


def test_a_model_on_a_line_between_two_others_may_be_what_one_was_computed_from(
    tmp_path: Path,
) -> None:
    base = matrices(w=(64, 64))
    update = 0.05 * torch.randn(64, 64)
    models = {"base": base, "mid": {"w": base["w"] + update}, "end": {"w": base["w"] + 2 * update}}
    found = find(tmp_path, **models)
    assert not directed(found)
    (line,) = [one for one in found if len(one.parents) == 2]
    assert line.child == "mid"
    assert "--base" in line.evidence
    known = {one.child: one for one in discover(tmp_path, ["base"]).kin}
    assert known["end"].directed  # from the base, whichever of the two was computed
    assert not known["mid"].directed
    assert directed(list(discover(tmp_path, ["base", "end"]).kin))["mid"] == {"base", "end"}


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_extrapolated_model_is_no_parent(
    scale: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Task vectors that are scaled, in several ways of computing it: never the wrong direction."""
    base = cast(matrices(w=(96, 96)), dtype)
    tune = cast(step(cast(base, torch.float32)), dtype)
    a, b = base["w"].float(), tune["w"].float()
    ways = (a + scale * (b - a), scale * b + (1 - scale) * a, b + (scale - 1) * (b - a))
    for at, made in enumerate(ways):
        folder = tmp_path / str(at)
        folder.mkdir()
        found = find(folder, base=base, tune=tune, made={"w": made.to(dtype)})
        assert directed(found) in ({}, {"made": {"base", "tune"}})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.7, 0.3), (1 / 3, 2 / 3), (0.5, 0.3, 0.2)])
def test_averages_have_a_direction(
    weights: tuple[float, ...], dtype: torch.dtype, tmp_path: Path
) -> None:
    family = merged(weights, dtype)
    assert directed(find(tmp_path, **family)) == {"made": family.keys() - {"made"}}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.7, 0.3)])
def test_averages_that_are_stored_in_another_dtype_have_a_direction(
    weights: tuple[float, float], dtype: torch.dtype, tmp_path: Path
) -> None:
    whole = merged(weights)
    shorter: dict[str, Weights] = {**whole, "made": cast(whole["made"], dtype)}
    short = [(cast(cast(whole[name], dtype), torch.float32)) for name in ("p0", "p1")]
    longer: dict[str, Weights] = {
        "made": average(list(zip(short, weights, strict=True))),
        **{f"p{at}": cast(one, dtype) for at, one in enumerate(short)},
    }
    for at, family in enumerate((shorter, longer)):
        (tmp_path / str(at)).mkdir()
        assert directed(find(tmp_path / str(at), **family)) == {"made": {"p0", "p1"}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.6, 0.2), (1.0, 0.5, 0.3)])
def test_merges_by_weights_that_are_divided_by_their_sum_have_a_direction(
    weights: tuple[float, ...], dtype: torch.dtype, tmp_path: Path
) -> None:
    """As mergekit's `linear` does."""
    family = merged(weights, dtype)
    values = torch.stack([one["w"].float() for name, one in family.items() if name != "made"])
    scale = torch.tensor(weights).view(-1, 1, 1)
    made = {"w": ((scale * values).sum(0) / scale.sum()).to(dtype)}
    found = directed(find(tmp_path, **{**family, "made": made}))
    assert found == {"made": family.keys() - {"made"}}


@pytest.mark.parametrize("weight", [0.3, 0.5, 0.8])
def test_merges_by_interpolation_have_a_direction(weight: float, tmp_path: Path) -> None:
    family = merged((0.5, 0.5))
    made = {"w": torch.lerp(family["p0"]["w"], family["p1"]["w"], weight)}
    assert directed(find(tmp_path, **{**family, "made": made})) == {"made": {"p0", "p1"}}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_no_direction_is_claimed_but_the_right_one(case: Case, tmp_path: Path) -> None:
    if "int8" in case.title or "nf4" in case.title:
        pytest.importorskip("bitsandbytes")
    last = list(case.parents)[-1]
    claimed = directed(find(tmp_path, **case.make()))
    assert claimed == ({last: set(case.parents[last])} if case.decided else {})


def test_of_copies_the_base_that_is_named_is_the_parent(tmp_path: Path) -> None:
    one = matrices(w=(64, 64))
    assert not directed(find(tmp_path, a=one, b=one))
    for base, other in (("a", "b"), ("b", "a")):
        assert directed(list(discover(tmp_path, [base]).kin)) == {other: {base}}
