"""What a footer tells, and what only decoding tells."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_server import as_parquet, shard_bytes

from nanochat.data.parquet_check import check_footer, decode_all
from nanochat.errors import CorruptError

PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
WHOLE = shard_bytes(3, documents=300)


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "shard.parquet"
    path.write_bytes(content)
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    quick, thorough = check_footer(path), decode_all(path)
    assert (quick.documents, quick.row_groups, quick.size) == (300, 6, len(WHOLE)) and quick.text_bytes is None
    assert thorough.text_bytes is not None and thorough.text_bytes > 300 * 200


@pytest.mark.parametrize("length", [0, 3, 8, 12, 1000, len(WHOLE) // 2, len(WHOLE) - 1])
def test_every_truncation_is_found_by_the_footer(length: int, tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="shard.parquet"):
        check_footer(write(tmp_path, WHOLE[:length]))


def test_a_hole_is_found_by_the_footer(tmp_path: Path) -> None:
    """Bytes missing in the middle leave head and tail as they were."""
    with pytest.raises(CorruptError, match="lies outside the file|no readable footer"):
        check_footer(write(tmp_path, WHOLE[:100] + WHOLE[len(WHOLE) // 2 :]))


def test_damage_inside_is_found_by_decoding(tmp_path: Path) -> None:
    middle = len(WHOLE) // 2
    path = write(tmp_path, WHOLE[:middle] + bytes(500) + WHOLE[middle + 500 :])
    assert check_footer(path).documents == 300
    with pytest.raises(CorruptError, match=r"row group \d is unreadable"):
        decode_all(path)


def test_page_checksums_are_looked_at(tmp_path: Path) -> None:
    """One bit of plain text: nothing else can tell."""
    path = tmp_path / "plain.parquet"
    table = pa.table({"text": ["needle in plain text"] * 10})
    pq.write_table(table, path, write_page_checksum=True, **PLAIN)
    path.write_bytes(path.read_bytes().replace(b"needle", b"noodle", 1))
    with pytest.raises(CorruptError, match="row group 0"):
        decode_all(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"text": ["needle"] * 3}), path, **PLAIN)
    path.write_bytes(path.read_bytes().replace(b"needle", b"n\xff\xfedle", 1))
    with pytest.raises(CorruptError, match="row group 0"):
        decode_all(path)


def test_another_column(tmp_path: Path) -> None:
    path = write(tmp_path, as_parquet(["x"]))
    pq.write_table(pa.table({"content": ["x"]}), path)
    with pytest.raises(CorruptError, match="no column 'text'; it has content"):
        check_footer(path)


def test_a_column_of_something_else(tmp_path: Path) -> None:
    """It would be accepted now and refused when it is read."""
    path = tmp_path / "shard.parquet"
    pq.write_table(pa.table({"text": [1, 2]}), path)
    with pytest.raises(CorruptError, match="column 'text' is of type int64; it must hold strings"):
        check_footer(path)
