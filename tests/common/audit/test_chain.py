"""The audit chain: every manipulation is found, and its entry named."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from disinherit.common.audit.canonical import canonical
from disinherit.common.audit.chain import (
    AuditEntry,
    AuditEvent,
    Finding,
    Problem,
    content,
    entry_hash,
    find_problem,
    link_line,
)
from disinherit.common.audit.dsse import TrustedKeys
from disinherit.common.audit.export import entry_line, line_hash, read_entry, verify_lines
from tests import ROOT
from tests.support.audit_cases import CHAINS, EVENTS, about, chain

REQUESTS = st.sampled_from(["", "q"])


def found(entries: list[AuditEntry], request_id: str = "", head: str = "") -> tuple[int, Finding]:
    """The kind of the fault, and the number of its entry."""
    problem = find_problem(entries, request_id, head)
    assert problem is not None
    assert str(problem.sequence) in problem.reason or "hash" in problem.reason
    return problem.sequence, problem.finding


@given(EVENTS)
def test_an_entry_that_continues_a_chain_comes_with_its_line(event: AuditEvent) -> None:
    first, line = link_line(event, None, None)
    assert line == entry_line(first)
    assert first.hash == entry_hash(first) == line_hash(line)
    second, line = link_line(event, first, first)
    assert line == entry_line(second)


LOG = ROOT / "tests" / "data" / "log_0_1_0"


@pytest.mark.parametrize("name", ["audit.jsonl", "part.jsonl"])
def test_a_log_that_the_first_release_exported_verifies(name: str) -> None:
    keys = TrustedKeys.from_pem((LOG / "coordinator.pub").read_bytes())
    lines = (LOG / name).read_bytes().splitlines(keepends=True)
    verdict = verify_lines(lines, keys=keys)
    assert verdict.problem is None
    assert verdict.header.entries == len(lines) - 1
    assert all(line_hash(line[:-1]) == read_entry(line[:-1]).hash for line in lines[1:])


@given(CHAINS)
def test_the_hash_of_a_line_is_that_of_its_entry(entries: list[AuditEntry]) -> None:
    assert [line_hash(entry_line(entry)) for entry in entries] == [one.hash for one in entries]


@given(CHAINS)
def test_a_chain_is_sound_as_a_whole_and_per_request_from_any_head(
    entries: list[AuditEntry],
) -> None:
    for request in ("", "p", "q", "nobody's"):
        part = about(entries, request)
        assert find_problem(part, request) is None
        assert all(find_problem(part, request, entry.hash) is None for entry in part)
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    for entry in entries:
        assert entry.hash == hashlib.sha256(canonical(content(entry))).hexdigest()


@given(CHAINS, EVENTS, st.data())
def test_a_changed_entry_is_named(
    entries: list[AuditEntry], event: AuditEvent, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(entries) - 1))
    old = entries[position]
    assume(event != old.event)
    entries[position] = replace(old, event=event)
    assert found(entries) == (position + 1, Finding.CHANGED)
    for name in ("sequence", "previous", "request_previous", "hash"):
        changed: dict[str, Any] = {name: 99 if name == "sequence" else "0" * 64}
        entries[position] = replace(old, **changed)
        assert found(entries) == (position + 1, Finding.CHANGED)


@given(CHAINS, EVENTS, st.data())
def test_a_rewritten_entry_does_not_match_the_next(
    entries: list[AuditEntry], event: AuditEvent, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(entries) - 1))
    old, head = entries[position], entries[-1].hash
    assume(event != old.event)
    new = replace(old, event=event)
    entries[position] = replace(new, hash=entry_hash(new))
    if position + 1 < len(entries):
        assert found(entries) == (position + 2, Finding.CHANGED)
    else:  # no later entry reveals it, but a head recorded elsewhere does
        assert find_problem(entries) is None
        assert found(entries, head=head) == (position + 2, Finding.TRUNCATED)


@given(CHAINS, REQUESTS, st.data())
def test_a_removed_entry_is_named(
    entries: list[AuditEntry], request: str, data: st.DataObject
) -> None:
    part = about(entries, request)
    assume(part)
    head = part[-1].hash
    position = data.draw(st.integers(0, len(part) - 1))
    removed = part.pop(position)
    assert find_problem(part, request, head) is not None
    if position < len(part):
        named = part[position].sequence if request else removed.sequence
        assert found(part, request) == (named, Finding.REMOVED)
    else:
        assert find_problem(part, request) is None
        assert found(part, request, head)[1] is Finding.TRUNCATED


@given(CHAINS, REQUESTS, st.data())
def test_a_swapped_pair_is_named(
    entries: list[AuditEntry], request: str, data: st.DataObject
) -> None:
    part = about(entries, request)
    assume(len(part) > 1)
    one, other = sorted(
        data.draw(st.lists(st.integers(0, len(part) - 1), min_size=2, max_size=2, unique=True))
    )
    part[one], part[other] = part[other], part[one]
    named = part[one].sequence if request else one + 1
    assert found(part, request) == (named, Finding.REORDERED)


@given(CHAINS, REQUESTS, st.data())
def test_a_repeated_entry_is_named(
    entries: list[AuditEntry], request: str, data: st.DataObject
) -> None:
    part = about(entries, request)
    assume(part)
    position = data.draw(st.integers(0, len(part) - 1))
    where = data.draw(st.integers(position + 1, len(part)))
    part.insert(where, part[position])
    assert found(part, request) == (part[position].sequence, Finding.ADDED)


def test_an_entry_of_another_request_is_named() -> None:
    entries = chain([AuditEvent("sent", 1, "c", request_id=name) for name in "qp"])
    assert found(entries, "q") == (2, Finding.ADDED)


def test_only_a_recorded_head_exposes_a_rewritten_chain() -> None:
    events = [AuditEvent("sent", time, "coordinator") for time in range(4)]
    entries, forged = chain(events), chain([replace(events[0], actor="mallory"), *events[1:]])
    assert find_problem(forged) is None
    assert find_problem(entries, head=entries[2].hash) is None
    assert found(forged, head=entries[2].hash) == (5, Finding.TRUNCATED)


def test_an_empty_log_is_sound_without_a_recorded_head() -> None:
    assert find_problem([]) is None
    assert found([], head="0" * 64) == (1, Finding.TRUNCATED)


def test_an_unreadable_entry_is_named_by_its_place() -> None:
    entries = chain([AuditEvent("sent", time, "coordinator") for time in range(3)])
    assert find_problem([None]) == Problem(
        1, Finding.CHANGED, "Expected the first entry, but got something else."
    )
    problem = find_problem([entries[0], None, entries[2]])
    assert problem is not None
    assert (problem.sequence, problem.finding) == (2, Finding.CHANGED)
    missing = find_problem([entries[0], entries[2], None])
    assert missing is not None
    assert (missing.sequence, missing.finding) == (2, Finding.REMOVED)
