"""Exports of the audit log: every byte counts."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from disinherit.common.audit.chain import AuditEntry, AuditEvent, Finding
from disinherit.common.audit.export import (
    LONGEST_LINE,
    Header,
    entry_line,
    header_line,
    read_entry,
    verify_lines,
)
from disinherit.common.errors import AuditError
from tests.support.audit_cases import CHAINS, about, chain, export

ENTRIES = chain([AuditEvent("sent", time, "coordinator", request_id="q") for time in range(3)])


def split(data: bytes) -> list[bytes]:
    """The lines of a file, as read."""
    pieces = data.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])


def finding(lines: list[bytes], head: str = "") -> tuple[int, Finding] | None:
    problem = verify_lines(lines, head).problem
    return None if problem is None else (problem.sequence, problem.finding)


@given(CHAINS, st.sampled_from(["", "q"]))
def test_an_export_is_verified(entries: list[AuditEntry], request: str) -> None:
    part = about(entries, request)
    verdict = verify_lines(export(entries, request))
    assert verdict.problem is None
    assert verdict.header == Header(len(part), part[-1].hash if part else "", request)
    for entry in part:
        line = entry_line(entry)
        assert b"\n" not in line
        assert read_entry(line) == entry
        assert finding(export(entries, request), entry.hash) is None


@given(CHAINS, st.data())
def test_any_byte_that_is_flipped_is_found_and_its_entry_named(
    entries: list[AuditEntry], data: st.DataObject
) -> None:
    lines = export(entries)
    number = data.draw(st.integers(1, len(lines) - 1), label="line")
    at = data.draw(st.integers(0, len(lines[number]) - 2), label="byte")
    flip = data.draw(st.integers(1, 255), label="flip")
    line = bytearray(lines[number])
    line[at] ^= flip
    changed = b"".join([*lines[:number], bytes(line), *lines[number + 1 :]])
    assert finding(split(changed)) == (number, Finding.CHANGED)


def test_every_bit_of_a_small_export_counts() -> None:
    data = b"".join(export(ENTRIES))
    first = len(export(ENTRIES)[0])
    for at, bit in itertools.product(range(len(data)), range(8)):
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        if at < first:  # without an intact first line the file is no export
            try:
                assert finding(split(bytes(changed))) is not None
            except AuditError:
                continue
        else:
            assert finding(split(bytes(changed))) is not None


@given(CHAINS, st.sampled_from(["", "q"]), st.data())
def test_lines_that_are_removed_or_swapped_are_found(
    entries: list[AuditEntry], request: str, data: st.DataObject
) -> None:
    lines = export(entries, request)
    assume(len(lines) > 1)
    removed = data.draw(st.integers(1, len(lines) - 1))
    problem = verify_lines([*lines[:removed], *lines[removed + 1 :]]).problem
    assert problem is not None
    last = removed == len(lines) - 1
    assert problem.finding is (Finding.TRUNCATED if last else Finding.REMOVED)
    if not request:
        assert problem.sequence == removed
    if len(lines) > 2:
        assert finding([lines[0], lines[2], lines[1], *lines[3:]]) is not None


def test_the_header_is_compared_with_the_entries() -> None:
    first, *rest = export(ENTRIES)
    head = ENTRIES[-1].hash
    for header, expected in (
        (Header(2, head), (3, Finding.ADDED)),
        (Header(4, head), (4, Finding.TRUNCATED)),
        (Header(3, ENTRIES[0].hash), (3, Finding.CHANGED)),
        (Header(3, head, "p"), (1, Finding.ADDED)),
    ):
        assert finding([header_line(header) + b"\n", *rest]) == expected
    assert finding([first]) == (1, Finding.TRUNCATED)
    assert finding([first, *rest], "0" * 64) == (4, Finding.TRUNCATED)


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b":", b": ", 1),
        lambda line: line.replace(b'"kind":"sent"', b'"kind":"sent","kind":"sent"'),
        lambda line: line.replace(b'"sequence":2', b'"sequence":2.0'),
        lambda line: line.replace(b'"sequence":2', b'"sequence":true'),
        lambda line: line.replace(b'"fishers":[]', b'"fishers":[1]'),
        lambda line: line.replace(b'"parameters":{}', b'"parameters":{"a":1.5}'),
        lambda line: line.replace(b'"owner":"",', b""),
        lambda line: line.replace(b'"owner":""', b'"owner":"","other":""'),
        lambda line: line.replace(b"sent", b"s\\u0065nt"),
        lambda line: line.replace(b"\n", b"\r\n"),
        lambda line: line.replace(b"\n", b""),
        lambda line: b"[" * 5000 + b"\n",
        lambda line: line.replace(b"sent", b"x" * LONGEST_LINE),
        lambda line: b"\n",
    ],
)
def test_an_entry_in_another_form_counts_as_changed(change: Callable[[bytes], bytes]) -> None:
    lines = export(ENTRIES)
    changed = change(lines[2])
    assert changed != lines[2]
    assert finding(split(b"".join([*lines[:2], changed, *lines[3:]]))) == (2, Finding.CHANGED)


@pytest.mark.parametrize(
    ("first", "named"),
    [
        (b"", "its first line is not"),
        (b"\x00\n", "its first line is not"),
        (b"{}\n", "its first line is not"),
        (header_line(Header(0, "")), "its first line is not"),
        (header_line(Header(0, "")).replace(b"0", b"true") + b"\n", "its first line is not"),
        (header_line(Header(0, "")).replace(b"1", b"2") + b"\n", "version 1, but got 2"),
        (header_line(Header(0, "")).replace(b"disinherit", b"x") + b"\n", "was changed"),
        (entry_line(ENTRIES[0]) + b"\n", "its first line is not"),
    ],
)
def test_malformed_exports_are_refused(first: bytes, named: str) -> None:
    with pytest.raises(AuditError, match=named):
        verify_lines([first])
