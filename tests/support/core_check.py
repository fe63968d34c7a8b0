"""Our CORE held to the slow one."""

from pathlib import Path

from core_files import logits_of
from slow_core import answers, read_tasks

from nanochat.evals.core import evaluate_task
from nanochat.evals.core_bundle import Bundle
from nanochat.evals.core_prompts import Deck
from nanochat.evals.core_scoring import GptScorer
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer


def check_against_the_slow_one(path: Path, bundle: Bundle, model: GPT, tokenizer: Tokenizer, most: int) -> int:
    """Equal item by item, in all tasks; returns the number of right answers."""
    scorer, right = GptScorer(model, tokenizer, "cpu"), 0
    for task, raw in zip(bundle.tasks, read_tasks(path), strict=True):
        found = evaluate_task(scorer, Deck(task, bundle.rows(task), most), batch_tokens=3000)
        wanted = answers(raw, most, tokenizer.encode, tokenizer.bos, logits_of(model), model.dims.seq_len)
        made = [(None if a.gold is None else a.predicted, a.correct) for a in found.answers]
        assert made == wanted, task.label
        right += sum(answer.correct for answer in found.answers)
    return right
