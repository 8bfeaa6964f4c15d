"""What a run leaves behind, read back from its folder or from the file that it was packed into."""

import gzip
from pathlib import Path

import pytest

from disinherit.common.errors import CheckpointError, InputError
from disinherit.simulations.bench.cells import (
    cell_path,
    pack_run,
    read_run,
    reference_path,
    write_record,
)
from tests.support.bench import cell, entry, reference, run_record


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write_record(folder / "suite.json", run_record("ours", "no-op"))
    write_record(reference_path(folder, "one class-0"), reference("one class-0"))
    for method in ("no-op", "ours", "of another suite"):
        record = cell(method, 0, {"forget_accuracy": entry(1.5)})
        write_record(cell_path(folder, "one class-0", method), record)
    return folder


def test_cells_come_in_the_order_of_the_suite_and_others_are_left_out(run: Path) -> None:
    _, references, cells = read_run(run)

    assert [one["case"] for one in references] == ["one class-0"]
    assert [one["method"] for one in cells] == ["ours", "no-op"]


def test_a_packed_run_reads_as_its_folder_does(run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "one.jsonl.gz", tmp_path / "two.jsonl.gz"
    pack_run(run, first)
    pack_run(run, second)

    assert read_run(first) == read_run(run)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"not compressed",
        gzip.compress(b'{"kind": "run"}\n'),
        gzip.compress(b'{"kind": "run"'),
        gzip.compress(b'{"kind": "other"}\n'),
        gzip.compress(b"[1]\n"),
        gzip.compress(b'{"kind": "run"}\n' * 100)[:-9],
    ],
    ids=["not compressed", "no cell", "cut line", "another kind", "no table", "cut off"],
)
def test_a_damaged_packed_run_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl.gz"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"damaged\.jsonl\.gz"):
        read_run(path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no suite"):
        read_run(tmp_path)


def test_methods_whose_names_differ_in_odd_characters_do_not_share_a_file(tmp_path: Path) -> None:
    assert cell_path(tmp_path, "case", "a b") != cell_path(tmp_path, "case", "a/b")
    assert cell_path(tmp_path, "case", "../a").parent == tmp_path / "cells" / "case"
