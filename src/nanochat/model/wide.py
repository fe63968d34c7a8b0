"""What is fp32 though its input is 16 bits: dtypes, and products, whose sums the hardware has in fp32 before it rounds.

A gradient that is summed over the chunks of a micro-batch would lose, rounded to 16 bits each time, what is small.
"""

from functools import cache

import torch
from torch import Tensor


def wide(x: Tensor) -> torch.dtype:
    """fp32, or the dtype of x where that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


def wide_product(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """a b, at least fp32."""
    if a_MK.element_size() > 2:
        return a_MK @ b_KN
    if a_MK.is_cuda and torch.version.hip is None:
        return torch.mm(a_MK, b_KN, out_dtype=torch.float32)
    return a_MK.float() @ b_KN.float()  # there is no such product on a CPU, nor in every version for AMD's GPUs


def add_product(sum_MN: Tensor, a_MK: Tensor, b_KN: Tensor) -> None:
    """sum += a b, in the precision of the sum; without a pass over the sum of its own where torch knows how."""
    if a_MK.dtype == sum_MN.dtype:
        sum_MN.addmm_(a_MK, b_KN)
    elif _adds(a_MK.device, a_MK.dtype):
        torch.addmm(sum_MN, a_MK, b_KN, out_dtype=sum_MN.dtype, out=sum_MN)
    else:
        sum_MN += wide_product(a_MK, b_KN)


@cache
def _adds(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch adds a product of 16 bits to fp32 numbers, found by asking for one."""
    ones, into = torch.ones(16, 16, device=device, dtype=dtype), torch.ones(16, 16, device=device)
    try:
        torch.addmm(into, ones, ones, out_dtype=torch.float32, out=into)
    except (NotImplementedError, RuntimeError, TypeError):
        return False
    return bool((into == 17).all())
