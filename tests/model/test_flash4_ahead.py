"""Kernels compiled ahead: which, told of which GPU, once; and nothing that fails or hangs is noticed."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_flash4 import fake_module

from nanochat.model import flash4_ahead
from nanochat.model.attention_choice import AttentionChoice
from nanochat.model.flash4_ahead import Kernels, compile_kernels, compiled_ahead, needed
from nanochat.plan.dims import ModelDims

KERNELS = Kernels(16, 4, 2, 8, "bfloat16", 4, (9, 0), 132)


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(tmp_path))
    gpu = SimpleNamespace(major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)


@pytest.fixture
def dims(make_dims: Any) -> ModelDims:
    made: ModelDims = make_dims(n_layer=3, seq_len=512, window_pattern="SSL")
    return made


def test_each_kind_of_window_is_one(dims: ModelDims) -> None:
    both = needed(AttentionChoice("flash4", "flash4"), dims, "bfloat16")
    assert {kernels.window for kernels in both} == {None, 128}
    assert {(k.length, k.heads, k.head_dim, k.capability) for k in both} == {(512, dims.n_head, dims.head_dim, (9, 0))}
    assert [k.window for k in needed(AttentionChoice("cudnn", "flash4"), dims, "bfloat16")] == [128]
    assert needed(AttentionChoice("sdpa", "flex"), dims, "bfloat16") == []


def test_both_are_called_on_fake_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    shapes: list[Any] = []
    module = fake_module([])

    def forward(q: Any, k: Any, v: Any, **asked: Any) -> Any:
        shapes.extend([q, k])
        calls.append(asked)
        return torch.empty_like(q), torch.empty(q.shape[0], q.shape[2], q.shape[1])

    module._flash_attn_fwd = forward  # type: ignore[attr-defined]
    module._flash_attn_bwd = lambda *given, **asked: calls.append(asked) or given[:3]  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", module)
    compile_kernels(KERNELS)
    assert [call["window_size_left"] for call in calls] == [4, 4]
    assert [(tuple(x.shape), str(x.device.type)) for x in shapes] == [((1, 16, 4, 8), "cuda"), ((1, 16, 2, 8), "cuda")]
    assert flash4_ahead._mark(KERNELS).is_file()


def test_nothing_is_started_twice(dims: ModelDims, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Kernels] = []

    def start(kernels: Kernels) -> Any:
        started.append(kernels)
        return SimpleNamespace(kill=lambda: None, wait=lambda: None)

    monkeypatch.setattr(flash4_ahead, "_start", start)
    choice = AttentionChoice("flash4", "flash4")
    mark = flash4_ahead._mark(needed(choice, dims, "bfloat16")[0])
    mark.parent.mkdir()
    mark.touch()
    with compiled_ahead(choice, dims, "bfloat16"):
        pass
    assert [kernels.window for kernels in started] == [needed(choice, dims, "bfloat16")[1].window]


def test_what_still_compiles_at_the_end_is_ended(dims: ModelDims, monkeypatch: pytest.MonkeyPatch) -> None:
    popen = flash4_ahead.subprocess.Popen
    seen: list[Any] = []

    def slow(command: list[str], **asked: Any) -> Any:
        assert json.loads(command[-1])["dtype"] == "bfloat16" and asked["env"]["FLASH_ATTENTION_ARCH"] == "sm_90"
        assert asked["env"]["CUDA_VISIBLE_DEVICES"] == ""
        seen.append(popen(["sleep", "60"], **asked))
        return seen[-1]

    monkeypatch.setattr(flash4_ahead.subprocess, "Popen", slow)
    began = time.perf_counter()
    with compiled_ahead(AttentionChoice("flash4", "sdpa"), dims, "bfloat16"):
        assert len(seen) == 1 and seen[0].poll() is None
    assert seen[0].returncode is not None and time.perf_counter() - began < 30


def test_what_cannot_be_started_is_done_without(dims: ModelDims, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **asked: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(flash4_ahead.subprocess, "Popen", refuse)
    with compiled_ahead(AttentionChoice("flash4", "flash4"), dims, "bfloat16"):
        done = True
    assert done
