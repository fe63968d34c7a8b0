import json
import random

import numpy as np
import torch

from nanochat.checkpoint.rng import capture_rng, restore_rng


def draw() -> list[float]:
    """Some numbers of every generator; an odd number of normals leaves each with one in its cache."""
    values = [random.random(), random.gauss(), np.random.standard_normal(), np.random.rand(), torch.rand(()).item()]
    return [*values, float(torch.randint(1000, ())), torch.randn(17)[-1].item()]


def test_every_generator_continues_after_a_round_trip_through_json() -> None:
    draw()
    state = json.loads(json.dumps(capture_rng(), allow_nan=False))
    first = [draw() for _ in range(3)]
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    draw()
    restore_rng(state)
    assert [draw() for _ in range(3)] == first


def test_cuda_states_are_left_out_where_there_are_fewer_devices() -> None:
    state = capture_rng()
    first = draw()
    missing = torch.cuda.device_count() if torch.cuda.is_available() else 0
    restore_rng({**state, "cuda": [*state["cuda"][:missing], state["torch"]]})
    assert draw() == first
