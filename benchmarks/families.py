"""Import of 10,000 model cards, and of 1,000 models with a megabyte of weights each.

Every card names the base it was derived from, of ten families; each tenth is a merge. Weights are
hashed as they are read. CPU seconds of one call each; memory beyond what was in use before.
"""

import json
import os
import random
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import Figures, arguments, memory_in_use, most_memory, report

from disinherit.common.graph.formats import dump_graph, load_graph
from disinherit.families.importing import Imported, import_families
from disinherit.server.store.store import CoordinatorStore

MEGABYTE = 2**20


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    cards, weights = (100, 10) if options.reduced else (10_000, 1_000)
    _row("cards", 10, 0)  # loads what is loaded once
    rows = [_row("models with weights", weights, MEGABYTE), _row("cards", cards, 0)]
    report(options, "families", "Import: CPU seconds, and MB of memory", rows, [])


def _row(what: str, count: int, size: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="disinherit-") as folder:
        root = Path(folder)
        _write(root / "models", count, size)
        first, reading, memory = _measured(lambda: import_families([root / "models"]))
        text = dump_graph(first.graph, "json")
        known = load_graph(text, "json")
        again, repeating, _ = _measured(lambda: import_families([root / "models"], known=known))
        if again.changed or len(first.graph) != count:
            raise RuntimeError("Expected every model once, and nothing new the second time.")
        storing = _store(root / "coordinator.db", first)
    return {
        "sources": f"{count} {what}",
        "edges": len(first.graph.edges()),
        "import": reading,
        "memory": memory / 1e6,
        "import again": repeating,
        "write into a store": storing,
        "file, MB": len(text) / 1e6,
    }


def _store(path: Path, imported: Imported) -> float:
    store = CoordinatorStore(path)
    try:
        refused, seconds, _ = _measured(
            lambda: store.add_imported(imported.graph, imported.changed, actor="administrator")
        )
    finally:
        store.close()
    if refused:
        raise refused[0]
    return seconds


def _write(root: Path, count: int, size: int) -> None:
    """Write models, each derived from one or two of those before, with cards of 30 lines."""
    chosen = random.Random(0)
    tensor = os.urandom(size)
    for number in range(count):
        folder = root / f"family-{number % 10}" / f"model-{number}"
        folder.mkdir(parents=True)
        before = range(number % 10, number, 10)
        bases = chosen.sample(before, min(len(before), 2 if number % 100 >= 90 else 1))
        named = "".join(f"\n- family-{base % 10}/model-{base}" for base in bases)
        head = f"base_model:{named}\n" if bases else ""
        head += f"base_model_relation: {'merge' if len(bases) > 1 else 'finetune'}\n"
        head += "library_name: transformers\nlicense: mit\ntags:\n" + "".join(
            f"- tag-{tag}\n" for tag in range(20)
        )
        text = "A sentence about the model.\n" * 50
        (folder / "README.md").write_text(f"---\n{head}language: en\n---\n# Model\n\n{text}")
        if size:
            content = struct.pack("<Q", number) + tensor[8:]
            _weights(folder / "model.safetensors", content)


def _weights(path: Path, content: bytes) -> None:
    entry = {"dtype": "F32", "shape": [len(content) // 4], "data_offsets": [0, len(content)]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + content)


def _measured(run: Callable[[], Any]) -> tuple[Any, float, int]:
    """Return the result of a call, its CPU seconds, and the bytes that it needed at most."""
    before = memory_in_use()
    started = time.process_time()
    result = run()
    return result, time.process_time() - started, most_memory() - before


if __name__ == "__main__":
    main()
