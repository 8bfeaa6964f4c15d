"""The section of a model card about one request, put between markers into what is there."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from disinherit.common.errors import InputError
from disinherit.common.exports.finished import (
    FinishedRequest,
    as_instant,
    figures_of,
    remedy_of,
)
from disinherit.common.files import write_atomic
from disinherit.common.wire.remedies import REMEDIES

DISINHERIT = "[Disinherit](https://arxiv.org/abs/2408.08493)"
_CACHED = "models--"
"""What names of folders in a cache of the hub begin with."""

_SHOWN = 10
_NO_FIGURE = "not measured"
_POINTER, _NO_POINTER = "Attestation: ", "none was given"


def cached_name(folder: Path) -> str:
    """Return the id on the hub of a folder that is in a cache of the hub; `""` for others."""
    place = folder.absolute()
    cache = place.parent.parent.name
    if place.parent.name != "snapshots" or not cache.startswith(_CACHED):
        return ""
    return cache.removeprefix(_CACHED).replace("--", "/")


def check_own(folder: Path, what: str) -> None:
    """Check that a card may be written in a folder.

    Raises:
        InputError: if it is in the cache of the hub.
    """
    if cached_name(folder):
        raise InputError(
            f"Expected a folder of your own to write {what} into its card, but {folder} is in the "
            "cache of the hub, which keeps what others published. Write it into the card of the "
            "repository there."
        )


def has_section(text: str, request_id: str) -> bool:
    """Return whether a card has a section about a request."""
    return _begin(request_id) in text


def with_section(text: str, request_id: str, lines: Iterable[str]) -> str:
    r"""Return a card with a section about a request, in place of the former one or at the end.

    Args:
        text: the card.
        request_id: the request.
        lines: of the section, without its heading.

    Raises:
        InputError: if the markers of the former section are not one pair in order.

    Example:
        >>> card = with_section("# Cats\n", "q", ["Old."])
        >>> with_section(card, "q", ["New."]) == with_section("# Cats\n", "q", ["New."])
        True
    """
    begin, end = _begin(request_id), _end(request_id)
    line_end = "\r\n" if "\r\n" in text else "\n"
    heading = f"## Unlearning: request `{request_id}`"
    section = line_end.join([begin, heading, "", *lines, end])
    if begin not in text and end not in text:
        gap = line_end if text.endswith("\n") else 2 * line_end
        return (text + gap if text else "") + section + line_end
    start, stop = _place(text, request_id)
    return text[:start] + section + text[stop:]


def pointer_lines(attestation: str) -> list[str]:
    """Return the last lines of a section: where the attestation is; `""` if that is not known."""
    return [f"{_POINTER}{attestation or _NO_POINTER}."]


def with_pointer(text: str, request_id: str, attestation: str) -> str:
    """Return a card whose section about a request says where the attestation is.

    Args:
        text: the card.
        request_id: the request; the card has a section about it.
        attestation: where it is.

    Raises:
        InputError: if the markers of the section are not one pair in order.
    """
    inner = _lines(text, request_id)[3:-1]  # without markers and heading
    lines = [line for line in inner if not line.startswith(_POINTER)]
    gap = [] if lines and not lines[-1] else [""]
    return with_section(text, request_id, [*lines, *gap, *pointer_lines(attestation)])


def pointer_of(text: str, request_id: str) -> str:
    """Return where the attestation of a request is, by the card's section; `""` if it says not.

    Raises:
        InputError: if the markers of the section are not one pair in order.
    """
    if not has_section(text, request_id):
        return ""
    for line in _lines(text, request_id):
        if line.startswith(_POINTER) and line != pointer_lines("")[0]:
            return line.removeprefix(_POINTER).removesuffix(".")
    return ""


def _lines(text: str, request_id: str) -> list[str]:
    """Return the lines of the section about a request, with its markers and heading."""
    start, stop = _place(text, request_id)
    return text[start:stop].splitlines()


def _place(text: str, request_id: str) -> tuple[int, int]:
    """Return start and end of the section about a request."""
    begin, end = _begin(request_id), _end(request_id)
    start, stop = text.find(begin), text.find(end)
    if (text.count(begin), text.count(end)) != (1, 1) or stop < start:
        raise InputError(
            f"Expected one section about request {request_id!r}, between {begin!r} and {end!r}, "
            "but the card has other markers. Remove them, and export again."
        )
    return start, stop + len(end)


def write_section(path: Path, done: FinishedRequest, models: Sequence[str] = ()) -> None:
    """Put the section about a request into a card; all else stays byte for byte.

    A former section that says where the attestation is goes on saying so.  Of a link, the card that
    it leads to is written.

    Args:
        path: the card; made if there is none.
        done: the request.
        models: show only these versions, by their ids of before or of after; all without any.

    Raises:
        InputError: if a version is not affected, the card is no text, its markers are spoiled, or
            it is in the cache of the hub.
        CheckpointError: if the card cannot be written.
    """
    lines = section_lines(done, models)
    check_own(path.parent, "a section")
    path = path.resolve()
    try:
        text = path.read_bytes().decode() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Expected a model card in UTF-8 at {path}, but: {error}.") from None
    if where := pointer_of(text, done.id):
        lines += ["", *pointer_lines(where)]
    write_atomic(path, with_section(text, done.id, lines).encode())


def section_lines(done: FinishedRequest, models: Sequence[str] = ()) -> list[str]:
    """Return the lines of a section: what was asked, what was done, what that does not show.

    Args:
        done: the request.
        models: show only these versions, by their ids of before or of after; all without any.

    Raises:
        InputError: if one of them is not affected.
    """
    shown = _chosen(done, models)
    states = done.predicate["coverage"]["by_state"]
    named = {model["id"] for model in shown}
    return [
        f"{DISINHERIT} was asked to make models forget {_asked(done)} "
        f"(SHA-256 of the request `{done.request_sha256}`). The request ended **{done.state}** on "
        f"{as_instant(done.ended_us)[:10]}. Versions affected: "
        f"{', '.join(f'{count} {state}' for state, count in states.items())}.",
        "",
        "| version | became | state | remedy | forgotten: before, after | kept: before, after |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(_row, shown),
        "",
        *remedy_lines(remedy_of(model) for model in shown),
        "Weights, by SHA-256 over their tensors:",
        "",
        *_weights(shown),
        "",
        "What this does not show:",
        "",
        *(
            f"- {gap['said']}{_about([one for one in gap['models'] if one in named])}"
            for gap in done.predicate["gaps"]
            if not gap["models"] or named & {*gap["models"]}
        ),
        *(f"- {limit}" for limit in done.predicate["limits"]),
        "",
        f"{done.predicate['notice']} SHA-256 of the attestation: `{done.attestation_sha256}`. "
        "To verify it, with the coordinator's log and public keys:",
        "",
        "```sh",
        "sha256sum attestation.json",
        "disinherit audit verify audit.jsonl --public-key coordinator.pub "
        "--attestation attestation.json",
        "```",
    ]


def remedy_lines(remedies: Iterable[str]) -> list[str]:
    """Return what the remedies mean, as a list that ends with an empty line.

    Example:
        >>> remedy_lines(["replayed", "", "replayed"])[0]
        '- `replayed`: trained again without what is to be forgotten, exactly as it was trained'
    """
    known = [one for one in dict.fromkeys(remedies) if one in REMEDIES]
    return [*(f"- `{one}`: {REMEDIES[one]}" for one in known), *([""] if known else [])]


def _begin(request_id: str) -> str:
    return f"<!-- disinherit: request {request_id} -->"


def _end(request_id: str) -> str:
    return f"<!-- disinherit: end of request {request_id} -->"


def _chosen(done: FinishedRequest, names: Sequence[str]) -> list[Mapping[str, Any]]:
    if not names:
        return list(done.models)
    known = {name for model in done.models for name in (model["id"], model["successor"])}
    for name in names:
        if name not in known:
            raise InputError(
                f"Expected a version that request {done.id!r} affects, but {name!r} is none. See "
                f"`disinherit coverage {done.id}`."
            )
    return [one for one in done.models if one["id"] in names or one["successor"] in names]


def _asked(done: FinishedRequest) -> str:
    """Return what was asked for, in numbers."""
    kind, counts = done.predicate["request"]["forgets"], done.counts()
    what = {
        "classes": f"{counts['classes']} {'class' if counts['classes'] == 1 else 'classes'}",
        "samples": f"{counts['samples']} {'sample' if counts['samples'] == 1 else 'samples'}",
        "client": "all that a client contributed",
    }[kind]
    return f"{what}, learned first by {_some(done.predicate['request']['roots'])}"


def _row(model: Mapping[str, Any]) -> str:
    figures = figures_of(model)
    measure = (model["parameters"] or {}).get("forget", {}).get("measure", "")
    cells = (
        f"`{model['id']}`",
        "as it was" if model["successor"] is None else f"`{model['successor']}`",
        model["state"].replace("_", " "),
        remedy_of(model) or "none",
        _pair(figures, "forget_", f" ({measure})"),
        _pair(figures, "retain_", " (accuracy)"),
    )
    return f"| {' | '.join(cells)} |"


def _pair(figures: Mapping[str, float], prefix: str, measure: str) -> str:
    before, after = figures.get(f"{prefix}before"), figures.get(f"{prefix}after")
    if before is None or after is None:
        return _NO_FIGURE
    return f"{before:.3g}, {after:.3g}{measure}"


def _weights(models: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = []
    for model in models:
        lines.append(f"- `{model['id']}`: `{model['digest_before']}`")
        if model["successor"] is not None:
            lines.append(f"- `{model['successor']}`: `{model['digest_after']}`")
    return lines


def _about(models: Sequence[str]) -> str:
    return f" ({_some(models)})" if models else ""


def _some(names: Sequence[str]) -> str:
    """Return names as text, at most ten of them."""
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
