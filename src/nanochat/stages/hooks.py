"""The evaluations that run between training steps: validation bits per byte, samples, tasks, CORE."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from nanochat.config.root import RunConfig
from nanochat.data.shards import ShardFolder
from nanochat.data.source import validation_batches
from nanochat.engine.engine import Engine
from nanochat.evals.bpb import evaluate_bpb
from nanochat.evals.chat import ChatOptions, TaskResult, evaluate_tasks, open_tasks
from nanochat.evals.chatcore import chat_metrics
from nanochat.evals.samples import sample_prompts
from nanochat.model.gpt import GPT
from nanochat.plan.plan import Plan
from nanochat.runtime.device import Machine
from nanochat.stages.core import core_hook
from nanochat.stages.job import Job
from nanochat.stages.session import SAMPLES_FILE, Session
from nanochat.stages.sources import TRIM, open_docs, task_context
from nanochat.tasks.base import Task
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tracking.jsonl import MetricsLog, cut_jsonl, read_jsonl
from nanochat.training.hooks import Hook
from nanochat.training.loop import Parts


def eval_hooks(
    session: Session,
    plan: Plan,
    machine: Machine,
    model: GPT,
    parts: Parts,
    tokenizer: Tokenizer,
    shards: ShardFolder | None = None,
    interrupted: Callable[[], object] = lambda: False,
) -> list[Hook]:
    """One hook each for what the eval group enables. A step already on record is not measured again.

    What takes long, CORE, comes last, and ends early when `interrupted()`.
    """
    job, options = session.job, session.job.config.eval
    hooks = []
    if options.every > 0:
        validate = _validator(job, plan, machine, parts, tokenizer, shards)
        hooks.append(Hook("validate", options.every, _logged(session, "val/bpb", validate), at_start=True))
    if options.sample_every > 0 and options.prompts:
        hooks.append(Hook("sample", options.sample_every, _sampler(session, machine, model, tokenizer)))
    if options.metrics_every > 0 and options.tasks:
        measure = partial(task_metrics, job, machine, model, tokenizer, chat_tasks(job))
        hooks.append(Hook("tasks", options.metrics_every, _logged(session, "eval/chat", measure)))
    if options.core_every > 0 and (core := core_hook(session, plan, machine, model, tokenizer, interrupted)):
        hooks.append(core)
    return hooks


def _logged(session: Session, mark: str, measure: Callable[[], dict[str, float]]) -> Callable[[int], None]:
    """Measures, logs and says; leaves out steps for which a metric beginning with `mark` is on record."""
    rows = read_jsonl(session.job.run_dir / "metrics.jsonl")
    recorded = {row["step"] for row in rows if any(key.startswith(mark) for key in row)}

    def hook(step: int) -> None:
        if step in recorded:
            return
        metrics = measure()
        assert session.tracker is not None
        session.tracker.log(step, metrics)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        session.console.say(f"step {step}: {shown}")

    return hook


def validation_tokens(config: RunConfig, plan: Plan) -> int:
    """Tokens of validation text each time: `eval.steps` batches of the training step's size, else `eval.tokens`."""
    steps = config.eval.steps
    return steps * plan.recipe.batch_tokens if steps is not None else config.eval.tokens


def _validator(
    job: Job, plan: Plan, machine: Machine, parts: Parts, tokenizer: Tokenizer, shards: ShardFolder | None
) -> Callable[[], dict[str, float]]:
    docs = open_docs(job, tokenizer, plan.recipe.dims.seq_len, "val", shards=shards)
    tokens = validation_tokens(job.config, plan)

    def measure() -> dict[str, float]:
        batches = validation_batches(
            docs,
            job.config.data.packing,
            plan.recipe.dims.seq_len,
            plan.placement.device_rows,
            tokens,
            pad_id=tokenizer.bos,
            trim_to=None if machine.compile else TRIM,
        )
        result = evaluate_bpb(parts.model, batches, tokenizer.token_bytes, machine.device, machine.compile)
        return {"val/bpb": result.bpb, "val/loss": result.loss}

    return measure


def _sampler(session: Session, machine: Machine, model: GPT, tokenizer: Tokenizer) -> Callable[[int], None]:
    options, path = session.job.config.eval, session.job.run_dir / SAMPLES_FILE
    recorded = _whole_samples(path, session.start, len(options.prompts))

    def hook(step: int) -> None:
        if step in recorded:
            return
        engine = Engine(model, tokenizer, machine.device)
        pairs = sample_prompts(engine, tokenizer, options.prompts, options.sample_tokens)
        write_samples(path, step, pairs)
        session.console.say("\n".join(f"  {prompt} |{text}" for prompt, text in pairs))

    return hook


def _whole_samples(path: Path, last: int, prompts: int) -> set[int]:
    """The steps on record. Those of the step `last` are forgotten if a kill came between them."""
    steps = [row["step"] for row in read_jsonl(path)]
    if 0 < steps.count(last) < prompts:
        cut_jsonl(path, last - 1)
    return {step for step in steps if step != last or steps.count(step) >= prompts}


def write_samples(path: Path, step: int, pairs: list[tuple[str, str]]) -> None:
    """Appends one line a sample to samples.jsonl."""
    log = MetricsLog(path)
    for prompt, text in pairs:
        log.log(step, {"prompt": prompt, "sample": text})
    log.finish()


def chat_tasks(job: Job) -> dict[str, Task]:
    """`eval.tasks`, opened. Raises ConfigError for one that cannot be asked or checked as `eval` says."""
    options = job.config.eval
    if options.tasks:
        _chat_options(job)
    context = replace(task_context(job), allow_unsafe_code=options.allow_unsafe_code)
    return open_tasks(options.tasks, context)


def task_metrics(
    job: Job, machine: Machine, model: GPT, tokenizer: Tokenizer, tasks: Mapping[str, Task]
) -> dict[str, float]:
    """What the tasks say of the model, as numbers by name."""
    return chat_metrics(task_results(job, machine, model, tokenizer, tasks))


def task_results(
    job: Job, machine: Machine, model: GPT, tokenizer: Tokenizer, tasks: Mapping[str, Task]
) -> list[TaskResult]:
    """Every rank asks its share of the problems and gets the results of all."""
    return evaluate_tasks(Engine(model, tokenizer, machine.device), tokenizer, tasks, _chat_options(job))


def _chat_options(job: Job) -> ChatOptions:
    options = job.config.eval
    return ChatOptions(
        max_problems=options.metrics_max_problems,
        num_samples=options.num_samples,
        temperature=options.temperature,
        top_k=options.top_k,
        max_new_tokens=options.max_new_tokens,
        seed=job.config.seed,
    )
