"""Pages from templates: everything is escaped, and each state gets its sign, word and tone."""

import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from disinherit.documents.campaign.evidence_words import recognition_in_words
from disinherit.documents.charts import Dot, dot_plot
from disinherit.documents.intervals import Share
from disinherit.documents.pages import WORST, environment
from disinherit.documents.words import count, size
from disinherit.ui import words

NOTHING = Markup('<span class="none">&ndash;</span>')
STATIC = Path(__file__).with_name("static")


@functools.cache
def _templates() -> Environment:
    found = environment("disinherit.ui")
    found.filters.update(
        time=_time,
        command=command_line,
        json_text=_json_text,
        counted=count,
        words=_spaced,
        listed=words.listed,
        short=_short,
        percent=_percent,
        size=size,
        recognition=recognition_in_words,
        flat=_flat,
    )
    found.globals.update(
        task_state=words.task_state,
        campaign_state=lambda name: words.CAMPAIGNS.get(name, words.UNKNOWN),
        model_state=lambda name: words.MODELS.get(name, words.UNKNOWN),
        access_state=lambda online: words.ACCESS[bool(online)],
        task_states=words.TASKS,
        bar=_bar,
        accuracy_plot=accuracy_plot,
        worst=WORST,
    )
    return found


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page or a part of one."""
    return _templates().get_template(f"{template}.html.j2").render(values)


def html(text: str, status: int = 200) -> Response:
    """Return a page as an answer."""
    return HTMLResponse(text, status)


def command_line(words_: Sequence[str]) -> str:
    r"""Return a command as it is typed into a shell.

    Example:
        >>> command_line(["request", "list", "it's"])
        'disinherit request list \'it\'"\'"\'s\''
    """
    return shlex.join(["disinherit", *words_])


def _time(value: str | None) -> Markup:
    """Return a time relative to now, with the exact one behind it, which is what is printed."""
    if not value:
        return NOTHING
    exact = f"{value[:19].replace('T', ' ')} UTC"
    return Markup('<time datetime="{0}" title="{0}" data-exact="{1}">{2}</time>').format(
        value, exact, words.relative(value)
    )


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _short(digest: str | None, length: int = 12) -> Markup:
    """Return the start of a digest, with the whole of it behind it."""
    if not digest:
        return NOTHING
    return Markup('<code title="{0}">{1}</code>').format(digest, digest[:length])


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f} %"


def _flat(value: Any) -> str:
    """Return a value of JSON on one line, without its punctuation.

    Example:
        >>> _flat({"of": 52, "rows": [1, 2]}), _flat(True)
        ('of 52, rows 1 2', 'yes')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{_spaced(name)} {_flat(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_flat, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _bar(counts: Mapping[str, int], label: str) -> Markup:
    """Draw how many models are in each state, in the order of progress."""
    total = sum(counts.values())
    parts, x = [], 0.0
    for name, models in counts.items():
        width = 100 * models / total
        parts.append(
            Markup('<rect class="fill {}" x="{:.3f}" y="0" width="{:.3f}" height="10"/>').format(
                words.task_state(name).tone, x, width
            )
        )
        x += width
    return Markup(
        '<svg class="bar" role="img" aria-label="{}" viewBox="0 0 100 10" '
        'preserveAspectRatio="none">{}</svg>'
    ).format(label, Markup("").join(parts))


def accuracy_plot(rows: Sequence[Mapping[str, Any]], limit: float | None) -> Markup:
    """Draw accuracies before and after of the models that lost most.

    Args:
        rows: of the table, the largest loss first.
        limit: most points that a model may lose; `None` for any.
    """
    lines = []
    for row in rows[:WORST]:
        before, after = 100 * row["before"], 100 * row["after"]
        dots = [
            Dot("before", "before", Share(before)),
            Dot("after", "after", Share(after, row["samples"] or 0)),
        ]
        if limit is not None:
            dots.append(Dot("least allowed", "limit", Share(max(before - limit, 0.0))))
        lines.append((row["model"], dots))
    label = f"Accuracy on what is kept, before and after, of {count(len(lines), 'model')}"
    return dot_plot(lines, f"{label}; the table has the same")
