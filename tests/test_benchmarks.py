"""The loader's benchmark on a few files: it runs, and its JSON says what was measured where."""

import importlib.util
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "loader.py"


@pytest.mark.parametrize("packing", ["stream", "bestfit"])
def test_it_measures_all_ways(packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("loader_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("a", "b", "z"):
        texts = [f"{name} {i} " + "some words " * (i % 30) for i in range(80)]
        pq.write_table(pa.table({"text": texts}), tmp_path / f"{name}.parquet", row_group_size=20)
    small = ["--vocab-size", "280", "--seq-len", "64", "--rows", "8", "--lanes", "4", "--steps", "3", "--seconds", "0"]
    out = tmp_path / "out.json"
    way = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache"), "--packing", packing, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["loader.py", *small, *way, "--epochs", "2", "--memory", "cache", "text"])
    module.main()
    found = json.loads(out.read_text())
    assert found["machine"]["cores"] >= 1 and found["when"] and found["machine"]["packages"]["tiktoken"]
    for kind in ("tiktoken", "text", "cache"):
        low, median, high = found["rates"][kind]["clock"]
        assert 0 < low <= median <= high
    assert [row["epoch"] for row in found["memory"]["text"]] == [1, 2]
