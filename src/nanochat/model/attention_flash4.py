"""FlashAttention-4 (package flash-attn-4, extra [flash]) as an operator that the compiler knows.

B batch, T time, H query heads, K key/value heads, E head width. Notable: the package compiles its kernels by itself,
while torch's compiler must not look inside; so forward and backward are two custom operators with shapes of their own.
Nothing of the package is imported before the first call. It is a pre-release whose functions return more or less from
version to version: only what stands in front is read.
"""

import importlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MODULE = "flash_attn.cute.interface"


def flash4_problem() -> str | None:
    """Why the package cannot be used here, or None. Imports it, which takes seconds where it is there."""
    try:
        module = _interface()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "flash_attn":
            return "the package flash-attn-4 is not installed"
        return f"the package flash-attn-4 needs {error.name}, which is not installed"
    except Exception as error:  # its own dependencies fail in many ways, all of which mean that it is not to be had
        return f"the package flash-attn-4 cannot be imported ({' '.join(str(error).split())[:200]})"
    there = hasattr(module, "_flash_attn_fwd") and hasattr(module, "_flash_attn_bwd")
    return None if there else "the package flash-attn-4 has another interface than the versions this was written for"


def _interface() -> Any:
    # Its kernels take seconds each to compile. It keeps them only where this says so, as machine code.
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(flash4_cache()))
    return importlib.import_module(_MODULE)


def flash4_cache() -> Path:
    """Where its kernels are kept: a folder of the user, since the package's own choice is one others may write to."""
    asked = os.environ.get("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(asked) if asked else cache / "nanochat" / "flash4"


def call_forward(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    """(what is read, log-sum-exp) as the package returns them; on fake tensors it only compiles."""
    out, lse, *_ = _interface()._flash_attn_fwd(
        q, k, v, causal=True, window_size_left=window, window_size_right=0, return_lse=True
    )
    return out, lse


def call_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v as the package returns them; on fake tensors it only compiles."""
    dq, dk, dv, *_ = _interface()._flash_attn_bwd(
        q, k, v, out, grad, lse, causal=True, window_size_left=window, window_size_right=0
    )
    return dq, dk, dv


@torch.library.custom_op(
    "nanochat::flash4", mutates_args=(), schema="(Tensor q, Tensor k, Tensor v, int? window) -> (Tensor, Tensor)"
)
def flash4(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    """(what is read, log-sum-exp of the scores (B, H, T) in fp32). The query at i sees the keys i - window .. i."""
    out, lse = call_forward(q_BTHE, k_BTKE, v_BTKE, window)
    return out.contiguous(), lse.contiguous()


@flash4.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    rows, length, heads, _ = q.shape
    out = q.new_empty(rows, length, heads, v.shape[3])
    return out, q.new_empty((rows, heads, length), dtype=torch.float32)


@torch.library.custom_op(
    "nanochat::flash4_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, int? window) "
    "-> (Tensor, Tensor, Tensor)",
)
def flash4_backward(
    grad_BTHE: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    dq, dk, dv = call_backward(grad_BTHE.contiguous(), q, k, v, out, lse, window)
    return dq.contiguous(), dk.contiguous(), dv.contiguous()


@flash4_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, ctx.window = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_out: Tensor, _grad_lse: Tensor | None) -> tuple[Tensor, Tensor, Tensor, None]:
    return (*flash4_backward(grad_out, *ctx.saved_tensors, ctx.window), None)


flash4.register_autograd(_backward, setup_context=_keep)
