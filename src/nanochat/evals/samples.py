"""What the model makes of a few fixed prompts, greedily."""

from collections.abc import Sequence

from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.tokenizer.bpe import Tokenizer


def sample_prompts(engine: Engine, tokenizer: Tokenizer, prompts: Sequence[str], tokens: int) -> list[tuple[str, str]]:
    """(prompt, continuation of at most `tokens` tokens) for each prompt."""
    encoded = [[tokenizer.bos, *tokenizer.encode(prompt)] for prompt in prompts]
    answers = engine.generate_batch(encoded, SamplingParams(max_new_tokens=tokens, temperature=0.0))
    return [(prompt, tokenizer.decode(ids)) for prompt, ids in zip(prompts, answers, strict=True)]
