"""A chat evaluation that one process or two can run, with a network that knows nothing."""

from pathlib import Path

from nanochat.engine.engine import Engine
from nanochat.evals.chat import ChatOptions, TaskResult, evaluate_tasks, open_tasks
from nanochat.model.build import build_model
from nanochat.plan.dims import ModelDims
from nanochat.tasks.spec import TaskContext
from nanochat.tokenizer.bpe import Tokenizer

SPECS = {
    "choice": {"task": "arc", "split": "test", "subset": "ARC-Easy"},
    "sums": {"task": "arithmetic", "split": "test", "stop": 5},
    "one": {"task": "spelling_bee", "split": "test", "stop": 1},  # nothing for the second rank
}


def ask_all() -> list[TaskResult]:
    """The results, on whichever rank."""
    tokenizer = Tokenizer({bytes([i]): i for i in range(256)})
    dims = ModelDims(1, 16, 2, 2, 8, tokenizer.vocab_size, 64, 10_000.0, "float32", 1e-6, 15.0)
    engine = Engine(build_model(dims, "cpu", "float32", 0), tokenizer, "cpu")
    context = TaskContext(base_dir=Path("/nowhere"), word_list="packaged", hub_root="samples")
    asked = ChatOptions(max_problems=5, num_samples=2, temperature=1.0, max_new_tokens=4)
    return evaluate_tasks(engine, tokenizer, open_tasks(SPECS, context), asked)


def be_rank(rank: int, folder: str) -> None:
    """One of two processes; writes what it found to `folder`."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    Path(folder, f"{rank}.txt").write_text(repr(ask_all()))
    dist.barrier()
    dist.destroy_process_group()
