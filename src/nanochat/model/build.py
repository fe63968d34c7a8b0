"""From dimensions to a network with numbers in it, on its device and in its precision."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from nanochat.model.fp8 import fits
from nanochat.model.gpt import GPT
from nanochat.model.layers import Embedding, Linear
from nanochat.plan.dims import ModelDims


def build_model(
    dims: ModelDims, device: str, dtype: str, seed: int, meanwhile: Callable[[], None] = lambda: None
) -> GPT:
    """A freshly initialised GPT on `device`, computing in `dtype` ("float32", "bfloat16" or "float16").

    Built on the meta device first, so that no memory is spent on numbers that init_weights replaces.
    Only embedding tables are stored in `dtype`; matrices and head stay fp32 and are cast when used. With float16, whose
    range is too small for an update, the tables are fp32 too. `meanwhile` is called while numbers are drawn: for all
    parameters from one generator, so by one thread, which needs no Python for it.
    """
    with torch.device("meta"):
        model = GPT(dims)
    model.compute_as = torch.float16 if dtype == "float16" else None
    for module in model.modules():
        if isinstance(module, Embedding) and model.compute_as is None:
            module.to(getattr(torch, dtype))
    model.to_empty(device=torch.device(device))
    with ThreadPoolExecutor(max_workers=1) as drawing:
        drawn = drawing.submit(model.init_weights, seed)
        meanwhile()
    drawn.result()
    return model


def use_fp8(model: GPT) -> None:
    """Lets the products of training be in 8 bits where the sizes of a matrix allow it; no parameter changes."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.fp8 = fits(module.in_features, module.out_features)
