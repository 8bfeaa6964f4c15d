"""Metadata of GGUF files, as the library `gguf` writes them."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from disinherit.common.errors import DataError
from disinherit.families.evidence import Kind
from disinherit.families.gguf import read_metadata
from disinherit.families.importing import Imported, import_families

gguf: Any = pytest.importorskip("gguf")


def write(path: Path, more: Callable[[Any], None] = lambda writer: None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("A model")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_token_list(["a", "b" * 300])
    writer.add_token_scores([0.5, 1.5])
    writer.add_chat_template("x" * 100_000)
    more(writer)
    writer.add_tensor("w", numpy.ones((2, 32), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def edges(found: Imported) -> list[tuple[str, str, str]]:
    return [(edge.parent, edge.child, edge.source) for edge in found.graph.edges()]


def cards(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "README.md").write_text("---\nlibrary_name: x\n---\n")


def test_texts_and_numbers_are_read_and_arrays_skipped(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", lambda writer: writer.add_base_model_count(1))
    found = read_metadata(tmp_path / "m.gguf")
    assert found["general.name"] == "A model"
    assert found["general.file_type"] == 7
    assert found["general.base_model.count"] == 1
    assert "tokenizer.ggml.tokens" not in found
    assert "tokenizer.chat_template" not in found


def test_the_model_that_was_converted_is_the_parent(tmp_path: Path) -> None:
    """The base model in the metadata is that of the model that was converted."""

    def said(writer: Any) -> None:
        writer.add_source_repo_url("https://huggingface.co/acme/chat")
        based(writer)

    def based(writer: Any) -> None:
        writer.add_base_model_count(1)
        writer.add_base_model_repo_url(0, "https://huggingface.co/acme/base")

    cards(tmp_path, "acme/chat", "acme/base")
    write(tmp_path / "one/chat.gguf", said)
    write(tmp_path / "two/chat.gguf", based)
    found = import_families([tmp_path])
    assert edges(found) == [("acme--chat", "one", "gguf"), ("acme--base", "two", "gguf")]
    assert {record.id for record in found.graph.models() if record.digest} == {"one", "two"}


def test_names_and_organisations_make_a_repository(tmp_path: Path) -> None:
    def said(writer: Any) -> None:
        writer.add_base_model_count(3)
        for place, name in enumerate(("My Base", "other")):
            writer.add_base_model_name(place, name)
        writer.add_base_model_organization(0, "acme")

    cards(tmp_path, "acme/My-Base", "other")
    write(tmp_path / "q/m.gguf", said)
    assert {parent for parent, _, _ in edges(import_families([tmp_path]))} == {
        *("acme--My-Base", "other"),
    }


def test_the_card_of_a_folder_is_about_all_its_files(tmp_path: Path) -> None:
    cards(tmp_path, "acme/chat")
    for name in ("chat-Q4.gguf", "chat-Q8.gguf", "chat-Q2-00001-of-00002.gguf"):
        write(tmp_path / "acme/chat-GGUF" / name)
    (tmp_path / "acme/chat-GGUF/README.md").write_text(
        "---\nbase_model: acme/chat\nbase_model_relation: quantized\n---\n"
    )
    found = import_families([tmp_path])
    assert {(parent, source) for parent, _, source in edges(found)} == {("acme--chat", "relation")}
    assert {child for _, child, _ in edges(found)} == {
        *("acme--chat-GGUF--chat-Q4", "acme--chat-GGUF--chat-Q8", "acme--chat-GGUF--chat-Q2"),
    }
    missing = [one.model for one in found.findings if "shards" in one.text]
    assert missing == ["acme--chat-GGUF--chat-Q2"]


def head(count: int, content: bytes = b"") -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, count) + content


KEY = struct.pack("<Q", 1) + b"k"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGML" + b"\0" * 20,
        struct.pack("<4sIQQ", b"GGUF", 1, 0, 0),
        struct.pack("<4sIQQ", b"GGUF", 3 << 24, 0, 0),
        head(2**62),
        head(1),
        head(1, struct.pack("<Q", 2**62)),
        head(1, struct.pack("<Q", 2**20) + b"k" * 2**20),
        head(1, struct.pack("<Q", 2) + b"\xff\xff" + struct.pack("<I", 4)),
        head(1, KEY + struct.pack("<I", 99)),
        head(1, KEY + struct.pack("<IQ", 8, 2**40)),
        head(1, KEY + struct.pack("<IIQ", 9, 9, 1)),
        head(1, KEY + struct.pack("<IIQ", 9, 8, 2**25)),
        head(2, KEY + struct.pack("<IIQ", 9, 12, 2**25)),
    ],
)
def test_malformed_metadata_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Expected a GGUF file, but got .* m\.gguf"):
        read_metadata(path)
    found = import_families([tmp_path])
    assert [one.kind for one in found.findings] == [Kind.UNREADABLE]
    assert all(one.text.isprintable() for one in found.findings)
