"""CORE in a run: finding its files in time, measuring, keeping what came out."""

import time
from collections.abc import Callable
from typing import Any

from nanochat.errors import MissingError
from nanochat.evals.core import BATCH_TOKENS, CoreResult, Stopped, evaluate_core
from nanochat.evals.core_bundle import Bundle
from nanochat.evals.core_download import find_bundle
from nanochat.evals.core_report import core_table, write_core
from nanochat.evals.core_scoring import CoreModel, GptScorer
from nanochat.model.gpt import GPT
from nanochat.plan.plan import Plan
from nanochat.reporting.tables import render_table
from nanochat.runtime.device import Machine
from nanochat.runtime.dist import current_ranks
from nanochat.stages.job import Job
from nanochat.stages.session import Session
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tracking.console import Console, format_seconds
from nanochat.tracking.jsonl import read_jsonl
from nanochat.training.hooks import Hook

_CUDA_TOKENS = 32768  # of a forward pass of stage=eval on a GPU, which has nothing else in its memory


def open_bundle(job: Job, say: Callable[[str], None]) -> Bundle:
    """CORE's files, read through. Raises MissingError or CorruptError before anything is computed."""
    bundle = Bundle(find_bundle(job.config.eval.core_bundle, job.base_dir, say))
    bundle.check()
    return bundle


def core_hook(
    session: Session,
    plan: Plan,
    machine: Machine,
    model: GPT,
    tokenizer: Tokenizer,
    interrupted: Callable[[], object] = lambda: False,
) -> Hook | None:
    """CORE every `eval.core_every` steps and at the last; None, which is said, where nobody named its files and there
    are none. An evaluation ends early when `interrupted()`, but for the last, and is made up for on resume.
    """
    job, options = session.job, session.job.config.eval
    try:
        bundle = open_bundle(job, session.console.say)
    except MissingError as error:
        if options.core_bundle is not None:
            raise
        session.console.say(f"CORE will not be measured: {error}")
        return None
    recorded = {row["step"] for row in read_jsonl(job.run_dir / "metrics.jsonl") if "eval/core" in row}
    tokens = max(BATCH_TOKENS, plan.placement.device_rows * plan.recipe.dims.seq_len)
    scorer = GptScorer(model, tokenizer, machine.device)

    def hook(step: int) -> None:
        if step in recorded:
            return
        stop = interrupted if step < plan.recipe.steps else (lambda: False)
        began = time.perf_counter()
        try:
            result = measure_core(job, scorer, bundle, session.console, min(tokens, _CUDA_TOKENS), stop=stop)
        except Stopped:
            session.console.say(f"step {step}: CORE was left, to be measured on resume")
            return
        if not job.config.dry_run:
            keep_core(job, bundle, result, {"checkpoint": f"{job.config.stage}/{job.run}@{step}", "step": step})
        assert session.tracker is not None
        session.tracker.log(step, result.metrics)
        said = format_seconds(time.perf_counter() - began)
        session.console.say(f"step {step}: eval/core {result.core:.4f} +- {result.error:.4f} ({said})")

    return Hook("core", options.core_every, hook)


def measure_core(
    job: Job,
    scorer: CoreModel,
    bundle: Bundle,
    console: Console,
    batch_tokens: int | None = None,
    *,
    stop: Callable[[], object] = lambda: False,
    log_tasks: bool = False,
) -> CoreResult:
    """Asks `eval.core_max_per_task` problems of each task; `log_tasks` says a line when each is done."""
    tokens = batch_tokens or (_CUDA_TOKENS if scorer.device == "cuda" else BATCH_TOKENS)
    try:
        return evaluate_core(
            scorer,
            bundle,
            job.config.eval.core_max_per_task,
            batch_tokens=tokens,
            say=lambda text, done: console.status(text, done and log_tasks),
            stop=stop,
        )
    finally:
        console.end_progress(keep=False)


def keep_core(job: Job, bundle: Bundle, result: CoreResult, about: dict[str, Any]) -> None:
    """core.csv, core.json and core_items.jsonl of the run; written by one rank."""
    if current_ranks().is_main:
        of_bundle = {"bundle": str(bundle.where), "bundle_mark": bundle.fingerprint}
        write_core(job.run_dir, result, {**about, **of_bundle, "max_per_task": job.config.eval.core_max_per_task})


def core_lines(result: CoreResult, title: str) -> str:
    """The table for the screen."""
    columns, rows = core_table(result)
    return render_table(columns, rows, title=f"{title} (+- is one standard error)")
