"""Descendants found from weights alone, in a family that is trained here."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from disinherit.common.errors import DataError
from disinherit.common.recipes.averages import average
from disinherit.families.discovering import Discovered, discover
from disinherit.families.sampling import MOST_SIDE, matrix, sample

Weights = dict[str, Tensor]
PARENTS: Mapping[str, set[str]] = {
    "child": {"base"},
    "other-child": {"base"},
    "grandchild": {"child"},
    "lora": {"base"},
    "frozen": {"base"},
    "average": {"child", "other-child"},
    "mixed": {"base", "child", "other-child"},
    "pruned": {"child"},
    "half": {"child"},
    "int8": {"other-child"},
    "nf4": {"grandchild"},
    "headless": {"base"},
    "absent-int8": {"base"},
}
"""Descendant -> its parents; of a copy whose original is not there, the nearest of its line."""

UNRELATED = ("twin", "stranger")


def make(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def fit(network: nn.Module, part: slice, steps: int, rate: float, frozen: int = 0) -> Weights:
    data = load_digits()
    inputs = torch.tensor(data.data[part] / 16, dtype=torch.float32)
    targets = torch.tensor(data.target[part])
    free = [value for at, value in enumerate(network.parameters()) if at >= frozen]
    optimiser = torch.optim.Adam(free, lr=rate)
    for step in range(steps):
        chosen = slice(step * 64 % 256, step * 64 % 256 + 64)
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(inputs[chosen]), targets[chosen]).backward()
        optimiser.step()
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def tuned(start: Weights, part: slice, frozen: int = 0) -> Weights:
    network = make()
    network.load_state_dict(start)
    return fit(network, part, 60, 1e-3, frozen)


def rounded(source: Weights) -> Weights:
    rounding = pytest.importorskip("bitsandbytes").functional
    made: Weights = {}
    for name, value in source.items():
        if value.dim() == 2:
            values, rows, _ = rounding.int8_vectorwise_quant(value.half())
            made |= {name: values, f"{name.removesuffix('weight')}SCB": rows}
        else:
            made[name] = value
    return made


def packed(source: Weights) -> Weights:
    rounding = pytest.importorskip("bitsandbytes").functional
    made: Weights = {}
    for name, value in source.items():
        if value.dim() == 2:
            blocks, described = rounding.quantize_4bit(value, blocksize=64, quant_type="nf4")
            parts = described.as_dict(packed=True)
            made |= {name: blocks, **{f"{name}.{part}": one for part, one in parts.items()}}
        else:
            made[name] = value
    return made


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a family, a twin from the same initialisation, and a stranger."""
    weights: dict[str, Weights] = {"start": dict(make().state_dict())}
    weights["base"] = fit(make(), slice(0, 320), 400, 3e-3)
    weights["twin"] = fit(make(), slice(400, 720), 400, 3e-3)
    weights["stranger"] = fit(make(seed=1), slice(0, 320), 400, 3e-3)
    weights["child"] = tuned(weights["base"], slice(800, 1120))
    weights["other-child"] = tuned(weights["base"], slice(1200, 1520))
    weights["grandchild"] = tuned(weights["child"], slice(400, 720))
    weights["frozen"] = tuned(weights["base"], slice(800, 1120), frozen=4)
    low = torch.randn(64, 2) @ torch.randn(2, 64) / 40
    weights["lora"] = weights["base"] | {"2.weight": weights["base"]["2.weight"] + low}
    both = [(weights["child"], 0.5), (weights["other-child"], 0.5)]
    weights["average"] = average(both)
    thirds = [(weights["base"], 0.5), (weights["child"], 0.3), (weights["other-child"], 0.2)]
    weights["mixed"] = average(thirds)
    weights["pruned"] = {
        name: torch.where(value.abs() < value.abs().median(), 0, value)
        for name, value in weights["child"].items()
    }
    weights["half"] = {name: value.bfloat16() for name, value in weights["child"].items()}
    weights["int8"] = rounded(weights["other-child"])
    weights["nf4"] = packed(weights["grandchild"])
    head = torch.zeros_like(weights["base"]["4.weight"])  # to be trained
    weights["headless"] = weights["base"] | {"4.weight": head}
    weights["absent-int8"] = rounded(tuned(weights["base"], slice(320, 640)))
    root = tmp_path_factory.mktemp("family")
    save_file(weights.pop("start"), root / "start.bin")  # no model of the folder
    for name, one in weights.items():
        (root / "models" / name).mkdir(parents=True)
        contiguous = {key: value.contiguous() for key, value in one.items()}
        save_file(contiguous, root / "models" / name / "model.safetensors")
    return root


def edges(found: Discovered) -> dict[str, set[str]]:
    return {one.child: {name for name, _ in one.parents} for one in found.kin}


@pytest.mark.parametrize("starts", [False, True])
def test_every_descendant_is_found_and_nobody_else(family: Path, starts: bool) -> None:
    found = discover(family / "models", ["base"], family / "start.bin" if starts else None)
    assert edges(found) == PARENTS
    assert all(one.directed for one in found.kin)
    assert found.alone == ("stranger", "twin")
    assert not found.unread


def test_without_a_hint_fine_tunes_have_no_direction(family: Path) -> None:
    found = discover(family / "models")
    directed = {one.child for one in found.kin if one.directed}
    assert directed == {"average", "mixed", "pruned", "half", "int8", "nf4"}
    for one in found.kin:
        ends = {one.child, *(name for name, _ in one.parents)}
        assert one.directed or any({child, *up} == ends for child, up in PARENTS.items())
    assert found.alone == ("stranger", "twin")


def test_shares_and_ranks_are_measured(family: Path) -> None:
    by_name = {one.child: one for one in discover(family / "models", ["base"]).kin}
    shares = dict(by_name["mixed"].parents)
    assert shares["base"] == pytest.approx(0.5, abs=1e-3)
    assert shares["child"] == pytest.approx(0.3, abs=1e-3)
    assert "rank 2" in by_name["lora"].evidence
    assert "equal tensors" in by_name["frozen"].evidence


def test_copies_are_named_without_a_direction(tmp_path: Path) -> None:
    weights = dict(make().state_dict())
    for name in ("a", "b"):
        save_file(weights, tmp_path / f"{name}.safetensors")
    (one,) = discover(tmp_path).kin
    assert (one.child, one.parents, one.directed) == ("b", (("a", 1.0),), False)


def test_damaged_files_and_models_without_floats_are_listed(tmp_path: Path) -> None:
    (tmp_path / "damaged.safetensors").write_bytes(b"\0" * 20)
    save_file({"counts": torch.arange(3)}, tmp_path / "counts.safetensors")
    save_file(dict(make().state_dict()), tmp_path / "part-00001-of-00002.safetensors")
    found = discover(tmp_path)
    assert not found.kin
    assert sorted(found.unread) == ["counts", "damaged", "part"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_diverged_is_listed_and_others_are_found(value: float, tmp_path: Path) -> None:
    base = dict(make().state_dict())
    models = {
        "base": base,
        "tuned": {n: one + 0.01 * torch.randn_like(one) for n, one in base.items()},
    }
    models["odd"] = {**models["tuned"], "0.weight": torch.full((64, 64), value)}
    for name, one in models.items():
        save_file(one, tmp_path / f"{name}.safetensors")
    found = discover(tmp_path, ["base"])
    assert edges(found) == {"tuned": {"base"}}
    assert found.unread["odd"].startswith("Expected finite values in odd, but '0.weight'")
    with pytest.raises(DataError, match="got 'odd', which was not read: Expected finite"):
        discover(tmp_path, ["odd"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merges_in_a_short_dtype_are_found(dtype: torch.dtype, tmp_path: Path) -> None:
    """Their values are rounded; without a bound for that, a merge looks like a parent of both."""
    start = {name: torch.randn(96, 96) for name in ("a", "b")}
    short = {"base": {name: one.to(dtype) for name, one in start.items()}}
    for child in ("x", "y", "z"):
        moved = {
            name: one.float() + 0.02 * torch.randn(96, 96) for name, one in short["base"].items()
        }
        short[child] = {name: one.to(dtype) for name, one in moved.items()}
    for name, parts in (("xy", {"x": 0.7, "y": 0.3}), ("xyz", {"x": 0.4, "y": 0.4, "z": 0.2})):
        wide = average([({n: v.float() for n, v in short[p].items()}, w) for p, w in parts.items()])
        short[name] = {key: one.to(dtype) for key, one in wide.items()}
    low = torch.randn(96, 2) @ torch.randn(2, 96) / 40
    short["folded"] = {name: (one.float() + low).to(dtype) for name, one in short["base"].items()}
    for name, one in short.items():
        save_file(one, tmp_path / f"{name}.safetensors")
    found = discover(tmp_path, ["base"])
    expected = {name: {"base"} for name in ("x", "y", "z", "folded")}
    assert edges(found) == {**expected, "xy": {"x", "y"}, "xyz": {"x", "y", "z"}}
    by_name = {one.child: one for one in found.kin}
    assert dict(by_name["xy"].parents)["x"] == pytest.approx(0.7, abs=0.01)
    assert "rank 2" in by_name["folded"].evidence


def test_of_a_large_matrix_a_part_is_looked_at(tmp_path: Path) -> None:
    base = torch.randn(700, 900)
    low = torch.randn(700, 3) @ torch.randn(3, 900) / 40
    for name, one in (("base", base), ("folded", base + low)):
        save_file({"w": one}, tmp_path / f"{name}.safetensors")
    (kin,) = discover(tmp_path, ["base"]).kin
    assert "rank 3" in kin.evidence
    looked = matrix(sample("base", [tmp_path / "base.safetensors"]), "w")
    assert looked.shape == (MOST_SIDE, MOST_SIDE)
    assert looked[1, 2] == base[2, 7]


def test_quantised_tensors_that_are_described_wrongly_are_listed(tmp_path: Path) -> None:
    whole, row = torch.zeros(2, 4, dtype=torch.int8), torch.ones(1)
    state = "m.weight.quant_state.bitsandbytes__nf4"
    packed = {"m.weight": torch.zeros(4, 1, dtype=torch.uint8)}
    described = torch.frombuffer(bytearray(b'{"shape": [2, 4]}'), dtype=torch.uint8)
    models: dict[str, Weights] = {
        "few-scales": {"m.weight": whole, "m.SCB": row},
        "no-json": packed | {state: torch.zeros(3, dtype=torch.uint8)},
        "no-scales": packed | {state: described},
        "odd-scales": {"m.weight": whole, "m.SCB": torch.ones(2, dtype=torch.int64)},
    }
    for name, weights in models.items():
        save_file(weights, tmp_path / f"{name}.safetensors")
    found = discover(tmp_path)
    assert sorted(found.unread) == sorted(models)
    assert all("as bitsandbytes writes them" in reason for reason in found.unread.values())
    assert not any("\n" in reason for reason in found.unread.values())


def test_wrong_bases_and_folders_are_refused(tmp_path: Path) -> None:
    save_file(dict(make().state_dict()), tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=rf"\({tmp_path.name}\), but got 'b', which is none"):
        discover(tmp_path, ["b"])
    with pytest.raises(DataError, match="Expected a folder with weights"):
        discover(tmp_path / "none")
