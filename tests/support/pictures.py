"""The pictures of docs/how-it-works.md, drawn as reports draw graphs."""

from collections.abc import Mapping

from disinherit.documents.lineage.drawing import draw_lineage
from disinherit.documents.pages import environment
from disinherit.documents.standing import ShownEdge, ShownModel, Standing
from tests import ROOT

FOLDER = ROOT / "docs" / "pictures"
_OWNERS = {
    "north": "clinic-north",
    "south": "clinic-south",
    "ward": "university",
    "ward-2": "university",
    "triage": "clinic-north",
    "ward-int8": "device-7",
    "ear": "clinic-south",
}
_EDGES = (
    ("north", "ward", "federated", 0.5),
    ("south", "ward", "federated", 0.5),
    ("ward", "ward-2", "incremental", 1.0),
    ("ward", "triage", "transfer", 1.0),
    ("ward-2", "ward-int8", "transfer", 1.0),
    ("south", "ear", "transfer", 1.0),
)
_LEFT = ("south", "ear")
_AFTER: Mapping[str, tuple[Standing, str]] = {
    "ward-int8": (Standing.OPEN, "its owner is offline"),
    "triage": (Standing.UNSHOWN, "no data to measure"),
}
"""Models that have not forgotten, or of which nothing shows it."""


def pictures() -> dict[str, str]:
    """Name of a file -> the picture."""
    return {"asked.svg": _drawn({}, done=False), "done.svg": _drawn(_AFTER, done=True)}


def _drawn(standing: Mapping[str, tuple[Standing, str]], *, done: bool) -> str:
    models = []
    for name, owner in _OWNERS.items():
        if name in _LEFT:
            models.append(ShownModel(name, owner, "untouched", Standing.LEFT, "not affected"))
            continue
        plain = (Standing.FORGOT, "forgotten") if done else (Standing.OPEN, "affected")
        where, words = standing.get(name, plain)
        models.append(
            ShownModel(name, owner, "root" if name == "north" else "affected", where, words)
        )
    image, left_out = draw_lineage(models, [ShownEdge(*edge) for edge in _EDGES], whole=True)
    template = environment().get_template("graph.svg.j2")
    return template.render(image=image, left_out=left_out) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (FOLDER / name).write_text(text)
