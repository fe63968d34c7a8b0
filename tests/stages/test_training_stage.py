"""What base, mid and sft share, run for real in miniature."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from workshop import Workshop, history, samples, steps_saved

from nanochat.checkpoint.load import load_model, load_optimizer, load_state
from nanochat.errors import ConfigError, MismatchError, NanochatError
from nanochat.evals.bpb import evaluate_bpb
from nanochat.runtime.device import Machine


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in history(run) if "train/loss" in row]


@pytest.mark.parametrize("stage", ["base", "sft"])
def test_the_cut_into_micro_batches_changes_nothing(
    stage: str, workshop: Workshop, base_run: Path, mid_run: Path
) -> None:
    """Rows of uneven numbers of targets (sft) weigh the same however they are grouped; 8 rows as 1, 3 and 8 at once."""
    origin = () if stage == "base" else ("init_from=mid/ref", "train.init_lr_frac=0.5")
    found = []
    for rows in (1, 3, 8):
        overrides = (f"train.device_batch_size={rows}", "optim.ns_dtype=float32", "train.num_iterations=5", *origin)
        found.append(losses(workshop.train(stage, f"run=cut{rows}-{stage}", *overrides)))
    assert found[0] == pytest.approx(found[1], abs=1e-6) and found[0] == pytest.approx(found[2], abs=1e-6)
    assert found[0][-1] < found[0][0]


def test_one_implementation_of_both_batch_keys(workshop: Workshop, mid_run: Path) -> None:
    in_rows = ("train.total_batch_size=null", "train.target_examples_per_step=8", "train.num_iterations=3")
    run = workshop.train("sft", "run=rows", "init_from=mid/ref", *in_rows)
    same = workshop.train("sft", "run=tokens", "init_from=mid/ref", "train.num_iterations=3")
    assert losses(run) == losses(same)


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize(
    ("error", "shown", "message"),
    [(ValueError("broken"), ValueError, "broken"), (FULL, NanochatError, "train.device_batch_size=3 .*=1 ")],
)
def test_a_failing_evaluation_does_not_cost_the_run(
    error: Exception, shown: type[Exception], message: str, workshop: Workshop, base_run: Path
) -> None:
    """It is saved before it is evaluated; the same command goes on, and evaluates what was left out."""
    outcomes = [evaluate_bpb, evaluate_bpb, error]  # steps 0, 2, 4; at 3 it was saved, at 6 it will be

    def failing(*arguments: Any) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome(*arguments)

    command = ("base", f"run=failing-{shown.__name__}", "train.save_every=2")
    with patch("nanochat.stages.hooks.evaluate_bpb", failing), pytest.raises(shown, match=message):
        workshop.train(*command)
    assert steps_saved(workshop.folder("base", f"failing-{shown.__name__}")) == [2, 4]
    assert history(workshop.train(*command)) == history(base_run)


def test_out_of_memory_in_a_step(workshop: Workshop) -> None:
    message = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: not enough memory: you tried"
    with (
        patch("nanochat.training.loop.accumulate_gradients", side_effect=RuntimeError(message)),
        pytest.raises(NanochatError, match="out of memory on cpu: train.device_batch_size=3 rows of 64 tokens"),
    ):
        workshop.train("base", "run=oom")


def test_every_interval_off(workshop: Workshop, base_run: Path, sft_run: Path) -> None:
    off = ("eval.every=-1", "eval.sample_every=-1", "eval.metrics_every=-1", "train.save_every=-1")
    for stage, origin in (("base", ()), ("mid", ("init_from=base/ref",)), ("sft", ("init_from=mid/ref",))):
        run = workshop.train(stage, "run=off", *origin, *off, plots=True)
        assert steps_saved(run) == [10] and len(history(run)) == 10 and samples(run) == []
        assert (run / "report.md").is_file()
        assert losses(run) == losses(workshop.folder(stage, "ref"))  # measuring changes nothing


def test_tasks_are_measured_while_training(workshop: Workshop, mid_run: Path) -> None:
    task = "+eval.tasks.spell={task: spelling_bee, split: test, stop: 2}"
    overrides = ("eval.metrics_every=2", "eval.metrics_max_problems=2", task, "train.num_iterations=3")
    run = workshop.train("sft", "run=tasked", "init_from=mid/ref", *overrides)
    assert [row["step"] for row in history(run) if "eval/chat/spell" in row] == [2, 3]


def test_a_task_that_cannot_be_checked_is_refused_before_training(workshop: Workshop, mid_run: Path) -> None:
    with pytest.raises(ConfigError, match=r"eval.tasks.me: answers of this task cannot be checked"):
        workshop.train(
            "sft", "run=wrong", "init_from=mid/ref", "eval.metrics_every=2", "+eval.tasks.me={task: identity}"
        )
    assert history(workshop.folder("sft", "wrong")) == []


@pytest.mark.parametrize(("action", "steps"), [("skip", 10), ("warn", 10), ("stop", 4)])
def test_a_loss_that_is_not_a_number(action: str, steps: int, workshop: Workshop, base_run: Path) -> None:
    from nanochat.training.step import accumulate_gradients

    calls = 0

    def poisoned(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = accumulate_gradients(*arguments)  # type: ignore[arg-type]
        return loss * float("nan") if calls == 5 else loss

    command = ("base", f"run=nan-{action}", f"guards.non_finite={action}")
    with patch("nanochat.training.loop.accumulate_gradients", poisoned):
        if action == "stop":
            with pytest.raises(NanochatError, match=r"step 5: loss nan.*guards.non_finite=stop"):
                workshop.train(*command)
        else:
            workshop.train(*command)
    run = workshop.folder("base", f"nan-{action}")
    said = (run / "log.txt").read_text()
    found = losses(run)
    assert found[:4] == losses(base_run)[:4]
    if action == "stop":
        assert len(found) == steps and steps_saved(run) == [3]
    else:
        assert len(found) == steps and found[4] != found[4] and "step 5: loss nan" in said
        last = load_optimizer(run / "checkpoints" / "step_000010")
        assert int(last["step"]) == (9 if action == "skip" else 10)


def test_too_many_skips_in_a_row_end_the_run(workshop: Workshop) -> None:
    bad = patch("nanochat.training.loop.accumulate_gradients", lambda model, *_: _gradients_of_nan(model))
    with bad, pytest.raises(NanochatError, match=r"step 4: .*guards.max_skips=4"):
        workshop.train("base", "run=hopeless", "guards.max_skips=4")


def _gradients_of_nan(model: torch.nn.Module) -> torch.Tensor:
    for p in model.parameters():
        p.grad = torch.full_like(p, float("nan"))
    return torch.tensor(float("nan"))


def test_skips_in_a_row_are_counted_over_a_resume(workshop: Workshop) -> None:
    bad = patch("nanochat.training.loop.accumulate_gradients", lambda model, *_: _gradients_of_nan(model))
    with bad, pytest.raises(NanochatError, match="step 4"):
        workshop.train("base", "run=in-a-row", "guards.max_skips=4")
    with bad, pytest.raises(NanochatError, match="step 4"):  # from step 3 on, not four more
        workshop.train("base", "run=in-a-row", "guards.max_skips=4")


def test_a_branch_takes_optimizer_and_data_position_along(workshop: Workshop, base_run: Path) -> None:
    """schedule=decay from base/ref@6: its first step reads the rows of the trunk's step 7 with the trunk's weights."""
    branch = workshop.train("base", "run=branch", "init_from=base/ref@6", "schedule=decay", "train.num_iterations=4")
    assert losses(branch)[0] == losses(base_run)[6]
    rows = [row for row in history(branch) if "train/loss" in row]
    trunk = [row for row in history(base_run) if "train/loss" in row]
    assert [row["train/epoch"] for row in rows] == [row["train/epoch"] for row in trunk[6:]]
    factors = [row["train/lr_factor"] for row in rows]
    assert factors == [1.0, 0.75, 0.5, 0.25]
    assert int(load_optimizer(branch / "checkpoints" / "step_000004")["step"]) == 10
    assert losses(branch)[1] == losses(base_run)[7]  # both updates at the full rate, and with the trunk's momentum


def test_without_decay_only_the_weights_are_taken(workshop: Workshop, base_run: Path) -> None:
    run = workshop.train("base", "run=warm", "init_from=base/ref@6", "train.num_iterations=2", "train.save_every=-1")
    rows = [row["train/epoch"] for row in history(run) if "train/epoch" in row]
    assert rows == [row["train/epoch"] for row in history(base_run) if "train/epoch" in row][:2]
    assert int(load_optimizer(run / "checkpoints" / "step_000002")["step"]) == 2


def test_the_model_comes_from_the_checkpoint(workshop: Workshop, base_run: Path) -> None:
    with pytest.raises(MismatchError, match=r"model.depth=2, but base/ref@10 was trained with model.depth=1"):
        workshop.train("mid", "run=deeper", "init_from=base/ref", "model.depth=2")
    for other in ("++model.depth=2", "+model={depth: 2}"):
        with pytest.raises(MismatchError, match="model.depth=2"):
            workshop.train("mid", "run=deeper", "init_from=base/ref", other)
    with pytest.raises(MismatchError, match="model.depth=2"):
        workshop.train("base", "run=deeper", "init_from=base/ref", "model.depth=2")


def test_the_tokenizer_comes_from_the_checkpoint(workshop: Workshop, base_run: Path) -> None:
    with pytest.raises(MismatchError, match="tokenizer.vocab_size=512.* has 300 tokens"):
        workshop.train("mid", "run=other-words", "init_from=base/ref", "tokenizer.vocab_size=512")


def test_the_same_command_gives_the_same_checkpoint(workshop: Workshop, base_run: Path) -> None:
    twin = workshop.train("base", "run=twin-of-ref")
    for step in (3, 10):
        a, b = (run / "checkpoints" / f"step_{step:06d}" for run in (base_run, twin))
        assert load_state(a) == load_state(b)
        assert all(torch.equal(t, load_model(b)[name]) for name, t in load_model(a).items())


def test_several_processes_without_a_group_are_refused(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="WORLD_SIZE=2"):
        workshop.train("base", "run=ranks")


def test_missing_origin_names_the_command(workshop: Workshop) -> None:
    with pytest.raises(NanochatError, match="stage=base run=nowhere"):
        workshop.train("mid", "run=nowhere")


def test_missing_tokenizer_names_the_command(workshop: Workshop) -> None:
    with pytest.raises(NanochatError, match="tokenizer.name=nobody.*there are: .*tiny.*nanochat stage=tokenizer"):
        workshop.train("base", "run=x", "tokenizer.name=nobody")


def test_trackers_of_a_real_run(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = workshop.train(
        "base", "run=tracked", "tracking=[wandb,tensorboard]", "tracking.wandb.mode=offline", "train.num_iterations=3"
    )
    assert list((run / "wandb").glob("offline-run-*/*.wandb")) and (run / "wandb_run_id.txt").is_file()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    logged = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert logged == [(i + 1, pytest.approx(loss)) for i, loss in enumerate(losses(run))]
    assert [e.step for e in events.Scalars("val/bpb")] == [0, 2, 3]


def test_environment_has_one_entry_an_attempt(workshop: Workshop) -> None:
    stop = patch("nanochat.stages.progress.Reporter.report", side_effect=KeyboardInterrupt)
    for _ in range(2):
        with stop, pytest.raises(KeyboardInterrupt):
            workshop.train("base", "run=attempts")
    run = workshop.train("base", "run=attempts", "train.num_iterations=10")
    workshop.train("base", "run=attempts")  # complete: no attempt
    assert len(json.loads((run / "environment.json").read_text())) == 3


def test_what_cannot_fit_is_refused_before_anything_is_written(workshop: Workshop) -> None:
    tiny = Machine("cuda", "bfloat16", True, "a GPU of 0.1 GB", 10**8, None)
    with (
        patch("nanochat.stages.training_stage.detect", lambda runtime: tiny),
        pytest.raises(
            ConfigError, match=r"device_batch_size=\d+ needs about .* and the device has 0.10 GB; not one row"
        ),
    ):
        workshop.train("base", "run=too-large", "model.max_seq_len=65536", "train.total_batch_size=65536")
    assert not (workshop.base_dir / "base" / "too-large").exists()
