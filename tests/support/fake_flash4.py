"""A stand-in for the package flash-attn-4 on a CPU: the functions that are called, with the arguments they are given.

Forward and backward by formulas of their own, in float64: P = exp(S - lse), dV = P^T dO, dS = P (dP - rowsum(dO O)).
Like the package it returns more than is read of it.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor


def scores(q: Tensor, k: Tensor, causal: bool, left: int | None, right: int | None) -> Tensor:
    """(B, H, T, T) in float64, -inf where a query does not look."""
    length = q.shape[1]
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    s = torch.einsum("bihe,bjhe->bhij", q.double(), k.double()) / q.shape[3] ** 0.5
    for i in range(length):
        for j in range(length):
            too_late = (causal and j > i) or (right is not None and j > i + right)
            if too_late or (left is not None and j < i - left):
                s[:, :, i, j] = float("-inf")
    return s


def fake_module(calls: list[dict[str, Any]]) -> ModuleType:
    """The module flash_attn.cute.interface; what it is asked for is noted in `calls`."""
    module = ModuleType("flash_attn.cute.interface")

    def forward(q: Tensor, k: Tensor, v: Tensor, **asked: Any) -> tuple[Tensor | None, ...]:
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1 and asked.pop("return_lse")
        calls.append(asked)
        s = scores(q, k, asked["causal"], asked["window_size_left"], asked["window_size_right"])
        lse = s.logsumexp(-1)
        shared = v.repeat_interleave(q.shape[2] // v.shape[2], dim=2).double()
        out = torch.einsum("bhij,bjhe->bihe", (s - lse[..., None]).exp(), shared)
        return out.to(q.dtype).contiguous(), lse.float(), None, None, None

    def backward(
        q: Tensor, k: Tensor, v: Tensor, out: Tensor, dout: Tensor, lse: Tensor, **asked: Any
    ) -> tuple[Tensor, ...]:
        calls.append(asked)
        s = scores(q, k, asked["causal"], asked["window_size_left"], asked["window_size_right"])
        p, group = (s - lse.double()[..., None]).exp(), q.shape[2] // k.shape[2]
        shared_k, shared_v = (x.repeat_interleave(group, dim=2).double() for x in (k, v))
        dout_d, rowsum = dout.double(), (dout.double() * out.double()).sum(-1).transpose(1, 2)
        ds = p * (torch.einsum("bihe,bjhe->bhij", dout_d, shared_v) - rowsum[..., None]) / q.shape[3] ** 0.5
        dq = torch.einsum("bhij,bjhe->bihe", ds, shared_k)
        dk, dv = torch.einsum("bhij,bihe->bjhe", ds, q.double()), torch.einsum("bhij,bihe->bjhe", p, dout_d)
        dk, dv = (x.unflatten(2, (-1, group)).sum(3) for x in (dk, dv))
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)

    module._flash_attn_fwd, module._flash_attn_bwd = forward, backward  # type: ignore[attr-defined]
    return module
