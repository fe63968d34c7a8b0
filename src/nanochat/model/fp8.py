"""Products in 8-bit floats: twice the rate of bfloat16 on GPUs that have them, at the cost of precision.

N tokens, D inputs, O outputs. One scale a tensor, from its own largest number, anew at each use (Micikevicius et al.,
2209.05433): weights and activations as e4m3 (3 bits of mantissa), gradients as e5m2 (2 bits, but the range of float16).
Sums are kept in more than 8 bits by the hardware. Notable: what is 8 bits wide lives for one product; weights stay
fp32, under their names. Only the transposes that the hardware asks for are copied. torchao's float8 has the same
arithmetic, but it evaluates in 8 bits too and has no way into the chunks of head.py.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16  # of both sizes of every matrix in a product: the hardware reads 16 bytes at a time
SMALLEST = 1e-12  # largest number of a tensor of zeros, so that its scale is finite


class Quantized(NamedTuple):
    """`values` in 8 bits; times `unit`, fp32 and 0-d, they are the numbers meant."""

    values: Tensor
    unit: Tensor

    def transposed(self) -> "Quantized":
        """The same matrix with its columns in memory one after another."""
        return Quantized(self.values.t().contiguous(), self.unit)


def quantize(x: Tensor, dtype: torch.dtype, unit: Tensor | None = None) -> Quantized:
    """x in 8 bits, its largest number at the end of the range; with the `unit` of an earlier call, the same again."""
    if unit is None:
        unit = x.abs().amax().float().clamp(min=SMALLEST) / torch.finfo(dtype).max
    return Quantized((x.float() / unit).to(dtype), unit)


def product(
    a_MK: Quantized, b_NK: Quantized, dtype: torch.dtype, *, fast: bool = False, out: Tensor | None = None
) -> Tensor:
    """a b^T (M, N) in `dtype`, in `out` if given. `fast`: the hardware sums in fewer bits, enough for activations."""
    into = {} if out is None else {"out": out}
    return torch._scaled_mm(
        a_MK.values,
        b_NK.values.t(),
        scale_a=a_MK.unit,
        scale_b=b_NK.unit,
        out_dtype=dtype,
        use_fast_accum=fast,
        **into,
    )


def fits(*sizes: int) -> bool:
    """Whether matrices of these sizes can be multiplied in 8 bits."""
    return all(size % MULTIPLE == 0 for size in sizes)


class _Linear(torch.autograd.Function):
    """x W^T, the three products of forward and backward in 8 bits."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_OD: Tensor) -> Tensor:
        x, weight = quantize(x_ND, E4M3), quantize(weight_OD, E4M3)
        ctx.save_for_backward(x.values, x.unit, weight_OD, weight.unit)  # the weight is in memory anyway
        return product(x, weight, x_ND.dtype, fast=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x_values, x_unit, weight_OD, weight_unit = ctx.saved_tensors
        grad = quantize(grads[0], E5M2)
        weight = quantize(weight_OD, E4M3, weight_unit)
        grad_x_ND = product(grad, weight.transposed(), grads[0].dtype)
        grad_weight_OD = product(grad.transposed(), Quantized(x_values, x_unit).transposed(), torch.float32)
        return grad_x_ND, grad_weight_OD.to(weight_OD.dtype)


def fp8_linear(x: Tensor, weight_OD: Tensor) -> Tensor:
    """(..., D) -> (..., O) in the dtype of x. N, D and O must be multiples of 16."""
    out_NO: Tensor = _Linear.apply(x.flatten(0, -2), weight_OD)  # type: ignore[no-untyped-call]
    return out_NO.view(*x.shape[:-1], len(weight_OD))
