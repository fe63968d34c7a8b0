"""The smallest network with a head: a table whose row x is the logits of what follows token x."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from nanochat.model.layers import Linear


class Bigram(nn.Module):
    """`weight` (V, V) is all that is learned; the head is the identity."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab, vocab))
        self.lm_head = Linear(vocab, vocab)
        self.lm_head.weight = nn.Parameter(torch.eye(vocab), requires_grad=False)
        self.dims: Any = SimpleNamespace(vocab_size=vocab, logit_softcap=0.0)

    def hidden(self, idx_BT: Tensor) -> Tensor:
        return self.weight[idx_BT]

    def forward(self, idx_BT: Tensor) -> Tensor:
        return self.weight[idx_BT]
