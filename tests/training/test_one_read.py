"""A step reads from the device once. On the meta device there is nothing to read, so any other read is an error."""

from collections.abc import Callable

import pytest
import torch

from nanochat.config.load import compose_run
from nanochat.data.batches import MicroBatch, StepBatch
from nanochat.plan.facts import Facts
from nanochat.plan.plan import make_plan
from nanochat.runtime.device import Machine
from nanochat.stages.training_stage import assemble
from nanochat.training import timer
from nanochat.training.hooks import StepInfo
from nanochat.training.loop import train_loop

STEPS, ROWS, LENGTH = 2, 2, 160  # longer than a short window


class Forever:
    """The same step again and again, of two micro-batches."""

    def next_step(self, unless: Callable[[], object]) -> StepBatch:
        ids = torch.zeros(ROWS, LENGTH, dtype=torch.int64, device="meta")
        return StepBatch(2.0 * ROWS * LENGTH, [MicroBatch(ids, ids)] * 2, 0.0, [])


@pytest.mark.parametrize(
    "overrides", [["model=gpt", "optim=muon_adamw"], ["model=modern", "optim=muon_modern"]], ids=["gpt", "modern"]
)
def test_one_read_a_step(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [f"model.max_seq_len={LENGTH}", "model.depth=1", f"train.total_batch_size={2 * ROWS * LENGTH}"]
    config = compose_run([*overrides, *sizes, f"train.device_batch_size={ROWS}", "train.num_iterations=3"]).config
    plan = make_plan(config, Facts(vocab_size=300, vocab_source="", bos_id=0))
    machine = Machine("meta", "float32", False, "meta", None, None)
    reads: list[torch.Size] = []
    waits: list[str] = []

    def read(tensor: torch.Tensor) -> list[float]:
        reads.append(tensor.shape)
        return [1.0, 1.0]

    monkeypatch.setattr(torch.Tensor, "tolist", read)
    monkeypatch.setattr(timer, "synchronize", waits.append)
    monkeypatch.setattr("nanochat.model.gpt.GPT.init_weights", lambda self, seed: None)
    _, parts = assemble(config, plan, machine, Forever(), lambda text: None)  # type: ignore[arg-type]
    infos: list[StepInfo] = []
    train_loop(parts, start=0, total=STEPS, hooks=[], report=infos.append, interrupted=lambda: None)
    assert reads == [torch.Size([2])] * STEPS and not waits
    assert [info.loss for info in infos] == [1.0] * STEPS and parts.optimizer.step == STEPS
