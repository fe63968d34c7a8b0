"""Processes that are hit by a signal at an exact place: on the n-th call of a function.

They are forked from a server that has imported everything and done nothing, so that one costs no start-up time.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

_PRELOADED = ["hydra", "nanochat.train", "nanochat.stages.training_stage", "nanochat.stages.eval", "pyarrow.parquet"]
_TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class Hit:
    """`signal_number` on the `call`-th call of `place` (module:function or module:Class.method), before or after it."""

    place: str
    call: int
    signal_number: int = signal.SIGKILL
    after: bool = False


AT_STEP = "nanochat.stages.progress:Reporter.report"
IN_UPDATE = "nanochat.training.loop:take_step"
IN_SAVE = "nanochat.checkpoint.save:write_manifest"
IN_VALIDATION = "nanochat.stages.hooks:evaluate_bpb"
IN_LOG = "nanochat.tracking.jsonl:MetricsLog.log"
IN_RESULT = "nanochat.stages.training_stage:write_result"


def start(argv: Sequence[str], hits: Sequence[Hit], log: Path) -> Any:
    """`nanochat ARGV` in a process of its own, in the folder of `log`, which gets its output."""
    process = _context().Process(target=_main, args=(list(argv), list(hits), str(log)))
    process.start()
    return process


def run(argv: Sequence[str], hits: Sequence[Hit], log: Path) -> tuple[int, str]:
    """Waits for the end; returns the exit code (minus the signal's number if one ended it) and the output."""
    process = start(argv, hits, log)
    process.join(_TIMEOUT)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"still running after {_TIMEOUT} s: {log.read_text()}")
    return process.exitcode, log.read_text(encoding="utf-8")


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _main(argv: list[str], hits: list[Hit], log: str) -> None:
    with Path(log).open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(Path(log).parent)
    os.setpgrp()  # as a shell does
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for hit in hits:
        _arm(hit)
    from nanochat.train import main

    code = 70
    try:
        code = main(argv)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.exit(code)


def _arm(hit: Hit) -> None:
    module, _, name = hit.place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, last = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original: Callable[..., Any] = getattr(owner, last)
    calls = 0

    def armed(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        mine = calls == hit.call
        if mine and not hit.after:
            os.kill(os.getpid(), hit.signal_number)
        result = original(*args, **kwargs)
        if mine and hit.after:
            os.kill(os.getpid(), hit.signal_number)
        return result

    setattr(owner, last, armed)
