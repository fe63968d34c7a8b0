"""The eval stage: a checkpoint's bits per byte on the train and validation splits of `data`, CORE, samples, tasks.

What it measures is kept in a run folder of its own, `{base_dir}/eval/{run}/`, and replaced by the next evaluation as a
whole, so that numbers of two checkpoints never stand beside each other; result.json says whose they are. Of a model of
Hugging Face's (`eval.hf_model`) CORE alone is measured.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from nanochat.checkpoint.find import ResolvedRef
from nanochat.checkpoint.load import load_dims
from nanochat.config.frozen import write_config
from nanochat.config.validate import flatten, plain
from nanochat.data.source import validation_batches
from nanochat.engine.engine import Engine
from nanochat.evals.bpb import evaluate_bpb
from nanochat.evals.chat import TaskResult
from nanochat.evals.chatcore import chat_metrics, chat_table, write_records
from nanochat.evals.core import CoreResult
from nanochat.evals.core_bundle import Bundle
from nanochat.evals.core_report import CORE_FILES
from nanochat.evals.core_scoring import CoreModel, GptScorer
from nanochat.evals.samples import sample_prompts
from nanochat.model.gpt import GPT
from nanochat.reporting.report import write_report
from nanochat.reporting.tables import render_table
from nanochat.runtime.device import Machine, detect, set_threads
from nanochat.runtime.dist import current_ranks
from nanochat.runtime.environment import describe_environment
from nanochat.runtime.lock import hold
from nanochat.stages.core import core_lines, keep_core, measure_core, open_bundle
from nanochat.stages.facts import adopt_model, checkpoint_mark, load_tokenizer, origin
from nanochat.stages.hooks import chat_tasks, task_results, write_samples
from nanochat.stages.inference import load_for_inference
from nanochat.stages.job import Job
from nanochat.stages.session import PLAN_FILE, RESULT_FILE, SAMPLES_FILE
from nanochat.stages.sources import TRIM, open_docs
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tracking.atomic import write_json
from nanochat.tracking.composite import build_trackers
from nanochat.tracking.console import Console

_BATCH_TOKENS = 16384  # tokens of an evaluation batch where no training step gives the size


@dataclass(frozen=True)
class _Subject:
    """What is evaluated: its name, the step it was saved at, and what decides the numbers beside the config."""

    name: str
    step: int
    marks: dict[str, Any]


@dataclass
class _Found:
    """What was measured."""

    metrics: dict[str, float]
    samples: list[tuple[str, str]]
    core: CoreResult | None = None
    chat: Sequence[TaskResult] = ()


def run_eval(job: Job) -> None:
    """Measures the checkpoint of `init_from` (default: the run's sft, else mid, else base) and prints a table.

    What was measured already on the same weights and data is left as it is, unless `overwrite`.
    """
    set_threads(job.config.runtime)
    machine = detect(job.config.runtime)
    dry = job.config.dry_run
    console = Console(None if dry else job.run_dir / "log.txt", current_ranks().is_main)
    with nullcontext() if dry else hold(job.run_dir):
        if job.config.eval.hf_model is not None:
            _evaluate_foreign(job, machine, console)
        else:
            _evaluate_checkpoint(job, machine, console)


def _evaluate_checkpoint(job: Job, machine: Machine, console: Console) -> None:
    ref = origin(job)
    assert ref is not None
    job = adopt_model(job, ref)
    tokenizer = load_tokenizer(job, ref)
    bundle = _bundle(job, console)
    subject = _Subject(str(ref), ref.step, _marks(job, ref, tokenizer))
    job = replace(job, config=replace(job.config, init_from=str(ref)))
    if _already_there(job, subject, bundle, console):
        return
    tasks = chat_tasks(job)
    model = load_for_inference(ref, machine, job.config.runtime.attention)
    began = time.perf_counter()
    found = _Found(_bits_per_byte(job, machine, model, tokenizer), [])
    _measure_core(job, GptScorer(model, tokenizer, machine.device), bundle, found, console)
    found.chat = task_results(job, machine, model, tokenizer, tasks)
    found.metrics |= chat_metrics(found.chat)
    found.samples = _samples(job, machine, model, tokenizer)
    _finish(job, subject, machine, bundle, found, console, began)


def _evaluate_foreign(job: Job, machine: Machine, console: Console) -> None:
    """CORE of a Hugging Face model."""
    from nanochat.evals.hf import HfScorer, check_folder, folder_mark

    folder = Path(str(job.config.eval.hf_model)).expanduser().absolute()
    check_folder(folder)
    bundle = _bundle(job, console)
    subject = _Subject(str(folder), 0, {"hf_model": folder_mark(folder)})
    if _already_there(job, subject, bundle, console):
        return
    began = time.perf_counter()
    found = _Found({}, [])
    _measure_core(job, HfScorer(folder, machine.device, machine.dtype), bundle, found, console)
    _finish(job, subject, machine, bundle, found, console, began)


def _bundle(job: Job, console: Console) -> Bundle | None:
    """CORE's files, if CORE is asked for; without them nothing is begun."""
    return open_bundle(job, console.say) if job.config.eval.core_every > 0 else None


def _marks(job: Job, ref: ResolvedRef, tokenizer: Tokenizer) -> dict[str, Any]:
    """The weights and the text."""
    text = {}
    if job.config.eval.every > 0:
        docs = open_docs(job, tokenizer, load_dims(ref.path).seq_len, "val")
        text = {"data.fingerprint": hashlib.sha256(json.dumps(docs.fingerprint(), sort_keys=True).encode()).hexdigest()}
    return {"init_mark": checkpoint_mark(ref), **text}


def _identity(job: Job, subject: _Subject, bundle: Bundle | None) -> dict[str, Any]:
    """What decides the numbers: the weights, what is asked of them, the text."""
    asked = {k: v for k, v in flatten(job.config).items() if k.startswith(("eval.", "data.")) or k == "seed"}
    core = {"eval.core_bundle": bundle.fingerprint} if bundle is not None else {}
    return {"checkpoint": subject.name, **subject.marks, **asked, **core}


def _already_there(job: Job, subject: _Subject, bundle: Bundle | None, console: Console) -> bool:
    """Whether there is nothing to do, which is said; else it is said what is going to be replaced."""
    result = job.run_dir / RESULT_FILE
    if job.config.dry_run or not result.is_file():
        return False
    plan = job.run_dir / PLAN_FILE
    saved = json.loads(plan.read_text(encoding="utf-8"))["recipe"] if plan.is_file() else {}
    same = saved == json.loads(json.dumps(_identity(job, subject, bundle)))
    if same and not job.config.overwrite:
        console.say(f"{job.run_dir} is complete for {subject.name}; nothing to do (overwrite=true measures again)")
        return True
    console.say(f"the evaluation of {saved.get('checkpoint', 'another')} in {job.run_dir} will be replaced")
    return False


def _bits_per_byte(job: Job, machine: Machine, model: GPT, tokenizer: Tokenizer) -> dict[str, float]:
    options = job.config.eval
    if options.every <= 0:
        return {}
    seq_len, metrics = model.dims.seq_len, {}
    tokens = options.steps * _BATCH_TOKENS if options.steps is not None else options.tokens
    for split in ("train", "val"):
        docs = open_docs(job, tokenizer, seq_len, split)
        rows = max(1, _BATCH_TOKENS // seq_len)
        batches = validation_batches(docs, job.config.data.packing, seq_len, rows, tokens, tokenizer.bos, trim_to=TRIM)
        metrics[f"{split}/bpb"] = evaluate_bpb(model, batches, tokenizer.token_bytes, machine.device).bpb
    return metrics


def _measure_core(job: Job, scorer: CoreModel, bundle: Bundle | None, found: _Found, console: Console) -> None:
    if bundle is not None:
        found.core = measure_core(job, scorer, bundle, console, log_tasks=True)
        found.metrics |= found.core.metrics


def _samples(job: Job, machine: Machine, model: GPT, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    options = job.config.eval
    if options.sample_every <= 0 or not options.prompts:
        return []
    engine = Engine(model, tokenizer, machine.device)
    return sample_prompts(engine, tokenizer, options.prompts, options.sample_tokens)


def _finish(
    job: Job,
    subject: _Subject,
    machine: Machine,
    bundle: Bundle | None,
    found: _Found,
    console: Console,
    began: float,
) -> None:
    """Shows what was found and keeps it."""
    if found.core is not None:
        console.say(core_lines(found.core, f"CORE of {subject.name}"))
    if found.chat:
        console.say(render_table(*chat_table(found.chat)))
    shown = [[name, value] for name, value in found.metrics.items() if not name.startswith("eval/core/")]
    console.say(render_table(["metric", subject.name], shown))
    if not job.config.dry_run and current_ranks().is_main:
        _keep(job, subject, machine, found, bundle, time.perf_counter() - began)
        console.say(f"done: {job.run_dir}")


def _keep(job: Job, subject: _Subject, machine: Machine, found: _Found, bundle: Bundle | None, seconds: float) -> None:
    """Writes the run folder, result.json last but for the report; trackers get the metrics at the subject's step."""
    folder = job.run_dir
    for name in (RESULT_FILE, "metrics.jsonl", SAMPLES_FILE, *CORE_FILES):
        (folder / name).unlink(missing_ok=True)
    write_config(job.config, folder / "config.yaml")
    (folder / "overrides.yaml").write_text(yaml.safe_dump(list(job.overrides)), encoding="utf-8")
    write_json(folder / PLAN_FILE, {"recipe": _identity(job, subject, bundle)})
    write_json(folder / "environment.json", [describe_environment(machine.name)])
    tracker = build_trackers(
        job.config.tracking, folder, job.run, plain(job.config), {}, list(job.config.tags), subject.step
    )
    tracker.log(subject.step, found.metrics)
    tracker.finish()
    write_records(job.run_dir, found.chat)
    write_samples(folder / SAMPLES_FILE, subject.step, found.samples)
    about = {"checkpoint": subject.name, "step": subject.step}
    if found.core is not None and bundle is not None:
        keep_core(job, bundle, found.core, about)
    write_json(
        folder / RESULT_FILE, {"status": "complete", **about, "metrics": found.metrics, "seconds": round(seconds, 3)}
    )
    write_report(folder)
