"""The whole way in real processes, as a user walks it: compose, 20 steps, kill -9, resume, chat."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from workshop import Workshop, history, steps_saved, weights

from nanochat.tracking.jsonl import last_values

CLI = (sys.executable, "-c", "from nanochat.cli.main import main; main()")
STEPS = 20


def nanochat(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=120, check=False)


def kill_after(words: list[str], run: Path, step: int) -> int:
    """Starts the command and kills it as soon as `step` is on record; returns the exit code."""
    process = subprocess.Popen([*CLI, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if last_values(run / "metrics.jsonl", ["train/loss"]).get("step", 0) >= step:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.002)
    return process.wait()


def test_compose_train_kill_resume_chat(workshop: Workshop) -> None:
    # 32 rows: steps long enough for the kill to come between the first and the last
    size = (f"train.num_iterations={STEPS}", "train.total_batch_size=2048", "train.device_batch_size=32")
    extra = (*size, "train.save_every=4", "eval.sample_every=-1")
    reference = workshop.train("base", "run=unkilled", *extra)
    run = workshop.folder("base", "skeleton")
    command = workshop.overrides("base", "run=skeleton", *extra)
    step = random.randint(2, STEPS - 6)
    print(f"to be killed after step {step}")
    assert kill_after(command, run, step) == -signal.SIGKILL
    assert step <= last_values(run / "metrics.jsonl")["step"] < STEPS

    again = nanochat(*command)
    assert again.returncode == 0, again.stderr
    assert history(run) == history(reference) and weights(run, STEPS) == weights(reference, STEPS)
    assert steps_saved(run) == [4, 8, 12, 16, 20]

    words = (
        "chat",
        "base/skeleton",
        "-p",
        "The cat",
        "-n",
        "4",
        "--base-dir",
        str(workshop.base_dir),
        "--device",
        "cpu",
    )
    talk = nanochat(*words)
    assert talk.returncode == 0 and talk.stdout.strip(), talk.stderr
