"""A realistic report: the seven-model federated topology, with figures made up consistently."""

from disinherit.server.campaign.result import Outcome
from disinherit.simulations.report.document import (
    Evaluation,
    ModelFigures,
    Node,
    Role,
    RunReport,
    Selection,
)

LABELS = [
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
FORGOTTEN = "Sandal"
PER_CLASS = 1000
EDGES = [
    ("d", "r1", 0.46),
    ("s", "r1", 0.54),
    ("r1", "r2", 1.0),
    ("r1", "r4", 0.6),
    ("r2", "r4", 0.4),
    ("d", "r3", 0.5),
    ("r2", "r3", 0.5),
    ("s", "r6", 0.35),
    ("r3", "r6", 0.65),
]
GENERATION = {"d": 0, "s": 0, "r1": 1, "r2": 2, "r4": 3, "r3": 3, "r6": 4}
OWNERS = ["hospital-a", "hospital-b", "hospital-c"]
# id -> forget and retain accuracy in per mille: before, after, retrained, published.
ACCURACY = {
    "r1": ((934, 872), (0, 868), (0, 881), (83, 742)),
    "r2": ((912, 887), (2, 879), (0, 884), (31, 764)),
    "r4": ((951, 903), (123, 899), (0, 902), (362, 811)),
    "r3": ((883, 879), (0, 846), (0, 891), (194, 788)),
    "r6": ((897, 902), (7, 906), (0, 901), (56, 803)),
}


def confusion(
    forget: int, retain: int, labels: list[str], forgotten: str | None
) -> list[list[int]]:
    """Counts `[C, C]` with these accuracies; what is missed goes to the two next classes."""
    counts = []
    for i, name in enumerate(labels):
        row = [0] * len(labels)
        row[i] = forget if name == forgotten else retain
        missed = PER_CLASS - row[i]
        row[(i + 1) % len(labels)] += missed - missed // 3
        row[(i + 2) % len(labels)] += missed // 3
        counts.append(row)
    return counts


def evaluation(forget: int, retain: int, labels: list[str], forgotten: str | None) -> Evaluation:
    """An evaluation whose accuracies are those of its confusion matrix."""
    return {
        "forget_accuracy": None if forgotten is None else forget / 10,
        "retain_accuracy": retain / 10,
        "confusion": confusion(forget, retain, labels, forgotten),
    }


def make_model(model_id: str, labels: list[str], forgotten: str = FORGOTTEN) -> ModelFigures:
    """A model as a complete campaign leaves it."""
    owner = OWNERS[sorted(GENERATION).index(model_id) % len(OWNERS)]
    if model_id not in ACCURACY:
        clean = evaluation(0, 914, labels, None)
        return {
            "id": model_id,
            "owner": owner,
            "role": "untouched",
            "upstream_roots": [],
            "forgotten": [],
            "digest_before": model_id * 32,
            "digest_after": model_id * 32,
            "outcome": "untouched",
            "error": None,
            "before": clean,
            "after": clean,
            "retrained": None,
            "published": None,
            "selected_fraction": 0.0,
            "selections": [],
            "alpha": None,
            "lambda": None,
            "gauge": None,
            "tuned": False,
            "scope": None,
            "fisher_seconds": None,
            "tune_seconds": None,
            "apply_seconds": None,
        }
    before, after, retrained, published = (
        evaluation(f, r, labels, forgotten) for f, r in ACCURACY[model_id]
    )
    hit = [57 if name == forgotten else 0 for name in labels]
    selections: list[Selection] = [
        {"parameter": "head.weight", "rows": hit, "total": 64 * len(labels)},
        {"parameter": "head.bias", "rows": [int(n > 0) for n in hit], "total": len(labels)},
    ]
    values = sum(s["total"] for s in selections)
    return {
        "id": model_id,
        "owner": owner,
        "role": "root" if model_id == "r1" else "affected",
        "upstream_roots": ["r1"],
        "forgotten": [forgotten],
        "digest_before": model_id * 32,
        "digest_after": model_id[::-1] * 32,
        "outcome": "applied",
        "error": None,
        "before": before,
        "after": after,
        "retrained": retrained,
        "published": published,
        "selected_fraction": sum(sum(s["rows"]) for s in selections) / values,
        "selections": selections,
        "alpha": 1.0,
        "lambda": 1.0,
        "gauge": 1.0,
        "tuned": True,
        "scope": "head",
        "fisher_seconds": 0.31 if model_id == "r1" else 0.0,
        "tune_seconds": 0.42,
        "apply_seconds": 0.013,
    }


def make_report(outcome: Outcome = "complete", forgotten: str = FORGOTTEN) -> RunReport:
    """The report of one campaign that ended in `outcome`."""
    labels = [forgotten if name == FORGOTTEN else name for name in LABELS]
    models = [make_model(model_id, labels, forgotten) for model_id in GENERATION]
    affected = [model for model in models if model["role"] != "untouched"]
    if outcome == "partial":
        _undo(affected[2:3], "failed", "Expected a head of 10 rows, but got 12.")
        _undo(affected[4:5], "pending", None)
    elif outcome == "failed":
        _undo(affected, "failed", "The owner could not be reached before the deadline.")
    elif outcome == "unchanged":
        for model in affected:
            model["outcome"] = "already_applied"
            model["before"] = model["after"]
            model["digest_before"] = model["digest_after"]
    roles: dict[str, Role] = {model["id"]: model["role"] for model in models}
    nodes: list[Node] = [
        {
            "id": model["id"],
            "owner": model["owner"],
            "role": model["role"],
            "labels": labels,
            "samples_per_class": {
                name: 0 if name == forgotten and model["role"] == "untouched" else 480
                for name in labels
            },
            "generation": GENERATION[model["id"]],
        }
        for model in models
    ]
    outcomes = [model["outcome"] for model in models]
    return {
        "schema_version": 1,
        "disinherit": "0.1.0",
        "created": "2026-03-05T14:02:11+00:00",
        "scenario": {
            "name": "federated",
            "dataset": "fashion-mnist",
            "network": "small-cnn",
            "clients": len(OWNERS),
            "partition": "dirichlet",
            "concentration": 0.5,
            "seed": 7,
        },
        "request": {
            "id": "req-2026-0017",
            "reason": "Consent to the use of these images was withdrawn.",
            "roots": [{"model": "r1", "classes": [forgotten]}],
            "method": {
                "scope": "head",
                "reference": "retain",
                "merge": "max",
                "alpha": None,
                "lambda": None,
                "gauge": None,
                "exponent": 1.0,
                "bound": 1.0,
                "row_scoped": True,
            },
        },
        "graph": {
            "nodes": nodes,
            "edges": [
                {"parent": parent, "child": child, "kind": "federated", "weight": weight}
                for parent, child, weight in EDGES
            ],
            "roots": ["r1"],
            "affected": [model["id"] for model in affected],
            "untouched": [name for name, role in roles.items() if role == "untouched"],
        },
        "splits": {
            "train": {"size": 48000, "digest": "9f2c" * 16},
            "tuning": {"size": 6000, "digest": "01ab" * 16},
            "evaluation": {"size": 6000, "digest": "77de" * 16},
            "disjoint": True,
        },
        "models": models,
        "campaign": {
            "outcome": outcome,
            "coverage": {
                "applied": outcomes.count("applied"),
                "already_applied": outcomes.count("already_applied"),
                "failed": outcomes.count("failed"),
                "pending": outcomes.count("pending"),
            },
            "notes": ["Owner hospital-c answered on the second attempt."],
        },
        "repeat": {"changed": 0, "already_applied": 5} if outcome == "complete" else None,
        "timing": {
            "train": 84.2,
            "fisher": 0.31,
            "merge": 0.004,
            "broadcast_and_apply": 2.6,
            "total": 3.1,
            "retrain_all": 71.5,
        },
        "environment": {
            "python": "3.11.7",
            "torch": "2.9.0",
            "flwr": "1.41.0",
            "platform": "Linux x86_64",
            "cpus": 2,
            "device": "cpu",
            "threads": 1,
        },
    }


def _undo(models: list[ModelFigures], outcome: str, error: str | None) -> None:
    for model in models:
        model["outcome"] = "failed" if outcome == "failed" else "pending"
        model["error"] = error
        model["after"] = model["before"]
        model["published"] = None
        model["digest_after"] = model["digest_before"]
        model["selections"] = []
        model["selected_fraction"] = 0.0
        model["alpha"] = model["lambda"] = model["gauge"] = None
        model["tuned"] = False
