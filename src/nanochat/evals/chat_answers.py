"""The answers of a model to problems of a task.

    write     it writes them, with the tool
    choose    the logits of the letters offered are compared, where its answer would begin: one forward pass

Notable: a prompt longer than the model reaches loses its beginning, but for the first token; for the tiny models of
tests that happens, for those of any use it does not. Every problem is drawn with a seed of its own, so what is
answered does not depend on which other problems are asked, nor on the number of ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.tasks.base import Conversation
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_for_completion

ROWS = 32  # prompts of a forward pass
SEED_STEP = 1_000_003  # between the seeds of problems of neighbouring runs: more than problems of any task


@dataclass(frozen=True)
class Asked:
    """Number `index` of its task."""

    index: int
    conversation: Conversation


def write(
    engine: Engine, tokenizer: Tokenizer, problems: Sequence[Asked], params: SamplingParams, num_samples: int = 1
) -> list[list[str]]:
    """What the model writes in place of each last message, `num_samples` times."""
    reach = engine.model.max_positions
    limit = reach - min(params.max_new_tokens, reach // 2)  # room for an answer
    prompts = [_fitted(render_for_completion(tokenizer, problem.conversation), limit) for problem in problems]
    answers: list[list[str]] = [[] for _ in problems]
    if params.temperature == 0:  # the seed says nothing
        for i, ids in enumerate(engine.generate_batch(prompts, params)):
            answers[i] = [tokenizer.decode(ids)] * num_samples
        return answers
    pending = {}
    for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):  # similar lengths are prefilled together
        seeded = replace(params, seed=params.seed * SEED_STEP + problems[i].index)
        pending[i] = engine.submit(prompts[i], seeded, num_samples=num_samples)
    while any(sequence.finish is None for sequences in pending.values() for sequence in sequences):
        engine.step()
    for i, sequences in pending.items():
        for sequence in sequences:
            tokens = sequence.tokens[:-1] if sequence.finish == "stop" else sequence.tokens
            answers[i].append(tokenizer.decode([token.id for token in tokens]))
    return answers


@torch.inference_mode()
def choose(engine: Engine, tokenizer: Tokenizer, problems: Sequence[Asked]) -> list[str]:
    """The likeliest of each conversation's `letters` as the first token of the answer; of equal ones the first.

    Prompts of similar length share a batch, padded on the right, where a causal model does not see it.
    """
    reach = engine.model.max_positions
    prompts = [_fitted(render_for_completion(tokenizer, problem.conversation), reach) for problem in problems]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), ROWS):
        chosen = order[start : start + ROWS]
        longest = len(prompts[chosen[0]])
        padded = [prompts[i] + [0] * (longest - len(prompts[i])) for i in chosen]
        hidden_BTD = engine.model.hidden(torch.tensor(padded, device=engine.device))
        last = torch.tensor([len(prompts[i]) - 1 for i in chosen], device=engine.device)
        logits_BV = engine.model.logits(hidden_BTD[torch.arange(len(chosen), device=engine.device), last]).cpu()
        for i, logits_V in zip(chosen, logits_BV, strict=True):
            letters = problems[i].conversation["letters"]
            answers[i] = letters[int(logits_V[[_token_of(tokenizer, letter) for letter in letters]].argmax())]
    return answers


def _token_of(tokenizer: Tokenizer, letter: str) -> int:
    ids = tokenizer.encode(letter)
    assert len(ids) == 1, f"the letter {letter!r} is {len(ids)} tokens; a problem's letters are single ASCII characters"
    return ids[0]


def _fitted(prompt: list[int], limit: int) -> list[int]:
    """At most `limit` tokens: the first one and the last."""
    return prompt if len(prompt) <= limit else [prompt[0], *prompt[len(prompt) - limit + 1 :]]
