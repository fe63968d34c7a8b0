"""`nanochat plan`: what a run would be, with the rule behind each number, and the learning-rate curve."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nanochat.config.arguments import Arguments, split_args
from nanochat.config.load import compose_run
from nanochat.config.naming import tokenizer_dir, with_names
from nanochat.config.overrides import expand_sweep
from nanochat.config.root import Stage
from nanochat.errors import ConfigError
from nanochat.plan.early import check_sizes
from nanochat.plan.plan import Plan, make_plan
from nanochat.plan.schedules import lr_factor
from nanochat.reporting.curve import draw_curve
from nanochat.reporting.tables import render_table
from nanochat.stages.facts import Hardware, preview_facts
from nanochat.stages.identity_plan import identity_rows
from nanochat.stages.job import Job
from nanochat.stages.routing import stage_jobs
from nanochat.train import run

_TRAINS = (Stage.base, Stage.mid, Stage.sft)
_USAGE = """nanochat plan [key=value ...] [-m] [--here]

Prints what a run would be and the rule behind each number; trains and writes nothing. With stage=pipeline each
stage is planned, with -m each combination of the values. With --here, or with a runtime= that names a GPU, it says
whether the run fits into the memory, and ends with 1 if it does not:

  nanochat plan stage=base model.depth=26
  nanochat plan model.depth=26 runtime=rtx4090
  nanochat plan -m model.depth=12,16,20"""
_HERE = "--here"


def main(argv: Sequence[str]) -> int:
    """Prints the plan of one run, of each stage of a pipeline, or (with -m) a table of a sweep's runs.

    Returns 1 where a run does not fit into the GPU it is judged by.
    """
    here, argv = _HERE in argv, [word for word in argv if word != _HERE]
    arguments = split_args(argv)
    if "--help" in arguments.flags:
        print(_USAGE)
        return 0
    if set(arguments.flags) - {"--multirun"}:
        return run(argv)  # --cfg and the like show the config that is planned with
    if arguments.multirun:
        return _print_sweep(arguments, here)
    code = 0
    for number, job in enumerate(jobs_of(arguments.overrides, arguments.config_dirs)):
        print("" if number == 0 else "\n", end="")
        code = max(code, _print_stage(job, here))
    return code


def jobs_of(overrides: Sequence[str], config_dirs: Sequence[str]) -> list[Job]:
    """The run that the overrides ask for, or those of the pipeline's stages."""
    composed = compose_run(overrides, config_dirs)
    job = Job(with_names(composed.config), tuple(composed.overrides), tuple(config_dirs))
    if job.config.stage != Stage.pipeline:
        return [job]
    made: dict[str, Job] = {}
    for each in stage_jobs(job):
        each = _as_continuation(each, made.get(each.config.init_from or ""))
        made[f"{each.config.stage}/{each.run}"] = each
    return list(made.values())


def _as_continuation(job: Job, source: Job | None) -> Job:
    """A stage of a pipeline with what the checkpoint of the stage before will give it, if that is not there yet."""
    if source is None:
        return job
    before = source.config
    return replace(job, config=replace(job.config, init_from=None, model=before.model, tokenizer=before.tokenizer))


def _planned(job: Job, here: bool) -> tuple[Job, Plan]:
    check_sizes(job.config)
    hardware = _this_machine(job) if here else None
    job, facts = preview_facts(job, lambda text: print(text, file=sys.stderr, flush=True), hardware)
    return job, make_plan(job.config, facts)


def _this_machine(job: Job) -> Hardware:
    from nanochat.runtime.device import detect  # pulls in torch, which a plan for nowhere does not need

    machine = detect(job.config.runtime)
    return Hardware(machine.device, machine.dtype, machine.memory, machine.compile)


def _print_stage(job: Job, here: bool) -> int:
    """Returns 1 where the run does not fit."""
    config = job.config
    rows: list[list[Any]]
    if config.stage == Stage.tokenizer:
        rows = [
            ["vocabulary", config.tokenizer.vocab_size, "tokenizer.vocab_size, the 9 special tokens included"],
            ["characters at most", config.tokenizer.max_chars, "tokenizer.max_chars"],
            ["characters of a document at most", config.tokenizer.doc_cap, "tokenizer.doc_cap"],
            ["folder", str(tokenizer_dir(config)), "{base_dir}/tokenizer/{tokenizer.name}"],
        ]
        print(render_table(["tokenizer", "value", "rule"], rows))
    elif config.stage == Stage.identity:
        print(render_table([f"identity/{job.run}", "value", "rule"], identity_rows(job)))
    elif config.stage == Stage.eval:
        tasks = ", ".join(config.eval.tasks) or "none"
        rows = [["tasks", tasks, "eval.tasks"], ["validation tokens", config.eval.tokens, "eval.tokens"]]
        print(render_table(["eval", "value", "rule"], rows))
    else:
        return _print_plan(*_planned(job, here))
    return 0


def _print_plan(job: Job, plan: Plan) -> int:
    rows = [[rule.name, rule.value, rule.rule] for rule in plan.rules]
    print(render_table([f"{job.config.stage}/{job.run}", "value", "rule"], rows))
    steps, schedule = plan.recipe.steps, job.config.schedule
    print(f"\nlearning-rate factor over {steps:,} steps ({schedule.name}):")
    print(draw_curve([lr_factor(schedule, s, steps) for s in _points(steps)], steps))
    print(
        f"\nidentity {plan.recipe.hash}" + (f", starting from {plan.recipe.init_from}" if plan.recipe.init_from else "")
    )
    for warning in plan.warnings:
        print(f"warning: {warning}")
    if plan.misfit is not None:
        print(f"does not fit: {plan.misfit.said}")
    return 0 if plan.misfit is None else 1


def _points(steps: int, most: int = 72) -> list[int]:
    """Evenly spread steps, the first and the last included."""
    count = min(most, steps)
    return [round(i * (steps - 1) / max(1, count - 1)) for i in range(count)]


def _print_sweep(arguments: Arguments, here: bool) -> int:
    """Returns 1 where one of the runs does not fit."""
    rows: list[list[Any]] = []
    misfits: list[str] = []
    for overrides in expand_sweep(arguments.overrides):
        trained = [j for j in jobs_of(overrides, arguments.config_dirs) if j.config.stage in _TRAINS]
        if not trained:
            raise ConfigError(f"{' '.join(overrides)} trains no model; plan -m compares {', '.join(map(str, _TRAINS))}")
        for job in trained:
            plan = _planned(job, here)[1]
            recipe = plan.recipe
            misfits += [] if plan.misfit is None else [f"{' '.join(overrides)} does not fit: {plan.misfit.said}"]
            shape = [recipe.dims.n_layer, recipe.dims.n_embd, recipe.params.total]
            length = [recipe.batch_tokens, recipe.steps, recipe.tokens, float(recipe.tokens * recipe.flops_per_token)]
            rows.append([str(job.config.stage), " ".join(overrides), *shape, *length])
    columns = ["stage", "run", "layers", "width", "parameters", "batch", "steps", "tokens", "FLOPs"]
    print(render_table(columns, rows))
    for misfit in misfits:
        print(misfit)
    return 1 if misfits else 0
