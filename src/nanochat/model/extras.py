"""What `model=modern` adds between and beside the blocks; each part exists only where its key is on.

B batch, T time, D width, K key/value heads, E head width, L layers. Notable: every part starts near doing nothing,
or at a fixed mixture, so that a network with it learns no slower at first than one without. Scalars are read as 0-d
tensors: they multiply bfloat16 activations without widening them, and nothing waits for the device.
"""

import torch
from torch import Tensor, nn

from nanochat.model.layers import Embedding, Linear
from nanochat.plan.dims import SMEAR_GATE_WIDTH, VALUE_GATE_WIDTH, ModelDims

Mix = tuple[Tensor, Tensor, Tensor]
"""(a, b, x0): a block reads a * x + b * x0."""


class ValueEmbedding(nn.Module):
    """values += 3 * sigmoid(gate) * embedding of the token; a gate for each key/value head, from the block's input.

    An idea of value residual learning (2410.17897), with a table instead of the first layer's values.
    """

    def __init__(self, dims: ModelDims) -> None:
        """Not filled."""
        super().__init__()
        self.table = Embedding(dims.table_rows, dims.n_kv_head * dims.head_dim)
        self.gate = Linear(VALUE_GATE_WIDTH, dims.n_kv_head)

    def forward(self, v_BTKE: Tensor, x_BTD: Tensor, idx_BT: Tensor) -> Tensor:
        """Values with the embedding added; x is the normed input of the block."""
        gate_BTK1 = 3 * torch.sigmoid(self.gate(x_BTD[..., :VALUE_GATE_WIDTH])).unsqueeze(-1)
        added_BTKE: Tensor = gate_BTK1 * self.table(idx_BT).to(v_BTKE.dtype).view(v_BTKE.shape)
        return v_BTKE + added_BTKE


class ResidualScalars(nn.Module):
    """Two numbers a layer: what the stream counts, and what the embedding counts that is mixed in again."""

    def __init__(self, dims: ModelDims) -> None:
        """Not filled."""
        super().__init__()
        self.a = nn.Parameter(torch.empty(dims.n_layer))
        self.b = nn.Parameter(torch.empty(dims.n_layer))

    def mix(self, layer: int, first_BTD: Tensor) -> Mix:
        """What `mixed` needs before block `layer`."""
        return self.a[layer], self.b[layer], first_BTD


def mixed(x_BTD: Tensor, mix: Mix | None) -> Tensor:
    """a * x + b * x0; x itself where there are no residual scalars."""
    if mix is None:
        return x_BTD
    a, b, first_BTD = mix
    return a * x_BTD + b * first_BTD


class Smear(nn.Module):
    """x_t += scale * sigmoid(gate(x_t)) * x_{t-1}, both before smearing: a cheap look at the token before."""

    def __init__(self) -> None:
        """Not filled."""
        super().__init__()
        self.gate = Linear(SMEAR_GATE_WIDTH, 1)
        self.scale = nn.Parameter(torch.empty(1))

    def forward(self, x_BTD: Tensor, previous_BTD: Tensor) -> Tensor:
        """`previous` is x of the token before each, 0 where there is none."""
        gate_BT1 = torch.sigmoid(self.gate(x_BTD[..., :SMEAR_GATE_WIDTH]))
        return x_BTD + self.scale[0] * gate_BT1 * previous_BTD


class Backout(nn.Module):
    """x -= scale * output of the middle block: what only the first half had to know need not reach the head."""

    def __init__(self) -> None:
        """Not filled."""
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1))

    def forward(self, x_BTD: Tensor, middle_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return x_BTD - self.scale[0] * middle_BTD
