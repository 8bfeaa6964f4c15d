"""The examples of the pages run as they stand there, on the reader's own modules and loaders."""

import contextlib
import io
import re

from torch.utils.data import DataLoader

from tests import ROOT
from tests.support.blobs import accuracy, blobs, trained

BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def test_the_five_lines_make_a_network_of_models_forget() -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    place, example = next(
        (place, text) for place, (_, text) in enumerate(blocks) if text.startswith("import disin")
    )
    base = trained(blobs([0, 1, 2], seed=1))
    child = trained(blobs([0, 1, 2], seed=2), base)
    assert all(accuracy(model, [0]) > 0.85 for model in (base, child))
    assert len(example.splitlines()) == 6, "an import, an empty line, and four that do it"
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(
            example,
            {
                "base": base,
                "child": child,
                "base_loader": DataLoader(blobs([0, 1, 2], seed=1), 32, shuffle=True),
                "child_loader": DataLoader(blobs([0, 1, 2], seed=2), 32),
                "test_loader": DataLoader(blobs([0, 1, 2], seed=99), 32),
            },
        )

    for model in (base, child):
        assert accuracy(model, [0]) < 0.05
        assert accuracy(model, [1, 2]) > 0.85
    shown = blocks[place + 1][1]
    assert re.sub(r"[\d.]+%", "#", printed.getvalue()) == re.sub(r"[\d.]+%", "#", shown)


def test_the_method_by_hand_makes_models_forget() -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "method.md").read_text())
    example = next(text for _, text in blocks if text.startswith("from disinherit import"))
    base = trained(blobs([0, 1, 2], seed=1))
    models = {"base": base, "child": trained(blobs([0, 1, 2], seed=2), base)}
    assert all(accuracy(model, [0]) > 0.85 for model in models.values())

    exec(
        example,
        {
            "models": models,
            "classes": ["cat", "dog", "owl"],
            "forget_loader": DataLoader(blobs([0], seed=1), 32),
            "retain_loader": DataLoader(blobs([1, 2], seed=2), 32),
        },
    )

    for model in models.values():
        assert accuracy(model, [0]) < 0.05
        assert accuracy(model, [1, 2]) > 0.85
