"""Each kind of file gives its documents, block by block, and says what is wrong with it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.data import files
from nanochat.data.files import JsonlFile, ParquetFile, TextFile, TxtFile
from nanochat.data.parquet_check import decode_all
from nanochat.errors import CorruptError


def read_all(file: TextFile) -> list[str]:
    blocks = [file.read_block(i) for i in range(len(file.block_sizes))]
    assert [len(block) for block in blocks] == file.block_sizes
    return [text for block in blocks for text in block]


def test_parquet_by_row_group(tmp_path: Path) -> None:
    texts = [f"document {i} ä" for i in range(10)] + ["", None]
    pq.write_table(pa.table({"id": list(range(12)), "text": texts}), tmp_path / "a.parquet", row_group_size=5)
    file = ParquetFile(tmp_path / "a.parquet")
    assert file.block_sizes == [5, 5, 2]
    assert read_all(file) == [text or "" for text in texts]
    assert file.read_block(1)[1:3] == texts[6:8]


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
def test_parquet_as_other_writers_make_it(kind: str, tmp_path: Path) -> None:
    texts = ["eins", None, "", "zwei", "eins", "drei"]
    column = pa.array(texts).dictionary_encode() if kind == "dictionary" else pa.array(texts, getattr(pa, kind)())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet", row_group_size=4)
    assert pq.read_schema(tmp_path / "a.parquet").field("text").type == column.type
    file = ParquetFile(tmp_path / "a.parquet")
    assert [text for block in range(2) for text in file.read_block(block)] == ["eins", "", "", "zwei", "eins", "drei"]
    assert file.read_block(0)[1:4] == ["", "", "zwei"] and file.read_block(0).size > 0
    assert decode_all(tmp_path / "a.parquet").documents == 6


@pytest.mark.parametrize(
    ("table", "said"),
    [({"content": ["a"]}, "no column 'text'"), ({"text": [1]}, "is of type int64")],
)
def test_parquet_of_another_shape(tmp_path: Path, table: dict[str, list[object]], said: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(CorruptError, match=said):
        ParquetFile(tmp_path / "a.parquet")


def test_parquet_with_bytes_that_are_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["needle"]}), path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"needle", b"n\xff\xfedle"))
    with pytest.raises(CorruptError, match=r"a\.parquet: row group 0 is unreadable .*UTF8"):
        ParquetFile(path).read_block(0)


def test_truncated_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 100]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptError, match=r"a\.parquet is no readable"):
        ParquetFile(path)


def test_jsonl_blocks_and_blank_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINES_PER_BLOCK", 3)
    texts = ["eins", "zwei\nzeilen", "", "vier \u2028 ü", "fünf", "sechs", "sieben"]
    lines = [json.dumps({"text": text, "url": "x"}, ensure_ascii=i % 2 == 0) for i, text in enumerate(texts)]
    lines.insert(2, "")
    lines.insert(5, "   ")
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    file = JsonlFile(tmp_path / "a.jsonl")
    assert file.block_sizes == [3, 3, 1]
    assert read_all(file) == texts


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "list instead of an object"),
        ('{"txt": "a"}', "no key 'text'"),
        ('{"text": 3}', "'text' is int"),
        ('{"text": "\\ud800"}', "surrogate"),
    ],
)
def test_malformed_jsonl_names_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n\n' + line + "\n{\n")
    with pytest.raises(CorruptError) as caught:
        JsonlFile(tmp_path / "a.jsonl")
    assert "a.jsonl:3: " in str(caught.value)
    assert said in str(caught.value)
    assert "2 of 3 lines are wrong" in str(caught.value)


def test_txt_joins_paragraphs_and_loses_nothing(tmp_path: Path) -> None:
    paragraphs = [f"paragraph {i} " + "ö" * (37 * i % 900) for i in range(60)]
    paragraphs[20] = "\n".join(["a very long paragraph"] * 2000)
    (tmp_path / "a.txt").write_bytes(("\ufeff" + "\r\n\r\n".join(paragraphs) + "\n\n \n").encode())
    documents = read_all(TxtFile(tmp_path / "a.txt"))
    # what was cut, at a blank line or inside the long paragraph, was a line end
    assert "".join("".join(documents).split()) == "".join("".join(paragraphs).split())
    assert all(document.strip() == document != "" for document in documents)
    assert "\r" not in "".join(documents)
    assert all(4000 <= len(document) <= 16100 for document in documents[:-1])
    assert sum(len(document) > 5500 for document in documents) == 3  # the three pieces around the long one


def test_txt_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n \n")
    assert TxtFile(tmp_path / "a.txt").block_sizes == []


def test_txt_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"fine\nna\xefve\n")
    with pytest.raises(CorruptError, match=r"a\.txt:2: byte 7 is not UTF-8"):
        TxtFile(tmp_path / "a.txt")
