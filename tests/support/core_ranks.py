"""One of several processes that evaluate CORE together."""

import os
from pathlib import Path
from typing import Any

import torch
from core_files import byte_tokenizer, tiny_gpt

from nanochat.evals.core import CoreResult, evaluate_core
from nanochat.evals.core_bundle import Bundle
from nanochat.evals.core_scoring import GptScorer

WORLD = 2


class Counting(GptScorer):
    """Notes how many problems it was asked."""

    asked = 0

    def scores(self, batch: Any) -> Any:
        self.asked += len(batch)
        return super().scores(batch)


def evaluate(bundle: Bundle, most: int) -> tuple[CoreResult, int]:
    tokenizer = byte_tokenizer()
    scorer = Counting(tiny_gpt(tokenizer.vocab_size), tokenizer, "cpu")
    return evaluate_core(scorer, bundle, most), scorer.asked


def work(rank: int, folder: str, results: Any) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=WORLD)
    result, asked = evaluate(Bundle(Path(folder) / "bundle"), 7)
    results.put((rank, [score.answers for score in result.scores], asked))
    torch.distributed.destroy_process_group()
