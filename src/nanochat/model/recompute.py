"""What the backward pass computes again instead of keeping: nothing, what is cheap, or whole blocks.

B batch, T time, D width. Notable: left to itself the compiler keeps about 20 tensors of (B, T, D) for a block: also the
input of every product and the fp32 numbers inside of norms and rotary embeddings. `cheap` keeps exactly what products
and attention return and the block's input, 10 such tensors; all else is recomputed, in the kernels that need it. With
fused kernels (stream_ops.py) it is 14 and 10: the square of the relu is kept instead of what is before it. So what a
run keeps is known before it starts (plan/memory.py). The numbers are the same, to the bit where kernels are.
"""

from collections.abc import Callable
from enum import StrEnum, auto
from functools import partial
from hashlib import sha256
from inspect import getsource
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from nanochat.model.stream import RECOMPUTED

_aten = torch.ops.aten
# Products and attention: what takes time, and is not a kernel of this project or of another package.
_DEAR = {
    _aten.mm.default,
    _aten.bmm.default,
    _aten.addmm.default,
    _aten._scaled_mm.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
}


class Recompute(StrEnum):
    """What is recomputed: nothing on purpose; all but products and attention; everything between blocks."""

    nothing = auto()
    cheap = auto()
    blocks = auto()


def run_block(how: Recompute, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """block(*inputs), with as much kept for the backward pass as `how` says."""
    if how == Recompute.nothing or not torch.is_grad_enabled():
        return block(*inputs)
    # There is nothing random in a block, and to save the state of the generator would be a read from the device. What
    # is kept may be written to, as by the relu: what it does twice is what it does once.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if how == Recompute.cheap:
        options["context_fn"] = _CONTEXTS
    out: Tensor = checkpoint(block, *inputs, **options)
    return out


def _policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    own = getattr(op, "namespace", "aten") not in ("aten", "prims", "prim")
    dear = op in _DEAR or (own and op not in RECOMPUTED)
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE


def _decides() -> str:
    """A hash of what decides what is kept: torch keeps the traced graph on disk for as long as it stays the same."""
    names = [*sorted(str(op) for op in _DEAR), "", *sorted(str(op) for op in RECOMPUTED), getsource(_policy)]
    return sha256("\n".join(names).encode()).hexdigest()


# Made here, since the compiler takes nothing with a hash of its own that is made while it traces.
_CONTEXTS = partial(create_selective_checkpoint_contexts, _policy, allow_cache_entry_mutation=True)
_CONTEXTS.cache_hash = _decides()  # type: ignore[attr-defined]
