"""The network in float64 numpy, one sequence, head by head and query by query, from its published description.

Slow and plain on purpose, and written without a line of src/nanochat/model/. Weights come as a state dict.
"""

from math import ceil, sqrt
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def norm(x: Array) -> Array:
    return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6))


def turned(x_TE: Array, base: float) -> Array:
    """Pairs of (first half, second half) as complex numbers, turned backwards."""
    half = x_TE.shape[1] // 2
    angle = np.arange(len(x_TE))[:, None] * base ** (-2 * np.arange(half) / x_TE.shape[1])
    z = (x_TE[:, :half] + 1j * x_TE[:, half:]) * np.exp(-1j * angle)
    return np.concatenate([z.real, z.imag], axis=1)


def reach(dims: Any, layer: int) -> int | None:
    """How many keys before its own a query of this layer sees; None: all."""
    if not dims.window_pattern or layer == dims.n_layer - 1:
        return None
    short = dims.window_pattern[layer % len(dims.window_pattern)] == "S"
    return ceil(dims.seq_len / 4 / 128) * 128 if short else None


def values(w: dict[str, Array], at: str, h: Array, idx: list[int], kv: int, width: int) -> Array:
    """The values of one key/value head, with its share of the token's value embedding."""
    mine = slice(kv * width, (kv + 1) * width)
    v = h @ w[f"{at}attn.v_proj.weight"].T[:, mine]
    if f"{at}attn.value_embed.table.weight" in w:
        gate = sigmoid(h[:, :12] @ w[f"{at}attn.value_embed.gate.weight"][kv])
        v = v + 3 * gate[:, None] * w[f"{at}attn.value_embed.table.weight"][idx][:, mine]
    return v


def attention(w: dict[str, Array], layer: int, h: Array, idx: list[int], dims: Any) -> Array:
    at, width, window, out = f"blocks.{layer}.", dims.head_dim, reach(dims, layer), []
    q, k = (h @ w[f"{at}attn.{name}_proj.weight"].T for name in "qk")
    for head in range(dims.n_head):
        kv = head // (dims.n_head // dims.n_kv_head)
        mine, theirs = slice(head * width, (head + 1) * width), slice(kv * width, (kv + 1) * width)
        q_h, k_h = (dims.qk_scale * norm(turned(a, dims.rope_base)) for a in (q[:, mine], k[:, theirs]))
        v_h = values(w, at, h, idx, kv, width)
        rows = []
        for t in range(len(h)):
            seen = slice(0 if window is None else max(0, t - window), t + 1)
            score = k_h[seen] @ q_h[t] / sqrt(width)
            p = np.exp(score - score.max())
            rows.append((p / p.sum()) @ v_h[seen])
        out.append(np.stack(rows))
    return np.asarray(np.concatenate(out, axis=1) @ w[f"{at}attn.o_proj.weight"].T)


def plain_hidden(state: dict[str, Any], dims: Any, idx: list[int]) -> Array:
    """The normed activations (T, D) that the head reads."""
    w = {name: np.asarray(p.detach().double()) for name, p in state.items()}
    x = norm(w["wte.weight"][idx])
    if "smear.scale" in w:
        gate = sigmoid(x[1:, :24] @ w["smear.gate.weight"][0])
        x = np.concatenate([x[:1], x[1:] + w["smear.scale"][0] * gate[:, None] * x[:-1]])
    first = middle = x
    for i in range(dims.n_layer):
        if "residual.a" in w:
            x = w["residual.a"][i] * x + w["residual.b"][i] * first
        x = x + attention(w, i, norm(x), idx, dims)
        x = x + np.maximum(norm(x) @ w[f"blocks.{i}.mlp.up.weight"].T, 0) ** 2 @ w[f"blocks.{i}.mlp.down.weight"].T
        if i == dims.n_layer // 2:
            middle = x
    if "backout.scale" in w:
        x = x - w["backout.scale"][0] * middle
    return norm(x)


def plain_logits(state: dict[str, Any], dims: Any, idx: list[int]) -> Array:
    """Logits (T, V); rows of the head behind the vocabulary are left out."""
    head = np.asarray(state["lm_head.weight"].detach().double())[: dims.vocab_size]
    return np.asarray(15 * np.tanh(plain_hidden(state, dims, idx) @ head.T / 15))
