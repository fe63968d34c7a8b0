import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanochat.tracking.jsonl import MetricsLog

MakeRun = Callable[..., Path]


def loss_at(step: int) -> float:
    return 2.0 + 6.0 * math.exp(-step / 20)


def write_metrics(run_dir: Path, done: int, steps: int) -> None:
    log = MetricsLog(run_dir / "metrics.jsonl")
    for step in range(1, done + 1):
        factor = min(1.0, (steps - step) / (0.2 * steps))
        speed = 9000.0 if step > 3 else 100.0
        log.log(step, {"train/loss": loss_at(step), "train/lr_factor": factor, "train/tokens_per_second": speed})
        if step % 10 == 0:
            log.log(step, {"val/bpb": loss_at(step) / 3})
    log.finish()


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write the folder of a run, as a run leaves it; `done` < `steps` has no result yet."""

    def make(ref: str, *, steps: int = 60, done: int = 60, config: dict[str, Any] | None = None) -> Path:
        run_dir = tmp_path / "base_dir" / ref
        run_dir.mkdir(parents=True)
        asked = {"stage": ref.split("/")[0], "optim": {"matrix_lr": 0.02}, "tags": [], **(config or {})}
        rules = [["steps", steps, "train.num_iterations"], ["batch", 65536, "a|b"]]
        recipe = {"steps": steps, "tokens": 3_900_000, "params.embedding": 234_567, "params.matrices": 1_000_000}
        environment = [
            {"versions": {"torch": "2.9.0"}},
            {"versions": {"torch": "2.13.0"}, "pid": os.getpid() + len(ref), "git": {"diff": "long"}},
        ]
        (run_dir / "config.yaml").write_text(yaml.safe_dump(asked))
        (run_dir / "overrides.yaml").write_text(yaml.safe_dump(["stage=base", "eval.prompts=['a b']", "run=x y"]))
        (run_dir / "plan.json").write_text(json.dumps({"recipe": recipe, "rules": rules, "placement": {}}))
        (run_dir / "environment.json").write_text(json.dumps(environment))
        write_metrics(run_dir, done, steps)
        samples = MetricsLog(run_dir / "samples.jsonl")
        for step in (10, 20):
            samples.log(step, {"prompt": f"At {step}, the sky is", "sample": " ``` blue"})
        if done == steps:
            metrics = {"train/loss": loss_at(steps), "val/bpb": loss_at(steps) / 3}
            result = {"status": "complete", "step": steps, "metrics": metrics, "seconds": 754.2}
            (run_dir / "result.json").write_text(json.dumps(result))
        return run_dir

    return make
