"""Out of memory, in words: which batch size did not fit, and which to try."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nanochat.errors import NanochatError

# What torch says where it has no exception of its own: the CPU allocator, MPS, CUDA's libraries.
_SIGNS = ("not enough memory", "out of memory", "alloc_failed", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what a full device, or a full machine, raises."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def explain_out_of_memory(
    rows: int, seq_len: int, device: str, checkpointing: bool, cheap: bool = True
) -> Iterator[None]:
    """Within the block micro-batches of `rows` rows of `seq_len` tokens are computed. NanochatError if none fits.

    `cheap`: whether what is cheap is recomputed already, so that to ask for it would not help.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise NanochatError(
            f"out of memory on {device}: train.device_batch_size={rows} rows of {seq_len:,} tokens do not fit; try "
            f"{_what_to_try(rows, checkpointing, cheap)}. A run that has a checkpoint continues from it"
        ) from error


def _what_to_try(rows: int, checkpointing: bool, cheap: bool) -> str:
    smaller = [str(rows >> i) for i in range(1, rows.bit_length())]
    tries = [] if checkpointing or cheap else ["runtime.recompute_cheap=true"]
    tries += [f"train.device_batch_size={' or '.join(smaller[:3])} (the same steps, in more pieces)"] if smaller else []
    tries += [] if checkpointing else ["runtime.activation_checkpointing=true"]
    tries += [] if smaller else ["another run with a smaller model.max_seq_len or model.depth"]
    return ", or ".join(tries)
