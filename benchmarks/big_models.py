"""A large decoder in files: register, Fisher, change and dampening, against copying the files once.

The model is a Llama with a head of classes, random weights in bfloat16, in shards of safetensors
that are made on the spot. Each step runs in a process of its own:

copy           read all bytes of the model, write them, sync: the limit for what makes a new version
add            the model into its owner's store, from its folder
Fisher, head   the summary of the head, over a few sequences
Fisher, all    the summary of all layers: a backward pass for each sequence
change         the change of a root, of rank 16 in int8, added to the model, and committed
dampen, head   a class forgotten by its row in the head, and committed
dampen, all    a class forgotten in all layers, and committed

memory   the most anonymous memory (RssAnon) beyond that before the step, looked at every 2 ms:
         pages of mapped files and of the page cache are not in it
written  bytes of the store's files that are new after the step

python benchmarks/big_models.py --size large   # the decoder of 1 billion parameters
"""

import argparse
import ctypes
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for the shim below
from measuring import Claim, Figures, report
from safetensors.torch import save_file
from torch import Tensor

from tests.support.head_census import shim_torchvision

LABELS = ("cat", "dog", "owl", "rat")
TOKENS, SAMPLES = 16, 4
STEPS = ("copy", "add", "Fisher, head", "Fisher, all", "change", "dampen, head", "dampen, all")
_SHARD = 256 << 20
_MMAP_THRESHOLD = -3  # of mallopt(3)


@dataclass(frozen=True)
class Size:
    """Shape of a decoder.

    Attributes:
        hidden: width of the residual stream.
        inner: width inside of the feed-forward layers.
        layers: number of layers.
        heads: number of heads of attention.
        vocabulary: number of tokens.
    """

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int


SIZES = {
    "reduced": Size(64, 160, 2, 4, 500),
    "small": Size(768, 2048, 12, 12, 16_000),
    "large": Size(2048, 5632, 22, 32, 32_000),
}


def main() -> None:
    """Measure all steps, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reduced", action="store_true", help="small sizes: only shows it runs")
    parser.add_argument("--out", type=Path, help="folder to store the figures in")
    parser.add_argument("--size", choices=SIZES, action="append", help="by default small and large")
    parser.add_argument("--step", choices=STEPS, help="one step, as its own process calls it")
    parser.add_argument("--folder", type=Path, help="of that step")
    parser.add_argument("--work", type=Path, help="keep files and finished steps here, to go on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shim_torchvision()  # which transformers imports, where it is installed
    if options.step is not None:
        step(options.step, options.folder / "tiny")  # what is imported and kept for good
        print(json.dumps(step(options.step, options.folder)))
        return
    rows: list[Figures] = []
    claims: list[Claim] = []
    for name in options.size or (["reduced"] if options.reduced else ["small", "large"]):
        with _folder(options.work and options.work / name) as folder:
            found = measure(folder, SIZES[name])
        rows += found
        claims += claims_of(found)
    title = "A large decoder in files: seconds on the clock and of CPU, memory and writing in bytes"
    report(options, "big_models", title, rows, claims)


def claims_of(rows: list[Figures]) -> list[Claim]:
    """Return the figures of one model that targets are about."""
    model = rows[0]["model"]
    by_step = {row["step"]: row for row in rows}
    claims = []
    for name in ("change", "dampen, head", "dampen, all"):
        used = by_step[name]["memory / largest"]
        claims.append(Claim(14, f"memory of {name} / largest tensor, {model}", used, at_most=2))
    for name in ("Fisher, head", "Fisher, all"):
        used = by_step[name]["beyond the model / largest"]
        what = f"memory of {name} beyond the model / largest tensor, {model}"
        claims.append(Claim(14, what, used, at_most=1.2))
    for name in ("add", "change", "dampen, all"):
        what = f"{name} / copying the files once, {model}"
        claims.append(Claim(14, what, by_step[name]["/ copy"], limit=1.0))
    return claims


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Give a folder that is kept, or one that is removed in the end."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="disinherit-", dir=".") as folder:
        yield Path(folder)


def measure(folder: Path, size: Size) -> list[Figures]:
    """Return a row for each step; those that the folder has are not measured again."""
    parameters, total, largest = _made(folder, size)
    rows: list[Figures] = []
    for number, name in enumerate(STEPS):
        finished = folder / f"step-{number}.json"
        if finished.is_file():
            rows.append(json.loads(finished.read_text()))
            continue
        before = _files(folder / "store")
        command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        new = [size for file, size in _files(folder / "store").items() if file not in before]
        row: Figures = {
            "model": f"{parameters:,} parameters",
            "step": name,
            "seconds": found["seconds"],
            "CPU": found["cpu"],
            "/ copy": found["seconds"] / (rows[0]["seconds"] if rows else found["seconds"]),
            "memory": found["memory"],
            "memory / largest": found["memory"] / largest,
            "written / model": sum(new) / total,
        }
        if name.startswith("Fisher"):
            row["beyond the model / largest"] = (found["memory"] - total) / largest
            row["seconds / forward and backward"] = found["seconds"] / found["passes"]
        rows.append(row)
        finished.write_text(json.dumps(row))
        print(row, file=sys.stderr)
    return rows


def _made(folder: Path, size: Size) -> tuple[int, int, int]:
    """Make the models unless they are there; return what `make_model` says of the large one."""
    finished = folder / "made.json"
    if not finished.is_file():
        for name in ("tiny", "model"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "tiny").mkdir()
        make_model(folder / "tiny" / "model", SIZES["reduced"])
        finished.write_text(json.dumps(make_model(folder / "model", size)))
    parameters, total, largest = json.loads(finished.read_text())
    return parameters, total, largest


def _files(store: Path) -> dict[tuple[str, int], int]:
    return {
        (str(file), (known := file.stat()).st_ino): known.st_size
        for file in store.rglob("*")
        if file.is_file() and file.suffix == ".safetensors"
    }


def config_of(size: Size) -> Any:
    """Return the configuration of a decoder."""
    import transformers

    return transformers.LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=max(1, size.heads // 8),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
        architectures=["LlamaForSequenceClassification"],
        dtype="bfloat16",
    )


def make_model(folder: Path, size: Size) -> tuple[int, int, int]:
    """Write a decoder in shards, tensor by tensor.

    Returns:
        The number of its parameters, its bytes, and those of its largest tensor.
    """
    import transformers

    folder.mkdir()
    config = config_of(size)
    with torch.device("meta"):
        model = transformers.LlamaForSequenceClassification(config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    config.save_pretrained(folder)
    torch.manual_seed(0)
    shard: dict[str, Tensor] = {}
    weight_map: dict[str, str] = {}

    def put() -> None:
        name = f"model-{len(set(weight_map.values())):05d}.safetensors"
        save_file(shard, folder / name, {"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, shape in shapes.items():
        scale = 1.0 if "norm" in name else 0.02
        value = torch.randn(shape).mul_(scale) if scale < 1 else torch.ones(shape)
        shard[name] = value.bfloat16()
        if sum(one.nbytes for one in shard.values()) > _SHARD:
            put()
    put()
    total = 2 * sum(shape.numel() for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    largest = 2 * max(shape.numel() for shape in shapes.values())
    return total // 2, total, largest


def step(name: str, folder: Path) -> dict[str, float]:
    """Run one step, and return its seconds and memory."""
    if name == "copy":
        return _watched(lambda: _copy(folder))
    with _owner(folder) as owner:
        if name == "add":
            return _watched(lambda: _add(owner, folder))
        _add(owner, folder)
        if name.startswith("Fisher"):
            scope = name.removeprefix("Fisher, ")
            found = _watched(lambda: _register(owner, scope))
            return found | {"passes": _passes(owner)}
        owner.data_gone = True
        task = _change_task(owner) if name == "change" else _dampening_task(owner, name)
        return _watched(lambda: _unlearn(owner, task))


def _watched(run: Callable[[], object]) -> dict[str, float]:
    """Return seconds of a call, and the most anonymous memory beyond that of before."""
    allocator = ctypes.CDLL(None)
    allocator.mallopt(_MMAP_THRESHOLD, 1 << 16)  # what is freed goes back at once
    gc.collect()
    allocator.malloc_trim(0)
    before = most = _anonymous()
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.002):
            most = max(most, _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    clock, spent = time.perf_counter(), time.process_time()
    try:
        run()
        taken, cpu = time.perf_counter() - clock, time.process_time() - spent
    finally:
        ended.set()
        watcher.join()
    return {"seconds": taken, "cpu": cpu, "memory": max(0, most - before)}


def _anonymous() -> int:
    with Path("/proc/self/status").open("rb") as file:
        for line in file:
            if line.startswith(b"RssAnon:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("Expected RssAnon in /proc/self/status, but it is not there.")


def _copy(folder: Path) -> None:
    target = folder / "copy"
    target.mkdir(exist_ok=True)
    for file in sorted((folder / "model").glob("*.safetensors")):
        shutil.copyfile(file, target / file.name)
        with (target / file.name).open("rb") as copied:
            os.fsync(copied.fileno())
    shutil.rmtree(target)


@contextmanager
def _owner(folder: Path) -> Iterator[Any]:
    """Open the owner of the model; its data can be said to be gone."""
    from disinherit.client.huggingface.owner import HuggingFaceOwner
    from disinherit.client.store.store import ModelStore

    class Owner(HuggingFaceOwner):
        data_gone = False

        def training_data(self, record: Any) -> Any:
            return None if self.data_gone else super().training_data(record)

    with Owner(ModelStore(folder / "store", "anna")) as owner:
        yield owner


def _add(owner: Any, folder: Path) -> None:
    owner.add("m", folder / "model", _rows(), batch_size=SAMPLES)


def _rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "input_ids": torch.randint(3, 400, (TOKENS,), generator=generator).tolist(),
            "attention_mask": [1] * TOKENS,
            "label": index % len(LABELS),
        }
        for index in range(SAMPLES)
    ]


def _register(owner: Any, scope: str) -> None:
    from disinherit.client.dampening.summaries import register
    from disinherit.v1 import unlearning_pb2 as pb

    register(owner, pb.RegisterTask(model_ids=["m"], scope=scope))


def _passes(owner: Any) -> float:
    """Return the seconds of a forward and a backward pass of each sequence."""
    from disinherit.client.owner.owner import load_network

    record = owner.store.record("m")
    network = load_network(owner, record, owner.store.weights("m"))
    taken = 0.0
    for inputs, targets in owner.training_data(record):
        for index in range(len(targets)):
            one = [value[index : index + 1] for value in inputs]
            clock = time.perf_counter()
            torch.nn.functional.cross_entropy(
                network(*one).float(), targets[index : index + 1]
            ).backward()
            taken += time.perf_counter() - clock
            for parameter in network.parameters():
                parameter.grad = None
    return taken


def _present(owner: Any) -> Any:
    return owner.store.record("m" if owner.store.made_by("m") else _last(owner))


def _last(owner: Any) -> str:
    records = [one for one in owner.store.records() if one.status.value == "active"]
    return str(records[-1].id)


def _change_task(owner: Any) -> Any:
    """Return a task with the change of a root: factors of rank 16 in int8."""
    from disinherit.common.deltas.packets import encode_delta
    from disinherit.v1 import unlearning_pb2 as pb

    record = owner.store.record(_last(owner))
    torch.manual_seed(2)
    made = {}
    stored: dict[str, Tensor] = {}
    with owner.store.opened(record.id) as weights:
        for name in weights:
            value = weights[name]
            if value.ndim < 2 or 16 * sum(value.shape) >= value.numel():
                made[name] = 1e-4 * torch.randn(value.shape)
                continue
            left, right = torch.randn(value.shape[0], 16), torch.randn(16, value.shape[1])
            for part, factor in (("left", 1e-5 * left), ("right", right)):
                stored[f"{part}.{name}"] = factor
    delta = pb.Delta(
        before="1" * 64,
        after="2" * 64,
        root_method="replay",
        exact=True,
        encoding=pb.DELTA_ENCODING_INT8,
        rank=16,
    )
    packet = encode_delta(
        made,
        labels=LABELS,
        head_weight="score.weight",
        head_bias="",
        further_heads=(),
        source="root",
        samples=10,
        delta=delta,
    )
    _add_factors(packet, stored)
    share = pb.Share(packet=0, coefficient=1.0, owner="bea")
    return pb.UnlearnTask(
        request_id="change",
        method=_method("all", mechanism="delta"),
        fishers=[packet],
        models=[pb.ModelTask(model_id=record.id, digest=record.digest, shares=[share])],
        created_us=10**9,
    )


def _add_factors(packet: Any, factors: dict[str, Tensor]) -> None:
    """Add factors in int8 to the tensors of a packet, as `encode_delta` makes them."""
    import hashlib

    from disinherit.common.tensors.checkpoints import tensor_bytes, tensors_from_bytes

    stored = tensors_from_bytes(packet.tensors, "the packet")
    for name, value in factors.items():
        scales = value.abs().amax(1, keepdim=True) / 127
        stored[f"codes.{name}"] = (value / scales).round().to(torch.int8)
        stored[f"scales.{name}"] = scales
    packet.tensors = tensor_bytes(stored)
    packet.digest = hashlib.sha256(packet.tensors).hexdigest()


def _dampening_task(owner: Any, name: str) -> Any:
    """Return a task with the Fisher of a root: that of the model, which forgets a class."""
    from disinherit.client.actions.fisher import forget_fishers
    from disinherit.v1 import unlearning_pb2 as pb

    scope = name.removeprefix("dampen, ")
    record = owner.store.record(_last(owner))
    root = pb.Root(model_id=record.id, classes=[LABELS[scope == "all"]])
    reply = forget_fishers(owner, pb.FisherTask(roots=[root], method=_method(scope)))
    (answer,) = reply.roots
    if answer.error:
        raise RuntimeError(answer.error)
    return pb.UnlearnTask(
        request_id=f"dampen-{scope}",
        method=_method(scope),
        fishers=[answer.packets[0]],
        models=[pb.ModelTask(model_id=record.id, digest=record.digest)],
        created_us=10**9,
    )


def _method(scope: str, mechanism: str = "fisher") -> Any:
    from disinherit.common.method import Method

    if mechanism == "delta":
        return Method(scope=scope, mechanism="delta").to_proto()
    return Method(scope=scope, alpha=10.0, lam=1.0, gauge=1.0, mechanism="fisher").to_proto()


def _unlearn(owner: Any, task: Any) -> None:
    from disinherit.client.actions.unlearn import unlearn
    from disinherit.v1 import unlearning_pb2 as pb

    (result,) = unlearn(owner, task).models
    if result.outcome not in (pb.OUTCOME_APPLIED, pb.OUTCOME_INEFFECTIVE):
        raise RuntimeError(f"Expected the model to be unlearned in, but: {result.error}")


if __name__ == "__main__":
    main()
