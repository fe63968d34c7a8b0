"""The global random generators, for whatever draws without one of its own."""

import random

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Python, numpy and torch on every device. `seed` in [0, 2^63)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
