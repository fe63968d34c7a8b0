"""The pipeline: a row of ordinary runs, each in its own process, from configs that are frozen before the first.

Notable: nothing is remembered between stages but their run folders. A stage that is complete for the same config
finds that out itself and ends at once, so running the same command again continues where it stopped.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.cluster.frozen import FrozenJob, freeze, run_worker
from nanochat.config.naming import tokenizer_dir
from nanochat.config.root import Stage
from nanochat.errors import ConfigError, Interrupted, NanochatError
from nanochat.reporting.tables import markdown_table, render_table
from nanochat.stages.job import Job
from nanochat.stages.routing import Route, route, stage_jobs

_QUESTION = "Who are you?"
_CHAT_STAGES = (Stage.sft, Stage.mid)


@dataclass(frozen=True)
class StageResult:
    """A stage that has ended well."""

    job: Job
    seconds: float
    cells: tuple[str, ...]


def run_pipeline(job: Job) -> None:
    """Runs `pipeline.stages` in order. Raises NanochatError at the first stage that fails, Interrupted on a signal."""
    routes = route(job)
    jobs = stage_jobs(job, routes)
    _check_dry_run(job, jobs)
    _print_routes(job, jobs, routes)
    folder = job.base_dir / "pipelines" / job.run
    frozen = [freeze(FrozenJob(j.config, j.overrides, j.config_dirs), folder / f"{j.config.stage}.yaml") for j in jobs]
    results: list[StageResult] = []
    for number, (each, path) in enumerate(zip(jobs, frozen, strict=True), 1):
        print(f"\n[{number}/{len(jobs)}] {each.config.stage}: {' '.join(each.overrides)}", flush=True)
        where = f"stage {each.config.stage} ({number} of {len(jobs)})"
        try:
            ended = run_worker(path)
        except Interrupted as error:
            raise Interrupted(f"the pipeline was {error} in {where}; {job.again} continues there") from error
        if ended.code != 0:
            raise NanochatError(
                f"the pipeline stopped: {where} ended with exit code {ended.code}, its message stands above; the "
                f"stages before it are kept, and {job.again} continues with this one"
            )
        results.append(StageResult(each, ended.seconds, _cells(each)))
    _print_results(results, folder)
    _print_conversation(jobs)


def _check_dry_run(job: Job, jobs: Sequence[Job]) -> None:
    """Refuses what can only fail after a stage has been trained for nothing."""
    if job.config.dry_run and len(jobs) > 1:
        raise ConfigError(
            "dry_run=true: the stages of a pipeline start from what the ones before them write, and a dry run writes "
            "nothing; see `nanochat plan stage=pipeline`, or give dry_run=true to a single stage"
        )


def _print_routes(job: Job, jobs: Sequence[Job], routes: Sequence[Route]) -> None:
    """What each stage got: the common overrides, then its own."""
    stages = [str(j.config.stage) for j in jobs]
    rows = [[r.override, *("x" if each in map(str, r.stages) else "" for each in stages)] for r in routes]
    for each in jobs:
        own = job.config.pipeline.overrides.get(str(each.config.stage)) or []
        rows += [[o, *("x" if s == str(each.config.stage) else "" for s in stages)] for o in own]
    print(render_table(["override", *stages], rows) if rows else f"stages: {', '.join(stages)}", flush=True)


def _folder(job: Job) -> Path:
    return tokenizer_dir(job.config) if job.config.stage == Stage.tokenizer else job.run_dir


def _cells(job: Job) -> tuple[str, ...]:
    """What the results table says of a stage: steps, loss, bits per byte, task accuracies."""
    path = _folder(job) / "result.json"
    if not path.is_file():
        return ("", "", "", "")
    result = json.loads(path.read_text(encoding="utf-8"))
    metrics = result["metrics"]
    loss, bpb = (f"{metrics[k]:.4f}" if isinstance(metrics.get(k), float) else "" for k in ("train/loss", "val/bpb"))
    tasks = ", ".join(f"{k.rsplit('/', 1)[-1]} {v:.0%}" for k, v in metrics.items() if k.startswith("eval/chat/"))
    return (str(result["step"]), loss, bpb, tasks)


def _print_results(results: Sequence[StageResult], folder: Path) -> None:
    columns = ["stage", "seconds", "steps", "train loss", "val bpb", "tasks", "folder"]
    rows = [[str(r.job.config.stage), f"{r.seconds:.0f}", *r.cells, str(_folder(r.job))] for r in results]
    print("\n" + render_table(columns, rows), flush=True)
    table = markdown_table(columns, rows)
    (folder / "report.md").write_text(f"# Pipeline {results[0].job.run}\n\n{table}\n", encoding="utf-8")


def _print_conversation(jobs: Sequence[Job]) -> None:
    """One question to the last model that was taught to chat."""
    chatty = [j for j in jobs if j.config.stage in _CHAT_STAGES and not j.config.dry_run]
    if not chatty:
        return
    from nanochat.checkpoint.find import resolve_ref
    from nanochat.engine.chat import ChatSession
    from nanochat.engine.engine import Engine
    from nanochat.engine.sampling import SamplingParams
    from nanochat.runtime.device import detect
    from nanochat.stages.inference import load_for_inference
    from nanochat.tokenizer.bpe import Tokenizer

    last = chatty[-1]
    ref = resolve_ref(last.base_dir, f"{last.config.stage}/{last.run}")
    machine = detect(last.config.runtime)
    tokenizer = Tokenizer.load(ref.run_dir / "tokenizer")
    session = ChatSession(Engine(load_for_inference(ref, machine), tokenizer, machine.device), tokenizer, notify=print)
    params = SamplingParams(max_new_tokens=64, temperature=0.0, top_k=None, seed=0)
    print(f"\nyou: {_QUESTION}\nnanochat: {''.join(session.reply(_QUESTION, params))}")
    print(f"\ntalk to it: nanochat chat {last.config.stage}/{last.run}")
