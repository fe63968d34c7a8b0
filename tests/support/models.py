"""Networks whose answers a test can foresee, for what lies around the network."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.plan.dims import ModelDims
from nanochat.tokenizer.bpe import Tokenizer

PRINTABLE = range(32, 127)


class Typist(GPT):
    """A random network of which only printable ASCII comes, one token a byte: it never ends by itself."""

    def logits(self, hidden: Tensor) -> Tensor:
        logits = super().logits(hidden)
        keep = torch.zeros(logits.shape[-1], dtype=torch.bool)
        keep[PRINTABLE.start : PRINTABLE.stop] = True
        return logits.where(keep, -100.0)


def random_model(dims: ModelDims, seed: int = 1) -> Typist:
    """Weights large enough that the answer depends on the whole prompt."""
    model = build_model(dims, "cpu", "float32", seed=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5)
    model.__class__ = Typist
    return model.eval()  # type: ignore[return-value]


class ChainGPT(GPT):
    """After each token comes the one that `after` names, whatever was before it."""

    after: dict[int, int]

    def hidden(self, idx_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        assert cache is not None
        cache.advance(idx_BT)
        return idx_BT[..., None]

    def logits(self, hidden: Tensor) -> Tensor:
        ids = [self.after.get(token, 0) for token in hidden[..., 0].flatten().tolist()]
        following = torch.tensor(ids).view(hidden.shape[:-1])
        return torch.nn.functional.one_hot(following, self.dims.vocab_size) * 100.0


def chain(tokenizer: Tokenizer, ids: Sequence[int], seq_len: int) -> ChainGPT:
    """A network that goes through `ids`, of which only the last may occur twice: there it goes on as before."""
    model = ChainGPT(ModelDims(1, 8, 1, 1, 8, tokenizer.vocab_size, seq_len, 10_000.0, "float32", 1e-6, 15.0))
    model.after = dict(pairwise(ids))
    return model


def drawn_on_gpu(dims: ModelDims, dtype: str) -> GPT:
    """No weight is 0, as some are at first: each has a gradient, and the same numbers in every call."""
    model = build_model(dims, "cuda", dtype, 0)
    with torch.no_grad():
        for p in model.parameters():
            std = p.shape[1] ** -0.5 if p.ndim == 2 else 0.5
            torch.nn.init.normal_(p, std=std, generator=torch.Generator("cuda").manual_seed(1))
    return model
