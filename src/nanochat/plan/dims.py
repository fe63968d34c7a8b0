"""The network's dimensions, derived from the one dial `depth`, and what follows from them.

Notable: the width is aspect_ratio * depth and the number of heads follows from the width, so a width
that the heads cannot share is an error that names the depths that work, unless `round_width` is set.
"""

from dataclasses import dataclass

from nanochat.config.model import ModelConfig
from nanochat.errors import ConfigError


@dataclass(frozen=True)
class ModelDims:
    """Everything the network is built from. Saved as model.yaml beside every checkpoint."""

    n_layer: int
    n_embd: int
    n_head: int
    n_kv_head: int
    head_dim: int
    vocab_size: int
    seq_len: int
    rope_base: float
    rope_dtype: str
    norm_eps: float
    logit_softcap: float


@dataclass(frozen=True)
class ParamCounts:
    """Number of parameters by group."""

    embedding: int
    unembedding: int
    matrices: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.unembedding + self.matrices

    @property
    def scaling(self) -> int:
        """Parameters used in matrix products: transformer matrices and lm_head."""
        return self.unembedding + self.matrices


def _heads_for(width: int, head_dim: int) -> int:
    return max(1, -(-width // head_dim))


def _width_for(depth: int, model: ModelConfig) -> int:
    width = depth * model.aspect_ratio
    if model.round_width:
        width = -(-width // model.head_dim) * model.head_dim
    return width


def _divides(width: int, heads: int) -> bool:
    return width % heads == 0 and (width // heads) % 2 == 0


def _check_width(model: ModelConfig, width: int, heads: int) -> None:
    """D must divide into H heads of even size, else an error naming the nearest legal depths."""
    if _divides(width, heads):
        return
    if model.n_embd is not None or model.n_head is not None:
        legal = [h for h in range(1, width + 1) if _divides(width, h)]
        near = sorted(sorted(legal, key=lambda h: abs(h - heads))[:4])
        raise ConfigError(
            f"model.n_embd={width} does not divide into model.n_head={heads} heads of even size; "
            f"heads that work for this width: {', '.join(map(str, near)) or 'none, take an even width'}"
        )
    if model.round_width:
        raise ConfigError(f"model.head_dim={model.head_dim} must be even, since rotary positions pair its halves")
    legal_depths = [
        d
        for d in range(max(1, model.depth - 16), model.depth + 17)
        if _divides(d * model.aspect_ratio, _heads_for(d * model.aspect_ratio, model.head_dim))
    ]
    near = sorted(sorted(legal_depths, key=lambda d: abs(d - model.depth))[:4])
    raise ConfigError(
        f"model.depth={model.depth} gives a width of {width}, which does not divide into {heads} heads of "
        f"model.head_dim={model.head_dim} at most; nearest legal depths: {', '.join(map(str, near)) or 'none'}; "
        f"or set model.round_width=true to round the width up to a multiple of head_dim"
    )


def derive_dims(model: ModelConfig, vocab_size: int) -> ModelDims:
    """Layers, width and heads from `depth`; explicit n_layer, n_embd, n_head, n_kv_head win.

    Raises ConfigError naming the nearest legal value where the sizes do not divide.
    """
    width = model.n_embd if model.n_embd is not None else _width_for(model.depth, model)
    heads = model.n_head if model.n_head is not None else _heads_for(width, model.head_dim)
    _check_width(model, width, heads)
    if model.n_kv_head is not None:
        kv_heads = model.n_kv_head
        if heads % kv_heads:
            legal = ", ".join(str(k) for k in range(1, heads + 1) if heads % k == 0)
            raise ConfigError(f"model.n_kv_head={kv_heads} does not divide {heads} query heads; legal: {legal}")
    else:
        if heads % model.gqa_ratio:
            legal = ", ".join(str(r) for r in range(1, heads + 1) if heads % r == 0)
            raise ConfigError(f"model.gqa_ratio={model.gqa_ratio} does not divide {heads} query heads; legal: {legal}")
        kv_heads = heads // model.gqa_ratio
    return ModelDims(
        n_layer=model.n_layer if model.n_layer is not None else model.depth,
        n_embd=width,
        n_head=heads,
        n_kv_head=kv_heads,
        head_dim=width // heads,
        vocab_size=vocab_size,
        seq_len=model.max_seq_len,
        rope_base=model.rope_base,
        rope_dtype=str(model.rope_dtype),
        norm_eps=model.norm_eps,
        logit_softcap=model.logit_softcap,
    )


def count_params(dims: ModelDims) -> ParamCounts:
    """Parameters by group; checked against the built module in tests/model/test_gpt.py."""
    attention = dims.n_embd * dims.head_dim * (2 * dims.n_head + 2 * dims.n_kv_head)
    mlp = 2 * 4 * dims.n_embd * dims.n_embd
    table = dims.vocab_size * dims.n_embd
    return ParamCounts(embedding=table, unembedding=table, matrices=dims.n_layer * (attention + mlp))


def flops_per_token(dims: ModelDims) -> int:
    """Training FLOPs per token, forward and backward: 6*(params - wte) + 12*L*H*E*T (PaLM, 2204.02311, app. B)."""
    weights = 6 * count_params(dims).scaling
    return weights + 12 * dims.n_layer * dims.n_head * dims.head_dim * dims.seq_len
