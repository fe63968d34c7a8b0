"""What stands between the products of a training step, as operators that the compiler does not look into.

B batch, T time, D width, H query heads, K key/value heads, E head width, N = B*T. Notable: the compiler's own kernels
for these pass over memory about twice as often as they need to, forward, and more in the backward pass; here each is
one kernel each way (stream_kernels.py). On other devices than CUDA the same operators are plain operations, so that
what is tested there is what runs here: the derivatives, the shapes, and what is kept. Inside, all is computed in fp32
at least. What an operator keeps is what is kept or recomputed anyway: its inputs, or the square of the relu. Kernels
are imported where they run: Triton is not everywhere.
"""

from typing import Any

import torch
from torch import Tensor

from nanochat.model.layers import apply_rotary
from nanochat.model.wide import wide

Pair = tuple[Tensor, Tensor]


def _wide(x: Tensor) -> Tensor:
    return x.to(wide(x))


def _normed(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _norm_slope(grad: Tensor, x: Tensor, eps: float) -> Tensor:
    """The gradient of x from that of x / s with s = sqrt(mean(x^2) + eps): (g - x mean(g x) / s^2) / s."""
    inverse = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return inverse * (grad - x * inverse.square() * (grad * x).mean(-1, keepdim=True))


@torch.library.custom_op(
    "nanochat::turn",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor cos, Tensor signed_sin, float eps, float scale) -> (Tensor, Tensor)",
)
def turn(q_BTHE: Tensor, k_BTKE: Tensor, cos_T1E: Tensor, signed_sin_T1E: Tensor, eps: float, scale: float) -> Pair:
    """Queries and keys after rotary, norm and scale, in their dtype. The tables are those of `rotary_tables`."""
    if q_BTHE.is_cuda:
        from nanochat.model import stream_kernels as kernels

        return kernels.turn(q_BTHE, k_BTKE, cos_T1E, signed_sin_T1E, eps, scale)
    q, k = (
        (_normed(apply_rotary(_wide(x), _wide(cos_T1E), _wide(signed_sin_T1E)), eps) * scale).to(x.dtype)
        for x in (q_BTHE, k_BTKE)
    )
    return q, k


@turn.register_fake
def _(q: Tensor, k: Tensor, cos: Tensor, signed_sin: Tensor, eps: float, scale: float) -> Pair:
    return q.new_empty(q.shape), k.new_empty(k.shape)


@torch.library.custom_op(
    "nanochat::turn_backward",
    mutates_args=(),
    schema="(Tensor grad_q, Tensor grad_k, Tensor q, Tensor k, Tensor cos, Tensor signed_sin, float eps, float scale) "
    "-> (Tensor, Tensor)",
)
def turn_backward(
    grad_q: Tensor, grad_k: Tensor, q: Tensor, k: Tensor, cos: Tensor, signed_sin: Tensor, eps: float, scale: float
) -> Pair:
    """The gradients of q and k: that of the norm, turned back by the negative angle."""
    if q.is_cuda:
        from nanochat.model import stream_kernels as kernels

        return kernels.turn_backward(grad_q, grad_k, q, k, cos, signed_sin, eps, scale)
    cos, signed_sin = _wide(cos), _wide(signed_sin)
    dq, dk = (
        apply_rotary(scale * _norm_slope(_wide(g), apply_rotary(_wide(x), cos, signed_sin), eps), cos, -signed_sin)
        for g, x in ((grad_q, q), (grad_k, k))
    )
    return dq.to(q.dtype), dk.to(k.dtype)


@turn_backward.register_fake
def _(
    grad_q: Tensor, grad_k: Tensor, q: Tensor, k: Tensor, cos: Tensor, signed_sin: Tensor, eps: float, scale: float
) -> Pair:
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _keep_turn(ctx: Any, inputs: tuple[Any, ...], output: Pair) -> None:
    *tensors, ctx.eps, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _turn_gradients(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor | None, ...]:
    return (*turn_backward(grad_q, grad_k, *ctx.saved_tensors, ctx.eps, ctx.scale), None, None, None, None)


turn.register_autograd(_turn_gradients, setup_context=_keep_turn)


@torch.library.custom_op("nanochat::norm", mutates_args=(), schema="(Tensor x, float eps) -> Tensor")
def norm(x_BTD: Tensor, eps: float) -> Tensor:
    """rms_norm(x), without a derivative: `fork_norm` has it."""
    if x_BTD.is_cuda:
        from nanochat.model import stream_kernels as kernels

        return kernels.norm(x_BTD, eps)
    return _normed(_wide(x_BTD), eps).to(x_BTD.dtype)


@norm.register_fake
def _(x: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op(
    "nanochat::norm_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor grad_normed, Tensor x, float eps) -> Tensor",
)
def norm_backward(grad: Tensor, grad_normed: Tensor, x: Tensor, eps: float) -> Tensor:
    """The gradient of x from that of x, where it was read beside its norm, and that of its norm."""
    if x.is_cuda:
        from nanochat.model import stream_kernels as kernels

        return kernels.norm_backward(grad, grad_normed, x, eps)
    return (_wide(grad) + _norm_slope(_wide(grad_normed), _wide(x), eps)).to(x.dtype)


@norm_backward.register_fake
def _(grad: Tensor, grad_normed: Tensor, x: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


class _ForkNorm(torch.autograd.Function):
    """Not an operator, which could not return what it was given."""

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, eps: float) -> Pair:
        ctx.save_for_backward(x_BTD)
        ctx.eps = eps
        return x_BTD.view_as(x_BTD), norm(x_BTD, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return norm_backward(*grads, *ctx.saved_tensors, ctx.eps), None


def fork_norm(x_BTD: Tensor, eps: float) -> Pair:
    """(x, rms_norm(x)): who reads this x instead of the other leaves the sum of both gradients to the norm's kernel."""
    out: Pair = _ForkNorm.apply(x_BTD, eps)  # type: ignore[no-untyped-call]
    return out


@torch.library.custom_op(
    "nanochat::add_norm", mutates_args=(), schema="(Tensor x, Tensor y, float eps) -> (Tensor, Tensor)"
)
def add_norm(x_BTD: Tensor, y_BTD: Tensor, eps: float) -> Pair:
    """(x + y, rms_norm(x + y)); the sum is rounded before the norm."""
    if x_BTD.is_cuda:
        from nanochat.model import stream_kernels as kernels

        return kernels.add_norm(x_BTD, y_BTD, eps)
    total_BTD = x_BTD + y_BTD
    return total_BTD, _normed(_wide(total_BTD), eps).to(x_BTD.dtype)


@add_norm.register_fake
def _(x: Tensor, y: Tensor, eps: float) -> Pair:
    return x.new_empty(x.shape), x.new_empty(x.shape)


def _keep_sum(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Pair) -> None:
    ctx.eps = inputs[2]
    ctx.save_for_backward(output[0])


def _add_norm_gradients(ctx: Any, grad: Tensor, grad_normed: Tensor) -> tuple[Tensor, Tensor, None]:
    slope = norm_backward(grad, grad_normed, *ctx.saved_tensors, ctx.eps)
    return slope, slope, None


add_norm.register_autograd(_add_norm_gradients, setup_context=_keep_sum)


@torch.library.custom_op(
    "nanochat::mix_norm",
    mutates_args=(),
    schema="(Tensor x, Tensor first, Tensor a, Tensor b, float eps) -> (Tensor, Tensor)",
)
def mix_norm(x_BTD: Tensor, first_BTD: Tensor, a: Tensor, b: Tensor, eps: float) -> Pair:
    """(a x + b x0, its rms_norm) with 0-d factors; the sum is rounded before the norm."""
    if x_BTD.is_cuda:
        from nanochat.model import stream_kernels as kernels

        return kernels.mix_norm(x_BTD, first_BTD, a, b, eps)
    mixed_BTD = (a * _wide(x_BTD) + b * _wide(first_BTD)).to(x_BTD.dtype)
    return mixed_BTD, _normed(_wide(mixed_BTD), eps).to(x_BTD.dtype)


@mix_norm.register_fake
def _(x: Tensor, first: Tensor, a: Tensor, b: Tensor, eps: float) -> Pair:
    return x.new_empty(x.shape), x.new_empty(x.shape)


@torch.library.custom_op(
    "nanochat::mix_norm_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor grad_normed, Tensor x, Tensor first, Tensor a, Tensor b, float eps) "
    "-> (Tensor, Tensor, Tensor)",
)
def mix_norm_backward(
    grad: Tensor, grad_normed: Tensor, x: Tensor, first: Tensor, a: Tensor, b: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x and x0, and for each row what it adds to those of a and b: (2, N), not rounded to 16 bits."""
    if x.is_cuda:
        from nanochat.model import stream_kernels as kernels

        return kernels.mix_norm_backward(grad, grad_normed, x, first, a, b, eps)
    wide_x, wide_first = _wide(x), _wide(first)
    mixed = (a * wide_x + b * wide_first).to(x.dtype)
    slope = _wide(grad) + _norm_slope(_wide(grad_normed), _wide(mixed), eps)
    parts_2N = torch.stack([(slope * source).sum(-1).flatten() for source in (wide_x, wide_first)])
    return (a * slope).to(x.dtype), (b * slope).to(x.dtype), parts_2N


@mix_norm_backward.register_fake
def _(
    grad: Tensor, grad_normed: Tensor, x: Tensor, first: Tensor, a: Tensor, b: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape), x.new_empty((2, x.shape[:-1].numel()), dtype=wide(x))


def _keep_mix(ctx: Any, inputs: tuple[Any, ...], output: Pair) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _mix_norm_gradients(ctx: Any, grad: Tensor, grad_normed: Tensor) -> tuple[Tensor | None, ...]:
    x, first, a, b = ctx.saved_tensors
    dx, d_first, parts_2N = mix_norm_backward(grad, grad_normed, x, first, a, b, ctx.eps)
    da, db = parts_2N.sum(1)
    return dx, d_first, da.to(a.dtype), db.to(b.dtype), None


mix_norm.register_autograd(_mix_norm_gradients, setup_context=_keep_mix)


@torch.library.custom_op("nanochat::relu_squared", mutates_args=(), schema="(Tensor u) -> Tensor")
def relu_squared(u: Tensor) -> Tensor:
    """relu(u)^2, which alone is kept: the product behind it needs it too, and its root is the relu. Not for float16,
    where squares of small numbers are 0.
    """
    if u.is_cuda:
        from nanochat.model import stream_kernels as kernels

        return kernels.relu_squared(u)
    return u.relu().square()


@relu_squared.register_fake
def _(u: Tensor) -> Tensor:
    return u.new_empty(u.shape)


@torch.library.custom_op("nanochat::relu_squared_backward", mutates_args=(), schema="(Tensor grad, Tensor y) -> Tensor")
def relu_squared_backward(grad: Tensor, squared: Tensor) -> Tensor:
    """The gradient of u: 2 relu(u) grad."""
    if squared.is_cuda:
        from nanochat.model import stream_kernels as kernels

        return kernels.relu_squared_backward(grad, squared)
    return (_wide(grad) * 2 * _wide(squared).sqrt()).to(squared.dtype)


@relu_squared_backward.register_fake
def _(grad: Tensor, squared: Tensor) -> Tensor:
    return squared.new_empty(squared.shape)


def _keep_squared(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(output)


def _relu_squared_gradient(ctx: Any, grad: Tensor) -> Tensor:
    out: Tensor = relu_squared_backward(grad, *ctx.saved_tensors)
    return out


relu_squared.register_autograd(_relu_squared_gradient, setup_context=_keep_squared)
