"""What no report of unlearning shows, in the same five points everywhere."""

Limit = tuple[str, str]
"""Title and words."""

PROOF = (
    "No proof of erasure.",
    "It says what was done and what was measured afterwards. Nobody can tell from a model's "
    "weights alone that nothing of the data is left in them.",
)
COPIES = (
    "Copies outside of the graph.",
    "Downloads, exports and models that somebody derived without registering them were not "
    "reached.",
)
BACKUPS = ("Backups.", "What owners keep in backups of their models and data is not covered.")


def limits(old_weights: str, attack: str) -> list[Limit]:
    """Return the five points, with what differs from report to report.

    Args:
        old_weights: what became of the weights from before.
        attack: whether it was measured that the data was once used.
    """
    return [
        PROOF,
        ("Old weights.", old_weights),
        COPIES,
        BACKUPS,
        ("Traces that an attacker may find.", attack),
    ]
