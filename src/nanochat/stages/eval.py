"""The eval stage: a checkpoint's bits per byte on the train and validation splits of `data`, samples, tasks.

What it measures is kept in a run folder of its own, `{base_dir}/eval/{run}/`, and replaced by the next evaluation.
"""

import hashlib
import json
import time
from dataclasses import replace
from typing import Any

from nanochat.checkpoint.find import ResolvedRef
from nanochat.checkpoint.load import load_dims
from nanochat.config.frozen import write_config
from nanochat.config.validate import flatten, plain
from nanochat.data.source import validation_batches
from nanochat.engine.engine import Engine
from nanochat.evals.bpb import evaluate_bpb
from nanochat.evals.samples import sample_prompts
from nanochat.model.gpt import GPT
from nanochat.reporting.report import write_report
from nanochat.reporting.tables import render_table
from nanochat.runtime.device import Machine, detect, set_threads
from nanochat.runtime.environment import describe_environment
from nanochat.stages.facts import adopt_model, checkpoint_mark, load_tokenizer, origin
from nanochat.stages.hooks import chat_tasks, task_metrics, write_samples
from nanochat.stages.inference import load_for_inference
from nanochat.stages.job import Job
from nanochat.stages.session import PLAN_FILE, RESULT_FILE, SAMPLES_FILE, write_result
from nanochat.stages.sources import TRIM, open_docs
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tracking.atomic import write_json
from nanochat.tracking.composite import build_trackers

_BATCH_TOKENS = 16384  # tokens of an evaluation batch where no training step gives the size


def run_eval(job: Job) -> None:
    """Measures the checkpoint of `init_from` (default: the run's sft, else mid, else base) and prints a table.

    What was measured already on the same weights and data is left as it is, unless `overwrite`.
    """
    set_threads(job.config.runtime)
    machine = detect(job.config.runtime)
    ref = origin(job)
    assert ref is not None
    job = adopt_model(job, ref)
    tokenizer = load_tokenizer(job, ref)
    identity = _identity(job, ref, tokenizer)
    if _already_there(job, identity):
        print(f"{job.run_dir} is complete for {ref}; nothing to do (overwrite=true measures again)")
        return
    tasks = chat_tasks(job)
    model = load_for_inference(ref, machine)
    began = time.perf_counter()
    metrics = _bits_per_byte(job, machine, model, tokenizer)
    metrics |= task_metrics(job, machine, model, tokenizer, tasks)
    samples = _samples(job, machine, model, tokenizer)
    print(render_table(["metric", str(ref)], [[name, value] for name, value in metrics.items()]))
    if not job.config.dry_run:
        _keep(job, ref, machine, metrics, samples, identity, time.perf_counter() - began)


def _identity(job: Job, ref: ResolvedRef, tokenizer: Tokenizer) -> dict[str, Any]:
    """What decides the numbers: the weights, what is asked of them, the text."""
    asked = {k: v for k, v in flatten(job.config).items() if k.startswith(("eval.", "data.")) or k == "seed"}
    text = {}
    if job.config.eval.every > 0:
        docs = open_docs(job, tokenizer, load_dims(ref.path).seq_len, "val")
        text = {"data.fingerprint": hashlib.sha256(json.dumps(docs.fingerprint(), sort_keys=True).encode()).hexdigest()}
    return {"checkpoint": str(ref), "init_mark": checkpoint_mark(ref), **asked, **text}


def _already_there(job: Job, identity: dict[str, Any]) -> bool:
    plan = job.run_dir / PLAN_FILE
    if job.config.overwrite or job.config.dry_run or not (job.run_dir / RESULT_FILE).is_file() or not plan.is_file():
        return False
    saved: dict[str, Any] = json.loads(plan.read_text(encoding="utf-8"))["recipe"]
    return bool(saved == json.loads(json.dumps(identity)))


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


def _samples(job: Job, machine: Machine, model: GPT, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    options = job.config.eval
    if options.sample_every <= 0 or not options.prompts:
        return []
    engine = Engine(model, tokenizer, machine.device)
    return sample_prompts(engine, tokenizer, options.prompts, options.sample_tokens)


def _keep(
    job: Job,
    ref: ResolvedRef,
    machine: Machine,
    metrics: dict[str, float],
    samples: list[tuple[str, str]],
    identity: dict[str, Any],
    seconds: float,
) -> None:
    """Writes the run folder; the trackers get the metrics at the checkpoint's step."""
    folder = job.run_dir
    for name in (RESULT_FILE, "metrics.jsonl", SAMPLES_FILE):
        (folder / name).unlink(missing_ok=True)
    write_config(replace(job.config, init_from=str(ref)), folder / "config.yaml")
    write_json(folder / PLAN_FILE, {"recipe": identity})
    write_json(folder / "environment.json", [describe_environment(machine.name)])
    tracker = build_trackers(
        job.config.tracking, folder, job.run, plain(job.config), {}, list(job.config.tags), ref.step
    )
    tracker.log(ref.step, metrics)
    tracker.finish()
    write_samples(folder / SAMPLES_FILE, ref.step, samples)
    write_result(folder, ref.step, metrics, seconds)
    write_report(folder)
    print(f"done: {folder}")
