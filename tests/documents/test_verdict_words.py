"""Words of verdicts: the worst named, both directions, and noise left out."""

from disinherit.documents.intervals import Share
from disinherit.documents.verdict import notable, with_worst
from disinherit.documents.words import count, joined, typographic


def test_only_gaps_beyond_three_points_and_noise_are_notable() -> None:
    pairs = [
        ("a", Share(80.0, 1000), Share(90.0, 1000)),
        ("b", Share(96.0, 1000), Share(90.0, 1000)),
        ("c", Share(88.0, 1000), Share(90.0, 1000)),  # 2 points
        ("d", Share(80.0, 20), Share(90.0, 20)),  # noise
        ("e", None, Share(90.0, 1000)),
        ("f", Share(70.0, 1000), Share(90.0, 1000)),
    ]
    below, above = notable(pairs, -1), notable(pairs, 1)
    assert [one.model for one in below] == ["f", "a"]
    assert [one.model for one in above] == ["b"]
    assert with_worst(below, "x", "below", "the other") == (
        "2 models are more than 3 points below the other on x; worst f: 20.0 points "
        "(1,000 samples)."
    )
    assert with_worst(above, "x", "above", "the other") == (
        "b is 6.0 points above the other on x (1,000 samples)."
    )


def test_numbers_and_lists_are_typeset() -> None:
    assert typographic("-3.0") == "\N{MINUS SIGN}3.0"
    assert count(1234, "copy", "copies") == "1,234 copies"
    assert joined([str(i) for i in range(500)]) == "0, 1, 2, 3, 4 and 495 more"
