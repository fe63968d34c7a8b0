"""The rows of a corpus that is wholly there, as they have always been: a run must not change under its user's feet."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_stand_ins import ByteTokenizer

from nanochat.config.data import Packing
from nanochat.data.corpus import FileDocuments
from nanochat.data.source import Source
from nanochat.data.tokenized import CorpusTokens

GOLDEN = {
    ("stream", 3): "11aa3c4e1e38cfb5",
    ("stream", 8): "bbe2a6165419e51a",
    ("bestfit", 3): "9ce711788d1d00dd",
    ("bestfit", 8): "ac0176ebb5dc93b2",
}


def write_files(folder: Path) -> list[Path]:
    """60 documents in three parquet files of several row groups; two are blank, some are long."""
    texts = [f"document {i} " + "word " * (i * 37 % 90) for i in range(60)]
    texts[7], texts[31] = "", " \n"
    paths = []
    for name, part in (("a", texts[:25]), ("b", texts[25:26]), ("c", texts[26:])):
        pq.write_table(pa.table({"text": part}), folder / f"{name}.parquet", row_group_size=6)
        paths.append(folder / f"{name}.parquet")
    return paths


def digest(source: Source, steps: int) -> str:
    """Of inputs, targets and row numbers of the first steps."""
    found = hashlib.sha256()
    for _ in range(steps):
        step = source.next_step()
        found.update(f"{step.weight} {step.row_ids}".encode())
        for batch in step.micro_batches:
            found.update(batch.inputs_BT.numpy().tobytes() + batch.targets_BT.numpy().tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(("packing", "lanes"), GOLDEN)
def test_rows_are_what_they_were(packing: str, lanes: int, tmp_path: Path) -> None:
    """Three epochs and more. 60 and 3 have a common factor, so lanes are turned too (data/cursor.py)."""
    docs = CorpusTokens(FileDocuments(write_files(tmp_path), tmp_path), ByteTokenizer())
    source = Source(docs, Packing(packing), 64, 12, lanes, 5, pad_id=256)
    assert digest(source, 60) == GOLDEN[packing, lanes]
    assert source.next_step().epoch > 3
