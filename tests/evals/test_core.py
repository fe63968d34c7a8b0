"""CORE against an independent implementation, one example at a time; and that batches and ranks change nothing."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from core_check import check_against_the_slow_one
from core_files import byte_tokenizer, likes, logits_of, small_bundle, tiny_gpt
from torch import Tensor

from nanochat.evals.core import Answer, CoreResult, Stopped, TaskScore, batched, evaluate_core, evaluate_task
from nanochat.evals.core_bundle import CoreTask, Kind
from nanochat.evals.core_prompts import Candidate, Deck, Problem
from nanochat.evals.core_scoring import GptScorer, choose

MODERN = {"n_layer": 5, "window_pattern": "SSSL", "value_embeds": True, "residual_scalars": True, "smear": True}
MODERN |= {"backout": True, "qk_scale": 1.2, "vocab_multiple": 64, "seq_len": 300}


@pytest.mark.parametrize("most", [-1, 7, 3])
@pytest.mark.parametrize("changes", [{}, {"seq_len": 48}, MODERN], ids=["gpt", "cut", "modern"])
def test_equal_to_one_at_a_time(tmp_path: Path, changes: dict[str, Any], most: int) -> None:
    tokenizer = byte_tokenizer()
    model = likes(tiny_gpt(tokenizer.vocab_size, **{"seq_len": 256, **changes}), ord(" "))
    bundle = small_bundle(tmp_path)
    check_against_the_slow_one(bundle.where, bundle, model, tokenizer, most)


def test_right_answers_are_found_right(tmp_path: Path) -> None:
    """Of a model that writes a blank and then its favourite letter."""
    tokenizer = byte_tokenizer()
    model = tiny_gpt(tokenizer.vocab_size)
    bundle = small_bundle(tmp_path)
    task = bundle.tasks[2]

    class Favourite(GptScorer):
        def scores(self, batch: Any) -> tuple[Tensor, Tensor]:
            losses, _ = super().scores(batch)
            ids = [t for p in batch for c in p.candidates for t in c.tokens[c.start :]]
            return losses, torch.tensor([t in (ord(" "), ord("c")) for t in ids])

    found = evaluate_task(Favourite(model, tokenizer, "cpu"), Deck(task, bundle.rows(task), -1))
    rows = Deck(task, bundle.rows(task), -1).rows
    assert [a.correct for a in found.answers] == [row["continuation"] == "c" for row in rows]
    assert found.accuracy == 1 / 12


@pytest.mark.parametrize("changes", [{}, MODERN], ids=["gpt", "modern"])
def test_a_shared_prompt_changes_no_loss(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The prompt read once and its choices behind it, against each choice on its own."""
    tokenizer = byte_tokenizer()
    model = tiny_gpt(tokenizer.vocab_size, **{"seq_len": 512, **changes})
    scorer = GptScorer(model, tokenizer, "cpu")
    bundle = small_bundle(tmp_path)
    deck = Deck(bundle.tasks[0], bundle.rows(bundle.tasks[0]), 6)
    problems = deck.problems(range(6), scorer.encode, scorer.bos, scorer.longest)
    assert all(scorer.cost(problem)[0] == 1 for problem in problems)  # shared
    with torch.inference_mode():
        losses, hits = scorer.scores(problems)
    logits, expected, likeliest = logits_of(model), [], []
    for candidate in (c for problem in problems for c in problem.candidates):
        rows = logits(candidate.tokens)[candidate.start - 1 : -1]
        target = torch.tensor(candidate.tokens[candidate.start :])
        expected.append(-rows.log_softmax(-1)[torch.arange(len(target)), target])
        likeliest.append(rows.argmax(-1) == target)
    torch.testing.assert_close(losses, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert torch.equal(hits, torch.cat(likeliest))


def test_batches_change_nothing(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    scorer = GptScorer(tiny_gpt(tokenizer.vocab_size), tokenizer, "cpu")
    bundle = small_bundle(tmp_path)
    results = [evaluate_core(scorer, bundle, -1, batch_tokens=tokens) for tokens in (1, 500, 10**6)]
    assert results[0].scores == results[1].scores == results[2].scores


def test_a_batch_keeps_its_budget(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    scorer = GptScorer(tiny_gpt(tokenizer.vocab_size), tokenizer, "cpu")
    deck = Deck(small_bundle(tmp_path).tasks[1], small_bundle(tmp_path).rows(small_bundle(tmp_path).tasks[1]), -1)
    problems = deck.problems(range(12), scorer.encode, scorer.bos, scorer.longest)
    batches = list(batched(problems, scorer, 400))
    assert sorted(p.index for batch in batches for p in batch) == list(range(12)) and len(batches) > 1
    for batch in batches:
        costs = [scorer.cost(problem) for problem in batch]
        assert len(batch) == 1 or sum(rows for rows, _ in costs) * max(width for _, width in costs) <= 400


def problem(*lengths: int, gold: int | None = 0) -> Problem:
    return Problem(0, tuple(Candidate(list(range(9 + n)), 9) for n in lengths), gold)


def test_the_choice() -> None:
    tell = lambda *losses: [torch.tensor(each) for each in losses]  # noqa: E731
    assert choose(problem(2, 1), tell([1.0, 3.0], [1.9]), tell([], [])) == 1  # means, not sums
    third = 1 / 3
    equal = tell([third] * 3, [third] * 7, [third])
    assert choose(problem(3, 7, 1), equal, equal) == 0  # a tie, also after the sums were rounded
    assert choose(problem(0, 1), tell([], [99.0]), tell([], [])) == 1  # nothing scored is no merit
    assert choose(problem(0, 0), tell([], []), tell([], [])) is None
    assert choose(problem(1), tell([math.nan]), tell([])) is None
    hits = [torch.tensor([True, True]), torch.tensor([True, False]), torch.zeros(0, dtype=torch.bool)]
    assert [choose(problem(2, gold=None), [], [hit]) for hit in hits] == [1, 0, 0]


def test_no_choice_is_not_right() -> None:
    assert not Answer(0, 1, 0, None).correct and Answer(0, 1, 0, 0).correct
    assert Answer(0, 1, None, 1).correct and not Answer(0, 1, None, 0).correct


def score(label: str, baseline: float, right: int, n: int) -> TaskScore:
    task = CoreTask(label, "x", Kind.multiple_choice, 0, " ", baseline)
    return TaskScore(task, tuple(Answer(i, i + 1, 0, 0 if i < right else 1) for i in range(n)))


def test_the_numbers() -> None:
    result = CoreResult((score("a", 0.25, 40, 100), score("b", 0.5, 9, 25), score("c", 0.0, 0, 10)))
    a, b, c = result.scores
    assert (a.accuracy, a.centred) == pytest.approx((0.4, 0.2)) and b.centred == pytest.approx(-0.28)
    assert a.error == pytest.approx(math.sqrt(0.4 * 0.6 / 100)) and a.centred_error == pytest.approx(a.error / 0.75)
    assert result.core == pytest.approx((0.2 - 0.28 + 0) / 3) and c.error == 0
    assert result.error == pytest.approx(math.hypot(a.centred_error, b.centred_error) / 3)
    assert result.metrics == {
        "eval/core": result.core,
        "eval/core/a": a.centred,
        "eval/core/b": b.centred,
        "eval/core/c": 0.0,
    }


def test_stopping(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    scorer = GptScorer(tiny_gpt(tokenizer.vocab_size), tokenizer, "cpu")
    said: list[str] = []
    with pytest.raises(Stopped):
        evaluate_core(
            scorer, small_bundle(tmp_path), 2, say=lambda text, done: said.append(text), stop=lambda: len(said) > 2
        )
    assert said[0].startswith("CORE 1/3 sounds")
