"""A byte tokenizer, a small random network, and a network that says what a script tells it to."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.plan.dims import ModelDims
from nanochat.tokenizer.bpe import Tokenizer


class ScriptedGPT(GPT):
    """After `start` positions, position start + i gets script[i], whatever the input was; inputs are kept."""

    script: list[int]
    start: int
    seen: list[list[int]]

    def hidden(self, idx_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        assert cache is not None
        self.seen.append(idx_BT[0].tolist())
        first = cache.longest
        cache.advance(idx_BT)
        return torch.arange(first, cache.longest).expand(len(idx_BT), -1)[..., None]

    def logits(self, hidden: Tensor) -> Tensor:
        places = (hidden[..., 0] - self.start + 1).clamp(0, len(self.script) - 1)
        ids = torch.tensor(self.script)[places]
        return torch.nn.functional.one_hot(ids, self.dims.vocab_size) * 100.0


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer({bytes([i]): i for i in range(256)})


@pytest.fixture
def make_model(tokenizer: Tokenizer) -> Callable[..., GPT]:
    def make(n_kv_head: int = 2, seed: int = 0, seq_len: int = 64, **more: Any) -> GPT:
        shape = (2, 32, 4, n_kv_head, 8, tokenizer.vocab_size, seq_len)
        dims = ModelDims(*shape, 10_000.0, "float32", 1e-6, 15.0, **more)
        model = build_model(dims, "cpu", "float32", seed)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5)
        return model

    return make


@pytest.fixture
def scripted(tokenizer: Tokenizer) -> Callable[..., ScriptedGPT]:
    def make(script: list[int], prompt: int, seq_len: int = 64) -> ScriptedGPT:
        model = ScriptedGPT(ModelDims(1, 8, 1, 1, 8, tokenizer.vocab_size, seq_len, 10_000.0, "float32", 1e-6, 15.0))
        model.script, model.start, model.seen = script, prompt, []
        return model

    return make
