"""Training as the guide describes it: the network, both optimizers, rates, schedules and the loop, plain and slow.

Written from the published description alone, without a line of src/nanochat. Weights are a dict by the names of a
checkpoint; autograd does the backward pass, torch.optim.AdamW is AdamW. B rows, T positions, D width, H query heads,
K key/value heads, E head width, L layers. float64 by default, so that what differs is the other side's rounding.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, cos, floor, pi, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Step = Sequence[tuple[Tensor, Tensor]]
"""The micro-batches (inputs, targets) of one update; a target of -1 is none."""

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5


@dataclass(frozen=True)
class Asked:
    """What a run was asked for; `modern` chooses network and optimizer, whose rates are their published ones."""

    modern: bool
    depth: int
    aspect_ratio: int
    head_dim: int
    gqa_ratio: int
    length: int
    vocab: int
    rows: int
    ratio: float
    warmup_steps: int
    warmdown_ratio: float
    final: float
    momentum_warmup: int
    grad_clip: float
    weight_decay: float
    scaled: bool
    rates_times: float = 1.0

    @property
    def width(self) -> int:
        """D; modern rounds it up to whole heads."""
        wide = self.depth * self.aspect_ratio
        return ceil(wide / self.head_dim) * self.head_dim if self.modern else wide

    @property
    def heads(self) -> int:
        return max(1, ceil(self.width / self.head_dim))

    @property
    def batch(self) -> int:
        """Tokens of a step."""
        return self.rows * self.length

    def window(self, layer: int) -> int | None:
        """How far back a query of the layer sees; None: to the beginning."""
        if not self.modern or layer == self.depth - 1 or "SSSL"[layer % 4] == "L":
            return None
        return ceil(self.length / 4 / 128) * 128


def norm(x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


def turned(x_BTHE: Tensor, base: float) -> Tensor:
    half = x_BTHE.shape[-1] // 2
    speed = torch.tensor([base ** (-i / half) for i in range(half)], dtype=x_BTHE.dtype)
    angle = (torch.arange(x_BTHE.shape[1], dtype=x_BTHE.dtype)[:, None] * speed)[:, None, :]
    x1, x2 = x_BTHE[..., :half], x_BTHE[..., half:]
    return torch.cat([x1 * angle.cos() + x2 * angle.sin(), x2 * angle.cos() - x1 * angle.sin()], dim=-1)


def attention(w: Weights, layer: int, h_BTD: Tensor, idx_BT: Tensor, asked: Asked) -> Tensor:
    at, (B, T) = f"blocks.{layer}.attn.", idx_BT.shape
    q, k, v = ((h_BTD @ w[f"{at}{name}_proj.weight"].T).view(B, T, -1, asked.head_dim) for name in "qkv")
    base, gain = (100_000.0, 1.2) if asked.modern else (10_000.0, 1.0)
    q, k = gain * norm(turned(q, base)), gain * norm(turned(k, base))
    if asked.modern and layer % 2 == (asked.depth - 1) % 2:
        gate_BTK = 3 * (h_BTD[..., :12] @ w[f"{at}value_embed.gate.weight"].T).sigmoid()
        v = v + gate_BTK[..., None] * w[f"{at}value_embed.table.weight"][idx_BT].view(v.shape)
    k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for x in (k, v))
    score = torch.einsum("bihe,bjhe->bhij", q, k) / sqrt(asked.head_dim)
    window, reach = asked.window(layer), torch.arange(T)[:, None] - torch.arange(T)
    unseen = (reach < 0) | (reach > (T if window is None else window))
    p = score.masked_fill(unseen, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhij,bjhe->bihe", p, v).flatten(2) @ w[f"{at}o_proj.weight"].T


def logits_of(w: Weights, idx_BT: Tensor, asked: Asked) -> Tensor:
    """(B, T, V)."""
    x = norm(w["wte.weight"][idx_BT])
    if asked.modern:
        gate = (x[:, 1:, :24] @ w["smear.gate.weight"].T).sigmoid()
        x = torch.cat([x[:, :1], x[:, 1:] + w["smear.scale"] * gate * x[:, :-1]], dim=1)
    first = middle = x
    for i in range(asked.depth):
        if asked.modern:
            x = w["residual.a"][i] * x + w["residual.b"][i] * first
        x = x + attention(w, i, norm(x), idx_BT, asked)
        up = norm(x) @ w[f"blocks.{i}.mlp.up.weight"].T
        x = x + up.clamp(min=0) ** 2 @ w[f"blocks.{i}.mlp.down.weight"].T
        if i == asked.depth // 2:
            middle = x
    if asked.modern:
        x = x - w["backout.scale"] * middle
    return 15 * ((norm(x) @ w["lm_head.weight"].T)[..., : asked.vocab] / 15).tanh()


def step_loss(w: Weights, step: Step, asked: Asked) -> Tensor:
    """The mean over all targets of the step, however it is cut."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for inputs, targets in step:
        nll = F.cross_entropy(
            logits_of(w, inputs, asked).flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
        )
        total, count = total + nll, count + int((targets != -1).sum())
    return total / count


def is_matrix(name: str) -> bool:
    """Muon's: the blocks' weights, value gates included, value embeddings not."""
    return name.startswith("blocks.") and not name.endswith("table.weight")


def scaling_parameters(w: Weights) -> int:
    """Matrices of the blocks and the head."""
    return sum(p.numel() for name, p in w.items() if is_matrix(name) or name == "lm_head.weight")


def steps_of(w: Weights, asked: Asked) -> int:
    """floor(ratio * parameters / batch), of all parameters or of those that scale."""
    counted = scaling_parameters(w) if asked.modern else sum(p.numel() for p in w.values())
    return floor(asked.ratio * counted / asked.batch)


def reference_horizon(asked: Asked) -> float:
    """Tokens of the modern network of twelve layers at the same ratio, with a key/value head for each head."""
    width = ceil(12 * asked.aspect_ratio / asked.head_dim) * asked.head_dim
    gates = 6 * 12 * (width // asked.head_dim)
    return asked.ratio * (12 * 12 * width**2 + gates + ceil(asked.vocab / 64) * 64 * width)


def adamw_rule(name: str, asked: Asked) -> tuple[float, tuple[float, float], float]:
    """Learning rate before the batch's factor, betas and decay of what is not a matrix."""
    wide = (asked.width / 768) ** -0.5
    if not asked.modern:
        return wide * {"wte.weight": 0.2, "lm_head.weight": 0.004}[name], (0.8, 0.95), asked.weight_decay
    if name.endswith("value_embed.table.weight"):
        return wide * 0.3 / 2, (0.8, 0.995), 0.01
    return {
        "lm_head.weight": (wide * 0.008, (0.8, 0.96), 0.01),
        "wte.weight": (wide * 0.3, (0.8, 0.995), 0.001),
        "residual.a": (0.5 * 0.01, (0.8, 0.95), 0.05),
        "residual.b": (0.5, (0.96, 0.95), 0.0),
        "smear.gate.weight": (0.2, (0.8, 0.95), 0.0),
        "smear.scale": (0.2, (0.8, 0.95), 0.0),
        "backout.scale": (0.2, (0.8, 0.95), 0.0),
    }[name]


def rate_factor(s: int, total: int, asked: Asked) -> float:
    """Trapezoid after s updates."""
    down = round(asked.warmdown_ratio * total)
    if s < asked.warmup_steps:
        return (s + 1) / asked.warmup_steps
    if s <= total - down:
        return 1.0
    p = (total - s) / down
    return p + (1 - p) * asked.final


def momentum_after(s: int, total: int, asked: Asked) -> float:
    """0.85 -> 0.95; modern 0.85 -> 0.97, then to 0.90 during the warmdown."""
    top, down = (0.97 if asked.modern else 0.95), round(asked.warmdown_ratio * total)
    if s < asked.momentum_warmup:
        return 0.85 + s / asked.momentum_warmup * (top - 0.85)
    if asked.modern and s > total - down:
        return 0.97 + (s - (total - down)) / down * (0.90 - 0.97)
    return top


def frobenius(x: Tensor) -> Tensor:
    return x.pow(2).sum().sqrt()


def with_norm(x: Tensor, new: Tensor | float) -> Tensor:
    """x scaled to the Frobenius norm `new`; a matrix of zeros, which has no direction, stays."""
    return x / frobenius(x).clamp(min=1e-30) * new


def polynomials(x: Tensor, coefficients: Iterable[tuple[float, float, float]]) -> Tensor:
    """Odd quintics of the singular values, one after the other."""
    wide = x.T if x.shape[0] > x.shape[1] else x
    for a, b, c in coefficients:
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide.T if x.shape[0] > x.shape[1] else wide


class PlainMuon:
    """One matrix and its state."""

    def __init__(self, p: Tensor, modern: bool) -> None:
        rows, cols = p.shape
        self.p, self.modern, self.buffer = p, modern, torch.zeros_like(p)
        self.over = 1 if rows >= cols else 0  # NorMuon's means are taken over this axis
        self.square = torch.zeros_like(p.mean(self.over, keepdim=True))

    def update(self, lr: float, momentum: float, decay: float) -> None:
        grad, (rows, cols) = self.p.grad, self.p.shape
        assert grad is not None
        self.buffer = momentum * self.buffer + (1 - momentum) * grad
        u = momentum * self.buffer + (1 - momentum) * grad
        lr = lr * sqrt(max(1, rows / cols))
        if not self.modern:
            self.p -= lr * polynomials(u / (frobenius(u) + 1e-7), NEWTON_SCHULZ)
            return
        u = self.orthogonal(u)
        mean = u.pow(2).mean(self.over, keepdim=True)
        self.square = 0.9 * self.square + 0.1 * mean
        scaled = u / self.square.clamp(min=1e-10).sqrt()
        u = with_norm(scaled, frobenius(u))
        self.p -= lr * (u + decay * self.p * (u * self.p >= 0))

    def orthogonal(self, u: Tensor) -> Tensor:
        """Equal rows, Polar Express, then the Frobenius norm of an orthogonal matrix."""
        length = u.pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-30)
        u = u / length * frobenius(u) / sqrt(len(u))
        u = polynomials(u / (1.01 * frobenius(u) + 1e-6), POLAR_EXPRESS)
        return with_norm(u, sqrt(min(u.shape)))


class PlainTrainer:
    """`losses` is what is asked of it: the loss of each step before its update; `norms` those of the gradients."""

    def __init__(self, start: Weights, asked: Asked, dtype: torch.dtype = torch.float64) -> None:
        self.w = {name: p.detach().to(dtype).clone().requires_grad_() for name, p in start.items()}
        self.asked, self.total = asked, steps_of(start, asked)
        self.grown = sqrt(asked.batch / 2**19) if asked.scaled else 1.0
        shrunk = reference_horizon(asked) / (asked.ratio * scaling_parameters(self.w)) if asked.scaled else 1.0
        self.decay = 0.28 * self.grown * shrunk
        self.muon = [PlainMuon(p, asked.modern) for name, p in self.w.items() if is_matrix(name)]
        self.adamw = torch.optim.AdamW([self.adamw_group(n, p) for n, p in self.w.items() if not is_matrix(n)])
        self.losses: list[float] = []
        self.norms: list[float] = []

    def adamw_group(self, name: str, p: Tensor) -> dict[str, object]:
        lr, betas, decay = adamw_rule(name, self.asked)
        lr *= self.asked.rates_times * (1.0 if name.startswith(("smear", "backout")) else self.grown)
        return {"params": [p], "lr": lr, "peak": lr, "betas": betas, "weight_decay": decay, "eps": 1e-10}

    def train(self, steps: Sequence[Step]) -> None:
        for s, step in enumerate(steps):
            loss = step_loss(self.w, step, self.asked)
            self.adamw.zero_grad()
            for muon in self.muon:
                muon.p.grad = None
            loss.backward()
            bound = self.asked.grad_clip or float("inf")
            self.norms.append(torch.nn.utils.clip_grad_norm_(self.w.values(), bound).item())
            self.losses.append(loss.item())
            with torch.no_grad():
                self.update(s)

    def update(self, s: int) -> None:
        factor = rate_factor(s, self.total, self.asked)
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * factor
        self.adamw.step()
        decay = self.decay * (1 + cos(pi * s / self.total)) / 2
        momentum = momentum_after(s, self.total, self.asked)
        for muon in self.muon:
            muon.update(0.02 * self.asked.rates_times * self.grown * factor, momentum, decay)
