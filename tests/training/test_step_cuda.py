"""What only a GPU can show of a step: that it waits once, and that it takes the memory that the plan says."""

import warnings
from typing import Any

import pytest
import torch

from nanochat.config.load import compose_run
from nanochat.data.batches import MicroBatch, StepBatch
from nanochat.plan.facts import Facts
from nanochat.plan.plan import Plan, make_plan
from nanochat.runtime.device import detect
from nanochat.stages.training_stage import assemble
from nanochat.training.loop import Parts, train_loop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


class Random:
    """Different tokens in each step."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def next_step(self, unless: Any) -> StepBatch:
        shape = (self._plan.placement.device_rows, self._plan.recipe.dims.seq_len + 1)
        batches = []
        for _ in range(self._plan.placement.accumulation):
            ids = torch.randint(self._plan.recipe.dims.vocab_size, shape)
            batches.append(MicroBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()).pinned())
        return StepBatch(float(self._plan.recipe.batch_tokens), batches, 0.0, [])


def made(*overrides: str) -> tuple[Plan, Parts]:
    config = compose_run(["train.num_iterations=4", "runtime=h100", *overrides]).config
    machine = detect(config.runtime)
    facts = Facts(
        vocab_size=config.tokenizer.vocab_size,
        vocab_source="",
        device="cuda",
        dtype=machine.dtype,
        compile=machine.compile,
        device_memory=machine.memory,
        bos_id=0,
    )
    plan = make_plan(config, facts)
    return plan, assemble(config, plan, machine, Random(plan), print)[1]  # type: ignore[arg-type]


def train(parts: Parts) -> None:
    train_loop(parts, start=0, total=4, hooks=[], report=lambda info: None, interrupted=lambda: None)


@pytest.mark.parametrize("options", [["model=gpt"], ["model=modern", "optim=muon_modern"]], ids=["gpt", "modern"])
def test_a_step_waits_for_the_device_once(options: list[str]) -> None:
    small = ["model.depth=4", "model.max_seq_len=256", "train.total_batch_size=2048", "train.device_batch_size=4"]
    _, parts = made(*options, *small, "runtime.compile=false")
    train(parts)  # kernels are loaded
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            train(parts)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([each for each in said if "synchroniz" in str(each.message)]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("depth", [8, 12, 20])
@pytest.mark.parametrize(
    "options",
    [["model=gpt"], ["model=modern", "optim=muon_modern", "tokenizer=bpe32k"]],
    ids=["gpt", "modern"],
)
def test_the_plan_knows_the_peak(options: list[str], depth: int) -> None:
    """Within 10 %."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    rows = ["train.device_batch_size=16", "train.total_batch_size=65536"]
    plan, parts = made(*options, f"model.depth={depth}", *rows)
    train(parts)
    assert torch.cuda.max_memory_allocated() - before == pytest.approx(plan.placement.memory, rel=0.1)
