"""What only a GPU can show. Skipped where there is none."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from models import drawn_on_gpu

from nanochat.model.build import build_model
from nanochat.plan.dims import ModelDims

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
MakeDims = Callable[..., ModelDims]


@pytest.mark.parametrize("new", [False, True], ids=["gpt", "modern"])
def test_a_seed_gives_the_weights_of_the_cpu(make_dims: MakeDims, modern: dict[str, object], new: bool) -> None:
    dims = make_dims(**modern) if new else make_dims()
    there, here = (build_model(dims, device, "float32", 7).state_dict() for device in ("cuda", "cpu"))
    for name, weight in here.items():
        assert torch.equal(weight, there[name].cpu()), name


@pytest.mark.slow
@pytest.mark.parametrize("new", [False, True], ids=["gpt", "modern"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_equals_eager(make_dims: MakeDims, modern: dict[str, object], dtype: str, new: bool) -> None:
    """In-place operations of the softcap and the MLP must survive the compiler, gradients included."""
    features = modern if new else {}
    sizes = {"n_embd": 128, "n_head": 2, "n_kv_head": 1, "head_dim": 64, "seq_len": 64, "vocab_size": 510}
    dims = make_dims(**features | sizes)
    generator = torch.Generator("cuda").manual_seed(2)
    idx = torch.randint(510, (4, 161), device="cuda", generator=generator)  # longer than a short window
    results = []
    for compiled in (False, True):
        model = drawn_on_gpu(dims, dtype)
        forward = torch.compile(model, dynamic=False) if compiled else model
        loss = F.cross_entropy(forward(idx[:, :-1]).flatten(0, 1), idx[:, 1:].flatten())
        loss.backward()
        grads = [p.grad.float() for p in model.parameters() if p.grad is not None]
        results.append((loss.detach(), torch.cat([g.flatten() for g in grads])))
    (loss, grad), (loss_c, grad_c) = results
    tolerance = 1e-3 if dtype == "float32" else 3e-2
    assert float((loss - loss_c).abs()) < tolerance
    assert float((grad - grad_c).norm() / grad.norm()) < tolerance
