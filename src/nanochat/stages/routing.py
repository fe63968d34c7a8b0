"""Which override of a pipeline goes to which of its stages.

    persona=, identity=, their keys     -> identity; identity.out, which a mixture may read, to mid and sft too
    data=, keys of a corpus             -> tokenizer, base
    keys of a mixture (data.tasks.*)    -> mid, sft, eval, those of them that have the key
    train.*                             -> none: by pipeline.overrides.<stage> only
    everything else                     -> every stage

An override that no stage takes is an error. The run's name is the same in all stages, and each starts from the
stage before it, not from an older run of the same name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from nanochat.config.data import LocalConfig, MixtureConfig, ShardsConfig
from nanochat.config.load import compose_run
from nanochat.config.naming import run_name, with_names
from nanochat.config.overrides import normalize_override
from nanochat.config.root import Stage
from nanochat.errors import ConfigError, nearest
from nanochat.stages.job import Job

_RUNNABLE = tuple(s for s in Stage if s != Stage.pipeline)
_CORPUS_STAGES = (Stage.tokenizer, Stage.base)
_MIXTURE_STAGES = (Stage.mid, Stage.sft, Stage.eval)
_MIXTURE_KEYS = {f.name for f in fields(MixtureConfig)}
_CORPUS_KEYS = {f.name for kind in (LocalConfig, ShardsConfig) for f in fields(kind)}


@dataclass(frozen=True)
class Route:
    """An override and the stages that take it."""

    override: str
    stages: tuple[Stage, ...]


def pipeline_stages(job: Job) -> list[Stage]:
    """`pipeline.stages`, checked."""
    known = [str(s) for s in _RUNNABLE]
    for name in job.config.pipeline.stages:
        if name not in known:
            raise ConfigError(f"pipeline.stages: {name} is no stage of a pipeline; {nearest(name, known)}")
    if not job.config.pipeline.stages:
        raise ConfigError(f"pipeline.stages is empty; it takes any of {', '.join(known)}")
    stages = [Stage(name) for name in job.config.pipeline.stages]
    if stages != sorted(set(stages), key=_RUNNABLE.index):
        ordered = ",".join(sorted(set(job.config.pipeline.stages), key=known.index))
        raise ConfigError(
            f"pipeline.stages={','.join(stages)} names a stage twice or before the one it builds on; "
            f"write pipeline.stages='[{ordered}]'"
        )
    return stages


def route(job: Job) -> list[Route]:
    """The stages that take each of the pipeline's own overrides. Raises ConfigError for one that none takes."""
    stages = pipeline_stages(job)
    routes = []
    for override in job.overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == "stage" or key.startswith("pipeline."):
            continue
        takers = tuple(s for s in stages if s in _candidates(key) and _accepts(s, override, key, job))
        if not takers:
            _refuse(override, [s for s in stages if s in _candidates(key)], job)
            raise ConfigError(
                f"{override}: no stage of the pipeline ({', '.join(map(str, stages))}) takes it{_why(key)}"
            )
        routes.append(Route(override, takers))
    return routes


def _candidates(key: str) -> tuple[Stage, ...]:
    group, _, name = key.partition(".")
    first = name.partition(".")[0]
    if group == "data" and (not name or (first in _CORPUS_KEYS)):
        return _CORPUS_STAGES
    if group == "data" and first in _MIXTURE_KEYS:
        return _MIXTURE_STAGES
    if key == "identity.out":
        return (Stage.identity, Stage.mid, Stage.sft)
    if group in ("persona", "identity"):
        return (Stage.identity,)
    return () if group in ("train", "init_from") else _RUNNABLE


def _accepts(stage: Stage, override: str, key: str, job: Job) -> bool:
    """Whether the stage's config has the key; only mixtures differ in that, by their tasks."""
    if stage not in _MIXTURE_STAGES or not key.startswith("data."):
        return True
    try:
        compose_run([f"stage={stage}", *_selections(job), *_own_data(job, stage), override], job.config_dirs)
    except ConfigError:
        return False
    return True


def _refuse(override: str, candidates: Sequence[Stage], job: Job) -> None:
    """Raises what the first stage that could have taken the override says against it."""
    for stage in candidates[:1]:
        compose_run([f"stage={stage}", *_selections(job), *_own_data(job, stage), override], job.config_dirs)


def _own_data(job: Job, stage: Stage) -> list[str]:
    """The mixture that `pipeline.overrides` chooses for the stage: its tasks decide which keys there are."""
    own = job.config.pipeline.overrides.get(str(stage)) or []
    return [o for o in own if isinstance(o, str) and o.startswith("data=")] if isinstance(own, list) else []


def _selections(job: Job) -> list[str]:
    return [o for o in job.overrides if o.partition("=")[0] in ("experiment", "debug")]


def _why(key: str) -> str:
    if key.startswith("train.") or key == "init_from":
        return f"; give it to one stage: pipeline.overrides.base='[{key}=...]'"
    if key.partition(".")[0] in ("persona", "identity"):
        return "; it is for the stage identity: pipeline.stages='[identity,...]'"
    if key.startswith("data."):
        return "; corpus keys go to tokenizer and base, keys of mixtures to mid, sft and eval, where they exist"
    return ""


def stage_overrides_of(job: Job, stage: Stage, routes: Sequence[Route]) -> list[str]:
    """The overrides of one stage: those routed to it, then `pipeline.overrides.<stage>`."""
    own = job.config.pipeline.overrides.get(str(stage)) or []
    if not isinstance(own, list) or not all(isinstance(o, str) for o in own):
        raise ConfigError(
            f"pipeline.overrides.{stage}={own} must be a list of overrides: "
            f"pipeline.overrides.{stage}='[train.num_iterations=100]'"
        )
    routed = [r.override for r in routes if stage in r.stages]
    return [f"stage={stage}", *routed, *(normalize_override(o) for o in own)]


def stage_jobs(job: Job, routes: Sequence[Route] | None = None) -> list[Job]:
    """One job a stage, composed and checked, in the order they are run; `routes` where they are known already."""
    unknown = set(job.config.pipeline.overrides) - {str(s) for s in _RUNNABLE}
    if unknown:
        name = sorted(unknown)[0]
        raise ConfigError(f"pipeline.overrides.{name}: {name} is no stage; {nearest(name, map(str, _RUNNABLE))}")
    routes = route(job) if routes is None else routes
    jobs: list[Job] = []
    before: Job | None = None
    for stage in pipeline_stages(job):
        composed = compose_run(stage_overrides_of(job, stage, routes), job.config_dirs)
        config, overrides = composed.config, composed.overrides
        if before is not None and stage in _MIXTURE_STAGES and config.init_from is None:
            ref, run = f"{before.config.stage}/{before.run}", run_name(config)
            config, overrides = replace(config, init_from=ref, run=run), [*overrides, f"init_from={ref}", f"run={run}"]
        each = Job(with_names(config), tuple(overrides), job.config_dirs)
        jobs.append(each)
        if stage in (Stage.base, Stage.mid, Stage.sft):
            before = each
    return jobs
