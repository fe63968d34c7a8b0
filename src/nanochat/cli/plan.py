"""`nanochat plan`: what a run would be, with the rule behind each number, and the learning-rate curve."""

from collections.abc import Sequence

from nanochat.config.load import compose_run, expand_sweep, normalize_override
from nanochat.config.naming import tokenizer_dir, with_names
from nanochat.config.root import Stage
from nanochat.plan.plan import Plan, make_plan
from nanochat.plan.schedules import lr_factor
from nanochat.reporting.curve import draw_curve
from nanochat.reporting.tables import render_table
from nanochat.stages.facts import preview_facts
from nanochat.stages.job import Job
from nanochat.stages.routing import stage_jobs
from nanochat.train import split_args

_TRAINS = (Stage.base, Stage.mid, Stage.sft)


def main(argv: Sequence[str]) -> int:
    """Prints the plan of one run, of each stage of a pipeline, or (with -m) a table of a sweep's runs."""
    flags, overrides, config_dirs = split_args(argv)
    overrides = [normalize_override(o) for o in overrides]
    if "-m" in flags or "--multirun" in flags:
        _print_sweep(expand_sweep(overrides), config_dirs)
        return 0
    job = _job(overrides, config_dirs)
    if job.config.stage == Stage.pipeline:
        for number, each in enumerate(stage_jobs(job)):
            print("" if number == 0 else "\n", end="")
            _print_stage(each)
        return 0
    _print_stage(job)
    return 0


def _job(overrides: Sequence[str], config_dirs: Sequence[str]) -> Job:
    composed = compose_run(overrides, config_dirs)
    return Job(with_names(composed.config), tuple(composed.overrides), tuple(config_dirs))


def _print_stage(job: Job) -> None:
    config = job.config
    if config.stage == Stage.tokenizer:
        rows = [
            ["vocabulary", config.tokenizer.vocab_size, "tokenizer.vocab_size, the 9 special tokens included"],
            ["characters at most", config.tokenizer.max_chars, "tokenizer.max_chars"],
            ["characters of a document at most", config.tokenizer.doc_cap, "tokenizer.doc_cap"],
            ["folder", str(tokenizer_dir(config)), "{base_dir}/tokenizer/{tokenizer.name}"],
        ]
        print(render_table(["tokenizer", "value", "rule"], rows))
        return
    if config.stage == Stage.eval:
        tasks = ", ".join(config.eval.tasks) or "none"
        rows = [["tasks", tasks, "eval.tasks"], ["validation tokens", config.eval.tokens, "eval.tokens"]]
        print(render_table(["eval", "value", "rule"], rows))
        return
    job, facts = preview_facts(job)
    _print_plan(job, make_plan(job.config, facts))


def _print_plan(job: Job, plan: Plan) -> None:
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


def _points(steps: int, most: int = 72) -> list[int]:
    """Evenly spread steps, the first and the last included."""
    count = min(most, steps)
    return [round(i * (steps - 1) / max(1, count - 1)) for i in range(count)]


def _print_sweep(jobs: Sequence[Sequence[str]], config_dirs: Sequence[str]) -> None:
    rows = []
    for overrides in jobs:
        job, facts = preview_facts(_job(overrides, config_dirs))
        recipe = make_plan(job.config, facts).recipe
        rows.append(
            [" ".join(overrides), recipe.dims.n_layer, recipe.dims.n_embd, recipe.params.total, recipe.batch_tokens]
            + [recipe.steps, recipe.tokens, float(recipe.tokens * recipe.flops_per_token)]
        )
    print(render_table(["run", "layers", "width", "parameters", "batch", "steps", "tokens", "FLOPs"], rows))
