"""How many faults there were, and what came of them: a table for people, JSON for programs."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Line:
    """One kind of fault.

    Attributes:
        injected: how many there were.
        recovered: how many of them in rounds after which everything held.
        failures: what did not hold.
    """

    injected: int = 0
    recovered: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """All of them.

    Attributes:
        seed: of whatever was random.
        lines: kind -> what there was of it.
    """

    seed: int
    lines: dict[str, Line] = field(default_factory=dict)

    @property
    def injected(self) -> int:
        """How many faults there were."""
        return sum(line.injected for line in self.lines.values())

    @property
    def failures(self) -> list[str]:
        """Everything that did not hold."""
        return [failure for line in self.lines.values() for failure in line.failures]

    def add(self, kind: str, injected: int, violations: Iterable[str]) -> None:
        """Note a round.

        Args:
            kind: of its faults.
            injected: how many there were.
            violations: what did not hold after it.
        """
        line = self.lines.setdefault(kind, Line())
        failures = list(violations)
        line.injected += injected
        line.recovered += 0 if failures else injected
        line.failures += failures

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "seed": self.seed,
            "injected": self.injected,
            "faults": [
                {
                    "fault": kind,
                    "injected": line.injected,
                    "recovered": line.recovered,
                    "failures": line.failures,
                }
                for kind, line in self.lines.items()
            ],
        }

    def table(self) -> str:
        """Return it as a table in Markdown."""
        recovered = sum(line.recovered for line in self.lines.values())
        rows = [
            ("fault", "injected", "recovered", "failures"),
            ("---", "---:", "---:", "---:"),
            *(
                (kind, str(one.injected), str(one.recovered), str(len(one.failures)))
                for kind, one in self.lines.items()
            ),
            ("all", str(self.injected), str(recovered), str(len(self.failures))),
        ]
        width = max(len(row[0]) for row in rows)
        return "\n".join(f"| {a:{width}} | {b:>8} | {c:>9} | {d:>8} |" for a, b, c, d in rows)
