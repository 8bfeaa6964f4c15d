"""A census of heads: `find_head` on the classifiers of timm and transformers, without weights.

An architecture is built small, with 7 classes and random weights, and what is found is tried out by
itself: with the rows of one class taken out of all found layers, that class is never predicted, and
what the model says among the others stays.  timm's are many sizes of few kinds: of those that have
the same class, classifier and types of layers the smallest is built, and the others are said to be
like it.  Run as a script it writes the whole table, and goes on where it stopped::

    python -m tests.support.head_census --out docs/figures/heads.csv [--seconds 50] [--every]
"""

import argparse
import csv
import gc
import importlib
import importlib.util
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disinherit.common.errors import DisinheritError
from disinherit.common.models.heads import Head, find_head
from tests import ROOT

CLASSES = 7
LARGEST = 200_000_000
"""Parameters of an architecture that is built here, at most."""
SIZES = (64, 128, None)
"""Pixels of a side that are tried, in this order; `None` for the architecture's own."""
TABLE = ROOT / "docs/figures/heads.csv"


@dataclass(frozen=True)
class Row:
    """What was found of one architecture.

    Attributes:
        name: `timm/...`, `text/...` or `image/...` of transformers.
        family: the module that defines it.
        parameters: their number; 0 where it could not be built.
        size: pixels of a side; 0 for token ids.
        outcome: `one`, `several`, `none` (refused with a reason), `like` or `not built`.
        layers: of the head, with a space between.
        exact: whether the head's output is the model's.
        gauge_free: whether the gauge of the head is free.
        reason: why there is no head, or no model; what a model is like.
        seconds: that it took.
    """

    name: str
    family: str
    parameters: int
    size: int
    outcome: str
    layers: str = ""
    exact: str = ""
    gauge_free: str = ""
    reason: str = ""
    seconds: float = 0.0


def shim_torchvision() -> bool:
    """Define what torchvision's import wants where its wheel fits another build of torch.

    Returns whether it does.
    """
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for op in ("nms", "qnms"):
            library.define(op + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
    return bool(_kept)


AT_START = """import sys


class Shim:
    def find_spec(self, name, path=None, target=None):
        torch = sys.modules.get("torch")
        if name == "torchvision" and hasattr(torch, "library") and not hasattr(self, "kept"):
            self.kept = torch.library.Library("torchvision", "DEF")
            for op in ("nms", "qnms"):
                self.kept.define(op + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, Shim())
"""
"""A `sitecustomize.py` that does the same in processes that others start."""


_kept: list[object] = []


class Logits(nn.Module):
    """A model of transformers that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs).logits


def timm_names() -> dict[str, str]:
    """Names of timm's architectures -> the module that defines each."""
    shim_torchvision()
    timm: Any = importlib.import_module("timm")
    registry: Any = importlib.import_module("timm.models._registry")
    return {name: registry._model_to_module[name] for name in timm.list_models()}


def transformers_names(kind: str) -> dict[str, str]:
    """Types of models that have a classifier of text or images -> the class's name."""
    shim_torchvision()
    auto: Any = importlib.import_module("transformers.models.auto.modeling_auto")
    task = {"text": "SEQUENCE", "image": "IMAGE"}[kind]
    names = getattr(auto, f"MODEL_FOR_{task}_CLASSIFICATION_MAPPING_NAMES")
    return {key: name if isinstance(name, str) else name[0] for key, name in names.items()}


def all_names() -> dict[str, str]:
    """Return every architecture of the census -> its family."""
    names = {f"timm/{name}": family for name, family in timm_names().items()}
    for kind in ("text", "image"):
        names |= {f"{kind}/{key}": key for key in transformers_names(kind)}
    return names


@dataclass(frozen=True)
class Kind:
    """What timm's architectures that only differ in size have in common."""

    key: str
    parameters: int


def kind_of(name: str) -> Kind:
    """Return the kind of one of timm's architectures, without making its weights."""
    timm: Any = importlib.import_module("timm")
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=CLASSES)
    except Exception:  # some compute numbers from weights when they are made
        return Kind(name, 0)
    found = model.get_classifier() if hasattr(model, "get_classifier") else None
    parts = found if isinstance(found, list | tuple | nn.ModuleList) else (found,)
    layers = {type(module).__qualname__ for module in model.modules()}
    key = type(model).__qualname__, [type(part).__name__ for part in parts], sorted(layers)
    return Kind(json.dumps(key), sum(value.numel() for value in model.parameters()))


def build_timm(name: str, size: int | None) -> tuple[nn.Module, Tensor]:
    timm: Any = importlib.import_module("timm")
    channels, height, _ = timm.get_pretrained_cfg(name, allow_unregistered=True).input_size
    if size is not None and height <= size:
        raise ValueError("the size is no smaller than its own")
    inputs = torch.randn(3, channels, size or height, size or height)
    if size is not None:
        with suppress(TypeError):  # of networks that take images of any size
            return timm.create_model(name, num_classes=CLASSES, img_size=size), inputs
    return timm.create_model(name, num_classes=CLASSES), inputs


_SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads",), 4),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff"), 32),
    **dict.fromkeys(("ffn_dim", "d_inner", "n_inner", "hidden_dim"), 64),
    "vocab_size": 99,
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "rotary_dim", "v_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("pooler_hidden_size", "expert_hidden_size"), 32),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_top_k"), 2),
    "use_cache": False,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "max_position_embeddings": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_intermediate_size": 16,
}

_ANYWHERE = ("pad_token_id", "decoder_start_token_id", "use_cache")


def build_transformers(kind: str, key: str) -> tuple[nn.Module, Tensor]:
    transformers: Any = importlib.import_module("transformers")
    first: Exception | None = None
    for values in (_SMALL, {"pad_token_id": 0, "use_cache": False}, {}):
        try:
            config = transformers.AutoConfig.for_model(key)
            parts = ("text_config", "vision_config")
            for part in (config, *(getattr(config, part, None) for part in parts)):
                for name, value in values.items():
                    if part is not None and (hasattr(part, name) or name in _ANYWHERE):
                        _set(part, name, value)
            config.num_labels = CLASSES
            cls = getattr(transformers, transformers_names(kind)[key])
            with torch.device("meta"):
                count = sum(value.numel() for value in cls(config).parameters())
            if count > LARGEST:
                raise TooLargeError(count)
            model, inputs = Logits(cls(config)).eval(), _inputs(kind, config)
            with torch.no_grad():
                model(inputs)
            return model, inputs
        except Exception as error:  # of a config that does not take these values together
            first = first or error
    assert first is not None
    raise first


def _set(config: Any, name: str, value: Any) -> None:
    """Set a value of a config, unless it is of another kind there or follows from others."""
    mine = getattr(config, name, None)
    if mine is None or type(mine) is type(value):
        with suppress(AttributeError):
            setattr(config, name, value)


def _inputs(kind: str, config: Any) -> Tensor:
    if kind == "text":
        ids = torch.randint(5, 90, (4, 9))
        ids[:, -1] = 2  # the end of a text, which some models look for
        return ids
    side = getattr(getattr(config, "vision_config", config), "image_size", 64)
    sides = tuple(side) if isinstance(side, list | tuple) else (side, side)
    return torch.randn(4, getattr(config, "num_channels", 3), *sides)


class TooLargeError(Exception):
    """An architecture that is not built here."""


def take(name: str, family: str) -> Row:
    """Return what `find_head` says of one architecture, tried out."""
    started = time.perf_counter()
    kind, _, key = name.partition("/")
    reason = ""
    for size in SIZES if kind == "timm" else (None,):
        torch.manual_seed(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if kind == "timm":
                    model, inputs = build_timm(key, size)
                else:
                    model, inputs = build_transformers(kind, key)
                model.eval()
                with torch.no_grad():
                    model(inputs)
        except TooLargeError as error:
            return Row(name, family, int(str(error)), 0, "not built", reason="too large")
        except Exception as error:  # whatever an architecture says to a size
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            continue
        row = _found(name, family, model, inputs)
        seconds = round(time.perf_counter() - started, 1)
        return Row(**{**asdict(row), "seconds": seconds})
    return Row(name, family, 0, 0, "not built", reason=reason)


def _found(name: str, family: str, model: nn.Module, inputs: Tensor) -> Row:
    count = sum(value.numel() for value in model.parameters())
    size = inputs.shape[-1] if inputs.ndim == 4 else 0
    spread_out(model, inputs)
    try:
        head = find_head(model, inputs)
    except DisinheritError as error:
        return Row(name, family, count, size, "none", reason=str(error))
    check_head(model, inputs, head)
    return Row(
        name,
        family,
        count,
        size,
        "one" if len(head.layers) == 1 else "several",
        " ".join(layer.module for layer in head.layers),
        str(head.exact),
        str(head.gauge_free),
    )


def spread_out(model: nn.Module, inputs: Tensor) -> None:
    """Give weights that are zero at first, as many heads are, random values: zero shows nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.count_nonzero():
                parameter.normal_(0, 0.02, generator=generator)


@torch.no_grad()
def check_head(model: nn.Module, inputs: Tensor, head: Head) -> None:
    """Take a class out of a head by hand, and see that it alone is gone.

    Raises:
        AssertionError: if it is not, or something else has changed.
    """
    before = model(inputs)
    kept = {name: model.get_parameter(name).clone() for name in head.parameters}
    chosen = int(before.argmax(1)[0])
    others = [c for c in range(before.shape[1]) if c != chosen]
    try:
        for weight, bias in head.names:
            rows = model.get_parameter(weight)
            rows[chosen] = rows[others].mean(0)
            if bias is not None:
                values = model.get_parameter(bias)
                values[chosen] = values[others].mean() - 5 * max(1.0, float(before.abs().max()))
        after = model(inputs)
    finally:
        for name, value in kept.items():
            model.get_parameter(name).copy_(value)
    spread = before[:, others] - before[:, others].mean(1, keepdim=True)
    stayed = after[:, others] - after[:, others].mean(1, keepdim=True)
    scale = max(1e-3, float(before.abs().max()))
    assert (spread - stayed).abs().max() <= 1e-3 * scale, f"{head}: another class has changed"
    if all(bias is not None for _, bias in head.names):
        assert (after.argmax(1) != chosen).all(), f"{head}: the class is still predicted"
        assert (after[:, chosen] < after[:, others].mean(1)).all()
    assert torch.equal(model(inputs), before)


def read_table(path: Path) -> dict[str, Row]:
    """Return the rows of a table, by name."""
    if not path.exists():
        return {}
    makes: dict[str, Callable[[str], Any]] = {"parameters": int, "size": int, "seconds": float}
    with path.open(newline="") as file:
        return {
            line["name"]: Row(**{k: makes.get(k, str)(v) for k, v in line.items()})
            for line in csv.DictReader(file)
        }


def write_table(path: Path, rows: dict[str, Row]) -> None:
    """Write rows, ordered by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(rows[name]) for name in sorted(rows))


def quickest(rows: dict[str, Row]) -> Iterator[Row]:
    """Yield of every family the architecture that took the least time, and that of each outcome."""
    best: dict[tuple[str, str, str], Row] = {}
    for row in rows.values():
        if row.outcome in ("one", "several", "none"):
            key = row.name.partition("/")[0], row.family, row.outcome
            if key not in best or row.seconds < best[key].seconds:
                best[key] = row
    yield from best.values()


def main() -> None:
    """Go on with the census for some time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--every", action="store_true", help="Build every architecture of timm.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    end = time.monotonic() + options.seconds
    rows, names = read_table(options.out), all_names()
    kinds = {} if options.every else _kinds(options.out.with_suffix(".kinds.json"), names, end)
    smallest: dict[str, str] = {}
    for name, kind in sorted(kinds.items(), key=lambda item: item[1].parameters):
        smallest.setdefault(kind.key, name)
    for name, family in names.items():
        if name in rows or time.monotonic() > end:
            continue
        like = smallest[kinds[name].key] if name in kinds else name
        if like != name:
            rows[name] = Row(name, family, kinds[name].parameters, 0, "like", reason=like)
        elif name in kinds and kinds[name].parameters > LARGEST:
            count = kinds[name].parameters
            rows[name] = Row(name, family, count, 0, "not built", reason="too large")
        else:
            rows[name] = take(name, family)
            print(rows[name])
            gc.collect()
    write_table(options.out, rows)
    left = sum(name not in rows for name in names)
    print(f"{len(rows)} of {len(names)} architectures, {left} left")


def _kinds(cache: Path, names: Iterable[str], end: float) -> dict[str, Kind]:
    """Return the kind of each of timm's architectures; exits when there is no time left for it."""
    known: dict[str, list[Any]] = json.loads(cache.read_text()) if cache.exists() else {}
    for name in names:
        if name.startswith("timm/") and name not in known:
            if time.monotonic() > end:
                cache.write_text(json.dumps(known))
                raise SystemExit(f"{len(known)} kinds so far")
            kind = kind_of(name.removeprefix("timm/"))
            known[name] = [kind.key, kind.parameters]
    cache.write_text(json.dumps(known))
    return {name: Kind(*values) for name, values in known.items()}


if __name__ == "__main__":
    main()
