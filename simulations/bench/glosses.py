"""Methods in words, a line each, for those who have not read the papers."""

from collections.abc import Callable, Mapping
from typing import Any

_WORDS = {
    "no-op": "nothing is changed: how far the models are from retraining before anything was done",
    "retraining": "everything is trained again without the data: the reference itself",
    "head-reset": "switches the outputs of the forgotten classes off; needs no data",
    "fine-tuning": "goes on training with the data that is kept",
    "distillation": "learns from its former self what is kept, from a network that knows nothing "
    "what is forgotten",
    "gradient-ascent": "trains a root against the forgotten data; descendants get the same change",
    "ssd": "dampens weights that matter more for the forgotten data than for all (SSD)",
    "neggrad+": "trains with kept data and against forgotten data at once (NegGrad+)",
    "salun": "learns random labels for the forgotten data, in the weights that matter most for it "
    "(SalUn)",
    "msa": "subtracts what learning the forgotten data alone would change (model state arithmetic)",
    "l1-sparse": "goes on training with the data that is kept, pulling weights to zero",
    "fiun-published": "the published rule: a root's Fisher information dampens all descendants",
    "damp": "projects the forgotten classes' directions out of every layer (DAMP)",
    "class-changes": "retrains each root without the classes, hands its change down, takes their "
    "rows out of the head",
    "ours": "this package: classes by the roots' Fisher information, and their rows taken out of "
    "the head; all else by replaying the roots, handing their change down, and repair",
}
_OPTIONS: Mapping[str, Callable[[Any], str]] = {
    "scope": lambda value: "in all layers" if value == "all" else f"in the {value}",
    "repair_steps": lambda value: f"{value} steps of repair" if value else "without repair",
    "mechanism": lambda value: {
        "fisher": "all requests by Fisher information",
        "delta": "all requests by handing down changes of roots",
    }.get(value, f"mechanism {value}"),
    "root_method": lambda value: f"roots unlearned by {value}",
    "all_roots": lambda value: "with the Fisher information of all roots" if value else "",
    "row_scoped": lambda value: "" if value else "in any row of the head",
    "release": lambda value: (
        "owners release "
        + ", ".join(f"{key.replace('_', ' ')} {one}" for key, one in value.items())
    ),
}


def gloss(method: Mapping[str, Any]) -> str:
    """Return what a method does, in one line.

    Args:
        method: `name` and `options`, as a suite declares it.

    Example:
        >>> gloss({"name": "fine-tuning", "options": {}})
        'goes on training with the data that is kept'
        >>> gloss({"name": "ours", "options": {"mechanism": "delta", "repair_steps": 0}})
        'this package: all requests by handing down changes of roots, without repair'
    """
    name, options = method["name"], method["options"]
    words = _WORDS.get(name, f"{name}, of another package")
    said = [
        _OPTIONS[key](value) if key in _OPTIONS else f"{key.replace('_', ' ')} {value}"
        for key, value in options.items()
    ]
    said = [one for one in said if one]
    if not said:
        return words
    return f"{words.partition(':')[0] if name == 'ours' else words}: {', '.join(said)}"
