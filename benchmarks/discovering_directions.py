"""Directions that discovery claims from weights alone, in small families whose parents are known.

No base is named.  A direction is *right* if the parents are those that the model was made of, and
*wrong* if it is claimed the other way round, or of other models.
"""

import sys
import tempfile
from pathlib import Path

import torch
from measuring import Figures, arguments, report
from safetensors.torch import save_file

from disinherit.families.discovering import discover

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.discovery_cases import CASES, Case


def main() -> None:
    """Measure, print and store."""
    options = arguments(__doc__)
    rows = [_row(case, 2 if options.reduced else 20) for case in CASES]
    title = "Directions from weights alone, of so many families of each kind"
    report(options, "discovering_directions", title, rows, [])


def _row(case: Case, families: int) -> Figures:
    """Count, of families of a kind, those where the last descendant's parents were found."""
    counts = dict.fromkeys(("right", "without a direction", "not found", "wrong"), 0)
    last = list(case.parents)[-1]
    for seed in range(families):
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory(prefix="disinherit-") as folder:
            for name, weights in case.make().items():
                (Path(folder) / name).mkdir()
                held = {key: one.contiguous() for key, one in weights.items()}
                save_file(held, Path(folder) / name / "model.safetensors")
            kin = discover(Path(folder)).kin
        claims = [
            (one.child, frozenset(name for name, _ in one.parents)) for one in kin if one.directed
        ]
        ends = {name for one in kin for name in (one.child, *(name for name, _ in one.parents))}
        if any(up != case.parents.get(child) for child, up in claims):
            counts["wrong"] += 1
        elif any(child == last for child, _ in claims):
            counts["right"] += 1
        else:
            counts["without a direction" if last in ends else "not found"] += 1
    return {"family": case.title, "families": families, **counts}


if __name__ == "__main__":
    main()
