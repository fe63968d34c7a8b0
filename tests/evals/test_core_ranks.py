"""Two processes share the problems and both know all answers."""

import multiprocessing
from pathlib import Path
from typing import Any

from core_files import small_bundle
from core_ranks import WORLD, evaluate, work


def test_two_ranks(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path)
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    workers = [context.Process(target=work, args=(rank, str(tmp_path), results)) for rank in range(WORLD)]
    for worker in workers:
        worker.start()
    found = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    alone, _ = evaluate(bundle, 7)
    for _, answers, _ in found:
        assert answers == [score.answers for score in alone.scores]
    assert [asked for _, _, asked in found] == [12, 9]  # of 7 each: 4 and 3
