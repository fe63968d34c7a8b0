"""What base, mid and sft share: from a job to a trained run folder.

    job -> origin, tokenizer -> facts -> plan -> session (resume?) -> model, optimizer, source -> loop -> report

The stages differ in their defaults (conf/stage/) and in what they start from; no branch here asks which it is,
except that a base run may start from nothing.
"""

import getpass
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nanochat.checkpoint.find import ResolvedRef
from nanochat.checkpoint.load import load_model, load_optimizer, load_state
from nanochat.checkpoint.rng import capture_rng, restore_rng
from nanochat.checkpoint.save import save_checkpoint
from nanochat.config.root import RunConfig, Stage
from nanochat.config.schedule import ScheduleName
from nanochat.data.prefetch import Prefetch
from nanochat.data.shards import ShardFolder
from nanochat.data.source import Source
from nanochat.errors import ConfigError, Interrupted, MismatchError
from nanochat.model.attention_choice import AttentionChoice, attention_for
from nanochat.model.build import build_model, use_fp8
from nanochat.model.flash4_ahead import compiled_ahead
from nanochat.model.gpt import GPT
from nanochat.model.stream import Fused, fused_for
from nanochat.optim.build import build_optimizer
from nanochat.optim.optimizer import Optimizer
from nanochat.plan.plan import Plan, make_plan
from nanochat.plan.schedules import StepRates, step_rates
from nanochat.reporting.report import write_report
from nanochat.runtime.compiler import prepare_compiler
from nanochat.runtime.device import Machine, detect, set_threads
from nanochat.runtime.dist import check_ranks, current_ranks
from nanochat.runtime.interrupt import InterruptFlag, watch_signals
from nanochat.runtime.lock import hold
from nanochat.runtime.malloc import keep_freed_memory
from nanochat.runtime.memory import explain_out_of_memory
from nanochat.runtime.seeding import seed_all
from nanochat.stages.documents import shard_folder
from nanochat.stages.facts import Hardware, adopt_model, load_tokenizer, origin, plan_facts
from nanochat.stages.hooks import eval_hooks
from nanochat.stages.job import Job
from nanochat.stages.progress import Reporter
from nanochat.stages.session import Session, open_session, write_result
from nanochat.stages.sources import TRIM, open_docs
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tracking.console import Console
from nanochat.tracking.jsonl import last_values
from nanochat.training.hooks import Hook
from nanochat.training.loop import LoopEnd, Parts, StepSource, train_loop
from nanochat.training.loss_scale import LossScale
from nanochat.training.objectives import build_objective
from nanochat.training.step import NonFiniteGuard


def run_training(job: Job) -> None:
    """Trains the job's run to its end, continuing what is there. Raises Interrupted after saving on a signal."""
    check_ranks()
    set_threads(job.config.runtime)
    keep_freed_memory()
    machine = detect(job.config.runtime)
    ref = origin(job)
    if ref is not None:
        _check_origin(job, ref)
        job = adopt_model(job, ref)
    tokenizer = load_tokenizer(job, ref)
    hardware = Hardware(machine.device, machine.dtype, machine.memory, machine.compile, current_ranks().world)
    say = Console(None, current_ranks().is_main).say  # the run has no log yet
    plan = make_plan(job.config, plan_facts(job, hardware, ref, tokenizer, say))
    if plan.misfit is not None and plan.misfit.certain:
        raise ConfigError(plan.misfit.said)
    attention = attention_of(job.config, plan, machine)  # what cannot be is said before anything is written
    _fused(job.config, plan, machine)
    with hold(job.run_dir):
        session = open_session(job, plan, machine.name)
        if session.done:
            _say_done(session)
            return
        for warning in (*plan.warnings, *([plan.misfit.said] if plan.misfit else [])):
            session.console.say(f"warning: {warning}")
        tokenizer.save(job.run_dir / "tokenizer")
        placement, seq_len = plan.placement, plan.recipe.dims.seq_len
        less = (placement.activation_checkpointing, placement.recompute_cheap or not placement.compile)
        enough = explain_out_of_memory(placement.device_rows, seq_len, machine.name, *less)
        with enough, compiled_ahead(attention, plan.recipe.dims, machine.dtype):
            _train(session, plan, machine, ref, tokenizer)


def _check_origin(job: Job, ref: ResolvedRef) -> None:
    """A run that starts from itself would delete, or continue, its own origin."""
    if ref.run_dir.resolve() == job.run_dir.resolve():
        raise ConfigError(
            f"init_from={ref} is a checkpoint of this very run, {job.config.stage}/{job.run}; name the new run by run="
        )


def _say_done(session: Session) -> None:
    folder = session.job.run_dir
    if not (folder / "report.md").is_file():  # the run was killed behind its last word
        write_report(folder)
    session.console.say(f"{folder} is complete; nothing to do (overwrite=true trains it again)")


def _train(session: Session, plan: Plan, machine: Machine, ref: ResolvedRef | None, tokenizer: Tokenizer) -> None:
    began = time.perf_counter()
    assert session.tracker is not None
    ok = False
    try:
        shards = shard_folder(session.job, plan.recipe.shards, session.console.say)
        with shards or nullcontext():  # fetched while training
            end = _loop(session, plan, machine, ref, tokenizer, shards)
        ok = True
    finally:
        session.console.end_progress()
        session.tracker.finish(ok)
    if end.signal is not None:
        raise Interrupted(_farewell(session, end.step, end.signal))
    if not session.job.config.dry_run:
        _finish(session, end.step, time.perf_counter() - began)


def _loop(
    session: Session,
    plan: Plan,
    machine: Machine,
    ref: ResolvedRef | None,
    tokenizer: Tokenizer,
    shards: ShardFolder | None,
) -> LoopEnd:
    job = session.job
    seed_all(job.config.seed)
    model, parts = build_parts(session, plan, machine, tokenizer, shards)
    _restore(session, ref, model, parts)
    save = Hook("save", job.config.train.save_every, partial(_save, session, plan, model, parts), True, saves=True)
    saves = [] if job.config.dry_run else [save]
    signals: list[InterruptFlag] = []  # watched for from the first step on
    interrupted = lambda: any(flag.name for flag in signals)  # noqa: E731
    evaluations = eval_hooks(session, plan, machine, model, parts, tokenizer, shards, interrupted)
    where = f"continuing from step {session.start}" if session.start else f"from {ref}" if ref else "from nothing"
    session.console.say(
        f"{job.config.stage}/{job.run}: {plan.recipe.steps:,} steps of {plan.recipe.batch_tokens:,} tokens, {where}"
    )
    with watch_signals() as flag, parts.source, ExitStack() as before:
        signals.append(flag)
        if shards is not None:
            before.callback(shards.stop)  # first, or the source's thread would be waited for while it waits for a shard
        try:
            return train_loop(
                parts,
                start=session.start,
                total=plan.recipe.steps,
                hooks=[*saves, *evaluations],
                report=Reporter(session, plan, machine).report,
                interrupted=lambda: flag.name,
            )
        except RuntimeError as error:
            if flag.name is None or not _of_compiler(error):
                raise
            raise Interrupted(
                f"{flag.name}: stopped while it was compiled; {job.again} continues from the last checkpoint. If torch "
                f"then says that a file is too short, remove its cache: TORCHINDUCTOR_CACHE_DIR, else torchinductor_"
                f"{getpass.getuser()} in the folder for temporary files"
            ) from error


def _of_compiler(error: RuntimeError) -> bool:
    """Ctrl-C in a terminal also reaches the programs that torch.compile has started: they fail, and no step is done."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def _farewell(session: Session, step: int, signal: str) -> str:
    job = session.job
    if job.config.dry_run:
        return f"{signal}: stopped after step {step}; dry_run=true saved nothing"
    if step == session.start:
        return f"{signal}: stopped before step {step + 1}; {job.again} continues from step {step}"
    return f"{signal}: saved step {step} in {job.run_dir / 'checkpoints'}; {job.again} continues from there"


def build_parts(
    session: Session, plan: Plan, machine: Machine, tokenizer: Tokenizer, shards: ShardFolder | None = None
) -> tuple[GPT, Parts]:
    """The bare model and what the loop trains with, all at step 0."""
    config, recipe = session.job.config, plan.recipe
    docs = open_docs(session.job, tokenizer, recipe.dims.seq_len, "train", session.console.say, shards)
    ranks = current_ranks()
    source = Source(
        docs,
        config.data.packing,
        recipe.dims.seq_len,
        recipe.rows,
        recipe.lanes,
        plan.placement.device_rows,
        tokenizer.bos,
        rank=ranks.rank,
        world=ranks.world,
        trim_to=None if machine.compile else TRIM,
    )
    depth = 0 if config.data.workers == 0 else config.data.prefetch
    ahead = Prefetch(source, depth, pin=torch.device(machine.device).type == "cuda")
    return assemble(config, plan, machine, ahead, session.console.say)


def assemble(
    config: RunConfig, plan: Plan, machine: Machine, source: StepSource, say: Callable[[str], None]
) -> tuple[GPT, Parts]:
    """The bare model and the loop's parts around any source: what a run and its benchmark have in common."""
    recipe = plan.recipe
    meanwhile = prepare_compiler if machine.compile else lambda: None
    model = build_model(recipe.dims, machine.device, machine.dtype, config.seed, meanwhile)
    if config.runtime.fp8:
        use_fp8(model)
    model.activation_checkpointing = plan.placement.activation_checkpointing
    model.recompute_cheap = plan.placement.recompute_cheap
    model.attention = attention_of(config, plan, machine)
    model.fused = _fused(config, plan, machine)
    say(f"attention: {model.attention.reason}")
    optim = replace(config.optim, weight_decay=recipe.weight_decay)
    optimizer = build_optimizer(
        dict(model.named_parameters()), model.parameter_roles(), optim, recipe.lrs, compile=machine.compile
    )
    return model, Parts(
        model=model,
        optimizer=optimizer,
        objective=build_objective(config.objective, compile=machine.compile),
        source=source,
        rates_at=partial(_rates, config, recipe.steps),
        grad_clip=config.optim.grad_clip,
        guard=NonFiniteGuard(config.guards.non_finite, config.guards.max_skips, say),
        device=machine.device,
        loss_scale=LossScale(say) if machine.dtype == "float16" else None,
    )


def attention_of(config: RunConfig, plan: Plan, machine: Machine) -> AttentionChoice:
    """The kernels of the run. Raises ConfigError for what cannot be."""
    dims, asked = plan.recipe.dims, str(config.runtime.attention)
    return attention_for(asked, dims, machine.device, machine.dtype, machine.compile)


def _fused(config: RunConfig, plan: Plan, machine: Machine) -> Fused:
    dims, asked = plan.recipe.dims, config.runtime.fused_kernels
    return fused_for(asked, dims, machine.device, machine.dtype, machine.compile)


def _rates(config: RunConfig, total: int, s: int, updates: int) -> StepRates:
    """A branch goes on with its trunk's momentum; another run that took an optimizer over begins with its own."""
    begins = config.train.init_optimizer and not _is_branch(config)
    return step_rates(config.schedule, config.optim, s, total, s if begins else updates)


def _is_branch(config: RunConfig) -> bool:
    """A base run that starts from another with schedule=decay takes its optimizer and data position too."""
    return config.stage == Stage.base and config.schedule.name == ScheduleName.decay


def _restore(session: Session, ref: ResolvedRef | None, model: GPT, parts: Parts) -> None:
    """Weights of the origin for a fresh run; everything of the checkpoint for one that continues.

    A branch off a trunk takes the optimizer and the data position too, `train.init_optimizer` the optimizer alone.
    """
    config = session.job.config
    if session.checkpoint is not None:
        _load_weights(model, session.checkpoint)
        state = _load_progress(session.checkpoint, parts.optimizer, parts.source)
        parts.guard.skipped = state["loop"]["skipped"]
        if parts.loss_scale is not None:
            parts.loss_scale.load(state["loop"].get("loss_scale"))
        restore_rng(state["rng"])
    elif ref is not None:
        _load_weights(model, ref.path)
        if _is_branch(config):
            _load_progress(ref.path, parts.optimizer, parts.source)
        elif config.train.init_optimizer:
            _take_optimizer(ref, parts.optimizer)


def _take_optimizer(ref: ResolvedRef, optimizer: Optimizer) -> None:
    """Momentum and moments of the origin, and how many updates they are of."""
    try:
        optimizer.load_state_tensors(load_optimizer(ref.path))
    except MismatchError as error:
        raise MismatchError(
            f"train.init_optimizer=true takes the optimizer's state from {ref}: {error}; or set "
            f"train.init_optimizer=false, which begins with none"
        ) from error


def _load_weights(model: GPT, checkpoint: Path) -> None:
    model.load_state_dict(load_model(checkpoint), strict=True)


def _load_progress(checkpoint: Path, optimizer: Optimizer, source: StepSource) -> dict[str, Any]:
    """Optimizer and data position as saved; returns the whole saved state."""
    state = load_state(checkpoint)
    optimizer.load_state_tensors(load_optimizer(checkpoint))
    source.load_state_dict(state["loader"])
    return state


def _save(session: Session, plan: Plan, model: GPT, parts: Parts, step: int) -> None:
    state: dict[str, Any] = {
        "loader": parts.source.state_dict(),
        "rng": capture_rng(),
        "loop": {
            "step": step,
            "steps": plan.recipe.steps,
            "recipe_hash": plan.recipe.hash,
            "skipped": parts.guard.skipped,
            "loss_scale": parts.loss_scale.state() if parts.loss_scale is not None else None,
        },
    }
    save_checkpoint(
        session.job.run_dir / "checkpoints" / f"step_{step:06d}",
        model=model.state_dict(),
        model_yaml=asdict(plan.recipe.dims),
        optimizer=parts.optimizer.state_tensors(),
        state=state,
    )


def _finish(session: Session, step: int, seconds: float) -> None:
    """The report, then result.json, which says that the run is complete."""
    folder = session.job.run_dir
    metrics = {k: v for k, v in last_values(folder / "metrics.jsonl").items() if k != "step"}
    write_result(folder, step, metrics, seconds)
    write_report(folder)
    session.console.say(f"done: {folder} (report.md, checkpoints/step_{step:06d})")
