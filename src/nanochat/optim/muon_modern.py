"""Muon with what was published around it until 2026: `optim=muon_modern`.

    g -> momentum -> rows of equal length -> orthogonal (Polar Express) -> norm sqrt(min(R, C)) -> neurons of equal size
    -> p -= lr * (u + wd * p where u and p have one sign)

N matrices of a stack, R rows, C columns. Sources: row equilibration MuonEq (2603.28254); the coefficients, each step
with its own, Polar Express (2505.16932); the norm Muon+ (2602.21545); the sizes of neurons NorMuon (2510.05491); decay
only where the update does not work against it, cautious decay. Notable: all but the products is in the parameter's
dtype; a gradient of zeros moves nothing but by decay.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from nanochat.optim.muon import nesterov_, orthogonalize, shape_factor, zeros_for
from nanochat.optim.rule import Number, Rule
from nanochat.plan.schedules import StepRates

# For singular values up to 1/1.01, from the published system; the optimum of each step is that of 2505.16932.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
MARGIN = 1.01  # bf16 may round a singular value of 1 up, and beyond 1 the first step diverges
NORM_EPS = 1e-6
TINY = 1e-20  # instead of the length of a row that has none
VARIANCE_FLOOR = 1e-10


@dataclass(frozen=True)
class MuonModernSettings:
    """What stays the same over a run. `lr` and `weight_decay` are the peaks, `momentum` for steps that name none."""

    lr: float
    weight_decay: float
    momentum: float
    ns_steps: int
    ns_dtype: torch.dtype
    variance_beta: float


class MuonModernGroup:
    """Matrices of one shape, their momentum (N, R, C), and a running mean square for each row or column of them."""

    def __init__(self, members: dict[str, Tensor], settings: MuonModernSettings, compiled: bool = False) -> None:
        """All members have one shape (see muon.stacks); the state starts at 0."""
        self.members = members
        self.settings = settings
        self.buffer_NRC = zeros_for(members)
        # A slice of it has the shape: one number for each row, or for each column.
        self.mean_square = torch.zeros_like(self.buffer_NRC.narrow(neuron_axis(self.buffer_NRC), 0, 1).contiguous())
        self._rule = Rule(muon_modern_, self.buffer_NRC.device, compiled)

    def update(self, grads: dict[str, Tensor], step: int, rates: StepRates) -> None:
        """One step in place. A momentum of None means the settings' value."""
        settings = self.settings
        self._rule(
            list(self.members.values()),
            [grads[name] for name in self.members],
            self.buffer_NRC,
            self.mean_square,
            settings.ns_steps,
            settings.ns_dtype,
            settings.variance_beta,
            momentum=settings.momentum if rates.momentum is None else rates.momentum,
            rate=settings.lr * rates.lr_factor * shape_factor(self.buffer_NRC),
            decay=settings.weight_decay * rates.decay_factor,
        )

    def state_tensors(self) -> dict[str, Tensor]:
        """ "{parameter}/momentum" (R, C), "{parameter}/mean_square" (R, 1) or (1, C); views of the stacks."""
        state = {f"{name}/momentum": self.buffer_NRC[i] for i, name in enumerate(self.members)}
        return state | {f"{name}/mean_square": self.mean_square[i] for i, name in enumerate(self.members)}


def muon_modern_(
    params: list[Tensor],
    grads: list[Tensor],
    buffer_NRC: Tensor,
    mean_square: Tensor,
    ns_steps: int,
    ns_dtype: torch.dtype,
    variance_beta: float,
    *,
    momentum: Number,
    rate: Number,
    decay: Number,
) -> None:
    """p -= rate * (u + decay * p * [u * p >= 0]), in place."""
    x_NRC = equilibrate(nesterov_(buffer_NRC, torch.stack(grads), momentum))
    x_NRC = orthogonalize(x_NRC, POLAR_EXPRESS[:ns_steps], ns_dtype, margin=MARGIN, eps=NORM_EPS)
    x_NRC = with_norm(x_NRC.to(buffer_NRC.dtype), sqrt(min(x_NRC.shape[-2:])))
    x_NRC = even_neurons_(x_NRC, mean_square, variance_beta)
    p_NRC = torch.stack(params)
    update_NRC = (x_NRC + decay * p_NRC * (x_NRC * p_NRC >= 0)) * rate
    torch._foreach_sub_(params, list(update_NRC.unbind(0)))


def equilibrate(x_NRC: Tensor) -> Tensor:
    """Every row of a matrix gets the length Frobenius / sqrt(rows), so that the norm stays."""
    length: Tensor = torch.linalg.matrix_norm(x_NRC, keepdim=True) / sqrt(x_NRC.shape[-2])
    rows: Tensor = torch.linalg.vector_norm(x_NRC, dim=-1, keepdim=True)
    return x_NRC * (length / rows.clamp_min(TINY))


def with_norm(x_NRC: Tensor, norm: Number) -> Tensor:
    """Every matrix scaled to this Frobenius norm; one of zeros stays so."""
    own: Tensor = torch.linalg.matrix_norm(x_NRC, keepdim=True)
    scale: Tensor = norm / own.clamp_min(TINY)
    return x_NRC * scale


def neuron_axis(x_NRC: Tensor) -> int:
    """Over which axis a neuron's mean square is taken: the columns, or the rows where there are more columns."""
    return -1 if x_NRC.shape[-2] >= x_NRC.shape[-1] else -2


def even_neurons_(x_NRC: Tensor, mean_square: Tensor, beta: float) -> Tensor:
    """x / sqrt(running mean square of its neuron), at the norm of x; `mean_square` is carried on in place."""
    mean_square.lerp_(x_NRC.square().mean(neuron_axis(x_NRC), keepdim=True), 1 - beta)
    scaled_NRC = x_NRC * mean_square.clamp_min(VARIANCE_FLOOR).rsqrt()
    return with_norm(scaled_NRC, torch.linalg.matrix_norm(x_NRC, keepdim=True))
