"""Small families of models whose true parents are known, each as people make them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from disinherit.common.recipes.averages import average

Weights = Mapping[str, Tensor]
Family = Mapping[str, Weights]


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of family.

    Attributes:
        title: what it is.
        make: makes one, by random numbers of torch.
        parents: true parents of each descendant.
        decided: whether the weights decide the direction of the last descendant.
    """

    title: str
    make: Callable[[], Family]
    parents: Mapping[str, frozenset[str]]
    decided: bool


def matrices(**sizes: tuple[int, ...]) -> dict[str, Tensor]:
    """Return tensors of random numbers."""
    return {name: torch.randn(size) for name, size in sizes.items()}


def step(start: Weights, size: float = 0.05) -> dict[str, Tensor]:
    """Return what a fine-tune may be: a random step from a start."""
    return {name: one + size * torch.randn_like(one) for name, one in start.items()}


def cast(start: Weights, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return weights in another dtype."""
    return {name: one.to(dtype) for name, one in start.items()}


def int8(start: Weights) -> dict[str, Tensor]:
    """Return the 8-bit copy of bitsandbytes."""
    from bitsandbytes.functional import int8_vectorwise_quant  # not everywhere

    made: dict[str, Tensor] = {}
    for name, one in start.items():
        values, rows, _ = int8_vectorwise_quant(one.half())
        made |= {name: values, f"{name.removesuffix('weight')}SCB": rows}
    return made


def nf4(start: Weights, doubly: bool = False) -> dict[str, Tensor]:
    """Return the 4-bit copy of bitsandbytes.

    Args:
        start: the weights.
        doubly: whether the scales of blocks are quantised, too.
    """
    from bitsandbytes.functional import quantize_4bit  # not everywhere

    made: dict[str, Tensor] = {}
    for name, one in start.items():
        blocks, state = quantize_4bit(
            one, blocksize=64, quant_type="nf4", compress_statistics=doubly
        )
        parts = state.as_dict(packed=True)
        made |= {name: blocks, **{f"{name}.{part}": value for part, value in parts.items()}}
    return made


def merged(weights: tuple[float, ...], dtype: torch.dtype = torch.float32) -> Family:
    """Return fine-tunes of one base, and their average."""
    base = matrices(w=(96, 96))
    parents = [cast(step(base), dtype) for _ in weights]
    wide = [cast(one, torch.float32) for one in parents]
    made = cast(average(list(zip(wide, weights, strict=True))), dtype)
    return {"made": made} | {f"p{at}": one for at, one in enumerate(parents)}


def federated() -> Family:
    """Return models of three clients, and the average by their numbers of samples, as of numpy."""
    counts = torch.randint(100, 5000, (3,)).tolist()
    base = matrices(w=(96, 96))
    models = [step(base)["w"].numpy() for _ in counts]
    total = sum(one * count for one, count in zip(models, counts, strict=True)) / sum(counts)
    values = {"made": total} | {f"p{at}": one for at, one in enumerate(models)}
    return {name: {"w": torch.from_numpy(one)} for name, one in values.items()}


def extrapolated(scale: float, dtype: torch.dtype = torch.float32) -> Family:
    """Return a base, a fine-tune, and a model that is moved farther on the same line."""
    base = cast(matrices(w=(96, 96)), dtype)
    tune = cast(step(cast(base, torch.float32)), dtype)
    a, b = base["w"].float(), tune["w"].float()
    return {"base": base, "tune": tune, "far": {"w": (a + scale * (b - a)).to(dtype)}}


def sparse(way: str) -> Family:
    """Return a model and a pruned copy of it."""
    whole = matrices(w=(96, 96))["w"]
    kept = {
        "smallest": whole.abs() > whole.abs().median(),
        "any": torch.rand(96, 96) > 0.3,
        "rows": (torch.rand(96, 1) > 0.3).expand(96, 96),
    }[way]
    return {"whole": {"w": whole}, "pruned": {"w": whole * kept}}


def untrained(part: str) -> Family:
    """Return a base with a part that is zero, and a fine-tune of just that part."""
    sizes = {"w": (64, 32), "bias": (96,), "head.weight": (8, 64)}
    tune = matrices(**sizes)
    return {"base": tune | {part: torch.zeros(sizes[part])}, "tune": tune}


def short_base(size: float) -> Family:
    """Return a base in bfloat16, and a fine-tune in float32 by a relative step."""
    base = cast(matrices(w=(96, 96)), torch.bfloat16)
    values = base["w"].float()
    return {"base": base, "tune": {"w": values * (1 + size * torch.randn_like(values))}}


def copied(copy: Callable[[Weights], Weights], absent: bool = False) -> Family:
    """Return a base, a fine-tune, if it is not absent, and a copy of this."""
    base = {"w.weight": torch.randn(128, 128)}
    tune = step(base, 0.01)
    return {"base": base} | ({} if absent else {"tune": tune}) | {"copy": copy(tune)}


_TUNED = {"tune": frozenset({"base"})}
_COPIED = _TUNED | {"copy": frozenset({"tune"})}
_ABSENT = {"copy": frozenset({"base"})}
_PAIR = {"made": frozenset({"p0", "p1"})}
_THREE = {"made": frozenset({"p0", "p1", "p2"})}
_FAR = _TUNED | {"far": frozenset({"base", "tune"})}
_PRUNED = {"pruned": frozenset({"whole"})}

CASES = (
    Case("bfloat16 copy", lambda: copied(lambda one: cast(one, torch.bfloat16)), _COPIED, True),
    Case("float16 copy", lambda: copied(lambda one: cast(one, torch.float16)), _COPIED, True),
    Case("int8 copy", lambda: copied(int8), _COPIED, True),
    Case("nf4 copy", lambda: copied(nf4), _COPIED, True),
    Case("nf4 copy, doubly quantised", lambda: copied(lambda one: nf4(one, True)), _COPIED, True),
    Case("average of two", lambda: merged((0.5, 0.5)), _PAIR, True),
    Case("0.7 and 0.3 of two", lambda: merged((0.7, 0.3)), _PAIR, True),
    Case("three, bfloat16", lambda: merged((0.5, 0.3, 0.2), torch.bfloat16), _THREE, True),
    Case("FedAvg of three clients", federated, _THREE, True),
    Case("smallest half pruned", lambda: sparse("smallest"), _PRUNED, True),
    Case("pruned at random", lambda: sparse("any"), _PRUNED, True),
    Case("whole rows pruned", lambda: sparse("rows"), _PRUNED, False),
    Case("bfloat16 base, float32 tune by 1 %", lambda: short_base(1e-2), _TUNED, False),
    Case("the same by 0.1 %", lambda: short_base(1e-3), _TUNED, False),
    Case("the same by 0.01 %", lambda: short_base(1e-4), _TUNED, False),
    Case("head was zero", lambda: untrained("head.weight"), _TUNED, False),
    Case("biases were zero", lambda: untrained("bias"), _TUNED, False),
    Case("int8 copy of an absent tune", lambda: copied(int8, True), _ABSENT, False),
    Case("nf4 copy of an absent tune", lambda: copied(nf4, True), _ABSENT, False),
    Case("moved twice as far", lambda: extrapolated(2.0), _FAR, False),
    Case("moved 1.5 times as far", lambda: extrapolated(1.5), _FAR, False),
    Case("the same, bfloat16", lambda: extrapolated(1.5, torch.bfloat16), _FAR, False),
)
"""Kinds of families."""
