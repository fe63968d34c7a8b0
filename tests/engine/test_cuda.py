"""What only a GPU can show. Skipped where there is none."""

from collections.abc import Callable

import pytest
import torch

from nanochat.engine.engine import Engine
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@torch.no_grad()
@pytest.mark.parametrize("n_kv_head", [4, 1])
def test_greedy_equals_the_full_forward(make_model: Callable[..., GPT], tokenizer: Tokenizer, n_kv_head: int) -> None:
    model = make_model(n_kv_head).to("cuda")
    prompts = [[5, 6, 7], [1] * 11, [200, 3]]
    answers = Engine(model, tokenizer, "cuda").generate_batch(prompts, max_new_tokens=10, temperature=0.0)
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = model(torch.tensor([prompt + answer], device="cuda"))[0]
        assert answer and logits.argmax(-1).tolist()[len(prompt) - 1 : -1] == answer


def test_sampling_on_the_device(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    engine = Engine(make_model().to("cuda"), tokenizer, "cuda")
    columns = list(engine.generate([1, 2], num_samples=16, max_new_tokens=3, top_k=50))
    assert len({token.id for token in columns[0] if token}) > 4
