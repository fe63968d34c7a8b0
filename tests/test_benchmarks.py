"""The benchmarks on very little: they run, and their JSON says what was measured where."""

import importlib.util
import json
import runpy
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "loader.py"


def load(script: Path) -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(f"{script.stem}_benchmark", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("packing", ["stream", "bestfit"])
def test_it_measures_all_ways(packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(SCRIPT)
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


@pytest.mark.parametrize("model", ["gpt", "modern"])
def test_decoding_is_measured_on_a_cpu(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(SCRIPT.with_name("decode.py"))
    monkeypatch.setattr(module, "copy_bandwidth", lambda device: 1e10)
    small = ["--device", "cpu", "--depth", "2", "--vocab-size", "300", "--seq-len", "64", "--tokens", "6"]
    many = ["--batch", "1", "3", "--context", "8", "140", "--seconds", "0", "--out", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["decode.py", "--model", model, *small, *many])
    module.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["machine"]["packages"]["torch"] and found["when"] and found["weights MB"] >= 0
    assert [(row["batch"], row["context"]) for row in found["rows"]] == [(1, 8), (1, 140), (3, 8), (3, 140)]
    for row in found["rows"]:
        assert row["tokens/s"] > 0 and row["first token s"] > 0 and row["share"] > 0
        assert abs(row["mean context"] - row["context"]) < 4
    dims = module.make_model(module.parse_arguments()).dims
    matrices = dims.n_embd * (12 * dims.n_embd * dims.n_layer + dims.table_rows)
    assert abs(found["weights MB"] - matrices * 4 / 1e6) <= 1


def test_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(SCRIPT.with_name("attention.py"))
    sizes = ["--batch", "2", "--seq-len", "40", "--heads", "4", "--kv-heads", "2", "--head-dim", "8", "--window", "6"]
    out = ["--document", "9", "--device", "cpu", "--dtype", "float32", "--eager", "--seconds", "0"]
    kernels = ["--kernels", "flash4", "sdpa", "plain", "--out", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["attention.py", *sizes, *out, *kernels])
    module.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["machine"]["packages"]["torch"] and found["when"]
    rows = {(row["sight"], row["kernel"]): row for row in found["rows"]}
    assert len(rows) == 12
    for sight in module.SIGHTS:
        why = "needs device cuda" if sight in ("causal", "window") else "has no document mask"
        assert why in rows[sight, "flash4"]["cannot"]
        for kernel in ("sdpa", "plain"):
            row = rows[sight, kernel]
            assert row["TFLOP/s"] >= 0 and row["ms"] > 0 and 0 < max(row["error"].values()) < 1e-5
    args, idx = module.parse_arguments(), module.tokens(module.parse_arguments())
    assert module.seen_pairs(args, "causal", idx) == 2 * 40 * 41 // 2
    assert module.seen_pairs(args, "window", idx) == 2 * (sum(range(1, 7)) + 34 * 7)
    starts = [[*sorted({0, *(idx[b] == 0).nonzero().flatten().tolist()}), 40] for b in range(2)]
    lengths = [b - a for row in starts for a, b in pairwise(row)]
    assert module.seen_pairs(args, "documents", idx) == sum(n * (n + 1) // 2 for n in lengths)


@pytest.mark.parametrize("model", ["gpt", "modern"])
def test_steps_are_measured_on_a_cpu(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(SCRIPT.with_name("train_step.py"))
    monkeypatch.setattr(module, "matmul_flops", lambda machine: 1e10)
    small = ["--device", "cpu", "--depth", "1", "--vocab-size", "300", "--seq-len", "32", "--batch", "2"]
    few = ["--accumulation", "2", "--seconds", "0", "--steps", "2", "--out", str(tmp_path / "out.json")]
    if model == "gpt":
        texts = [f"the {i} " + "some words " * 9 for i in range(40)]
        pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
        few += ["--data", str(tmp_path), "--recompute", "blocks", "--profile"]
    monkeypatch.setattr(sys, "argv", ["train_step.py", "--model", model, *small, *few])
    module.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["machine"]["packages"]["torch"] and found["when"] and len(found["loss"]) == 3 + found["steps"] == 5
    low, high = found["spread"]
    assert 0 < low <= found["tokens/s"] <= high and found["MFU, matmul"] > 0
    phases = ["imports", "config and plan", "attention", "tokens of the benchmark", "model", "optimizer", "first step"]
    assert list(found["start s"]) == phases and min(found["start s"].values()) >= 0
    alone = sum(found["start s"].values()) - found["start s"]["tokens of the benchmark"]
    assert found["start to first step s"] == pytest.approx(alone, abs=0.05)
    assert found["tokens/s"] == pytest.approx(2 * 2 * 32 / found["step s"], rel=0.01)
    assert found["peak GB, predicted"] > 0 and (model != "gpt" or found["profile"]["ms a step"]["products"] > 0)
    assert any(said.startswith("attention: ") for said in found["said"])


def test_kernels_are_known_by_what_they_do() -> None:
    """Fused kernels carry the names of all that is in them, and templates of the compiler are products or attention."""
    module = load(SCRIPT.with_name("train_step.py"))
    names = {
        "products": [
            "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NTT",
            "aten::mm",
            "aten::_scaled_mm",
            "triton_tem_fused_mm_0",
        ],
        "fused": [
            "triton_per_fused__to_copy_add_embedding_mm_3",
            "triton_poi_fused_relu_0",
            "cpp_fused__to_copy_mul_1",
        ],
        "attention": [
            "triton_tem_fused_flex_attention_2",
            "kernel_cutlass_flash_fwd_sm90",
            "pytorch_flash::flash_bwd_kernel",
        ],
        "copies": ["Memcpy HtoD (Pinned -> Device)", "Memset (Device)"],
        "other": ["void at::native::vectorized_elementwise_kernel<4>", "aten::linalg_vector_norm"],
    }
    assert {kind: {module.kernel_class(name) for name in each} for kind, each in names.items()} == {
        k: {k} for k in names
    }


def test_a_wrong_key_is_said_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_step.py", "--set", "runtim.dtype=float16"])
    with pytest.raises(SystemExit, match="^error: runtim is not a key; did you mean runtime"):
        runpy.run_path(str(SCRIPT.with_name("train_step.py")), run_name="__main__")
