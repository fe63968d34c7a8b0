"""The 22 tasks of the published bundle, item by item against the slow implementation, where the machine has them."""

import random

import pytest
from core_check import check_against_the_slow_one
from core_files import likes, tiny_gpt
from shared_data import shared_data

from nanochat.evals.core_bundle import Bundle
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.train import train_bpe


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle(shared_data("eval_bundle.zip"))


@pytest.fixture(scope="module")
def tokenizer(bundle: Bundle) -> Tokenizer:
    """A small one, learnt from problems of every task."""
    texts = [str(row) for task in bundle.tasks for row in random.Random(1).sample(bundle.rows(task), 30)]
    return train_bpe(texts, 2048)


def test_the_bundle_is_whole(bundle: Bundle) -> None:
    assert len(bundle.tasks) == 22
    bundle.check()
    baselines = {task.label: round(task.baseline, 4) for task in bundle.tasks}
    assert baselines["boolq"] == 0.62 and baselines["bigbench_language_identification"] == 0.091
    assert {task.shots for task in bundle.tasks} == {0, 3, 10}


@pytest.mark.parametrize("most", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_every_task_item_by_item(bundle: Bundle, tokenizer: Tokenizer, most: int) -> None:
    """A context of 320 cuts many prompts; the favourite is a token that some answers consist of."""
    model = likes(tiny_gpt(tokenizer.vocab_size, seq_len=320), tokenizer.encode(" Invalid")[0])
    right = check_against_the_slow_one(bundle.where, bundle, model, tokenizer, most)
    assert 22 * most * 0.1 < right < 22 * most * 0.5
