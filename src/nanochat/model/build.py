"""From dimensions to a network with numbers in it, on its device and in its precision."""

import torch

from nanochat.model.gpt import GPT
from nanochat.model.layers import Embedding
from nanochat.plan.dims import ModelDims


def build_model(dims: ModelDims, device: str, dtype: str, seed: int) -> GPT:
    """A freshly initialised GPT on `device`, computing in `dtype` ("float32" or "bfloat16").

    Built on the meta device first, so that no memory is spent on numbers that init_weights replaces.
    Only embedding tables are stored in `dtype`; matrices and head stay fp32 and are cast when used.
    """
    with torch.device("meta"):
        model = GPT(dims)
    for module in model.modules():
        if isinstance(module, Embedding):
            module.to(getattr(torch, dtype))
    model.to_empty(device=torch.device(device))
    model.init_weights(seed)
    return model
