"""Which override of a pipeline goes where."""

import pytest

from nanochat.config.data import MixtureConfig
from nanochat.config.load import compose_run
from nanochat.errors import ConfigError
from nanochat.stages.job import Job
from nanochat.stages.routing import route, stage_jobs

ALL = ["tokenizer", "base", "mid", "sft", "eval"]
CORPUS, CHAT = ["tokenizer", "base"], ["mid", "sft", "eval"]


def pipeline(*overrides: str) -> Job:
    composed = compose_run(["stage=pipeline", *overrides])
    return Job(composed.config, tuple(composed.overrides))


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("model.depth=4", ALL),
        ("seed=3", ALL),
        ("optim=adamw", ALL),
        ("debug=tiny", ALL),
        ("data=embedded", CORPUS),
        ("data.val_every=10", CORPUS),
        ("data.supervise=all", CHAT),
        ("data.tasks.identity.repeat=4", CHAT),
        ("~data.tasks.spelling_bee", CHAT),
        ("~data.tasks.mmlu", ["mid"]),
        ("~data.tasks.arc_easy", ["sft", "eval"]),
        ("+data.tasks.mine={task: custom_json, path: x.jsonl}", CHAT),
        ("runtime.num_threads=1", ALL),
    ],
)
def test_where_it_goes(override: str, stages: list[str]) -> None:
    (found,) = [r for r in route(pipeline(override)) if r.override == override]
    assert [str(stage) for stage in found.stages] == stages


def test_a_task_goes_to_the_stages_that_have_it() -> None:
    """A key of one mixture is no error in the others, which do not have it."""
    (found,) = route(pipeline("pipeline.stages=[mid,sft]", "data.tasks.identity.stop=5"))
    assert [str(s) for s in found.stages] == ["mid", "sft"]


def test_the_mixture_that_a_stage_gets_of_its_own_decides_which_tasks_it_has() -> None:
    """arithmetic is a task of data=mid_generated, not of data=mid."""
    own = "pipeline.overrides.mid=['data=mid_generated']"
    found = {
        r.override: [str(stage) for stage in r.stages] for r in route(pipeline(own, "data.tasks.arithmetic.stop=5"))
    }
    assert found["data.tasks.arithmetic.stop=5"] == ["mid"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("train.num_iterations=3",), r"train.num_iterations=3: no stage .* takes it; .*pipeline.overrides.base="),
        (("init_from=base/x",), "init_from=base/x: no stage"),
        (("pipeline.stages=[base]", "data.tasks.identity.repeat=2"), "no stage of the pipeline .base. takes it"),
        (("pipeline.stages=[base,sfx]",), "sfx is no stage of a pipeline; did you mean sft"),
        (("pipeline.stages=[sft,base]",), r"names a stage twice or before .* pipeline.stages='\[base,sft\]'"),
        (("pipeline.stages=[base,base]",), "names a stage twice"),
        (("pipeline.stages=[]",), "pipeline.stages is empty"),
        (("pipeline.stages=[pipeline]",), "pipeline is no stage of a pipeline"),
        (("+pipeline.overrides.bass=['seed=1']",), "bass is no stage; did you mean base"),
        (("pipeline.overrides.base=seed",), "must be a list of overrides"),
        (("pipeline.overrides.base=['train.num_iteration=1']",), "train.num_iteration is not a key"),
    ],
)
def test_what_goes_nowhere_is_an_error(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage_jobs(pipeline(*overrides))


def test_own_overrides_win_over_common_ones() -> None:
    jobs = stage_jobs(pipeline("seed=1", "pipeline.overrides.mid=['seed=2']"))
    assert {str(j.config.stage): j.config.seed for j in jobs} == {
        "tokenizer": 1,
        "base": 1,
        "mid": 2,
        "sft": 1,
        "eval": 1,
    }


def test_each_stage_starts_from_the_one_before() -> None:
    jobs = {str(j.config.stage): j.config for j in stage_jobs(pipeline("run=x"))}
    assert [jobs[s].init_from for s in ALL] == [None, None, "base/x", "mid/x", "sft/x"]
    short = {str(j.config.stage): j.config for j in stage_jobs(pipeline("run=x", "pipeline.stages=[base,sft]"))}
    assert short["sft"].init_from == "base/x"
    own = stage_jobs(pipeline("run=x", "pipeline.overrides.sft=['init_from=base/y']"))
    assert own[3].config.init_from == "base/y" and own[4].config.init_from == "sft/x"


def test_the_persona_goes_to_the_stage_that_reads_it() -> None:
    job = pipeline("pipeline.stages=[identity,base,sft]", "persona=mira", "identity.count=5", "run=x")
    assert {r.override: [str(s) for s in r.stages] for r in route(job)} == {
        "persona=mira": ["identity"],
        "identity.count=5": ["identity"],
        "run=x": ["identity", "base", "sft"],
    }
    assert [j.config.init_from for j in stage_jobs(job)] == [None, None, "base/x"]
    with pytest.raises(ConfigError, match=r"no stage .* takes it; .*pipeline.stages='\[identity,...\]'"):
        route(pipeline("persona=mira"))


def test_the_personality_recipe() -> None:
    """Its own persona, read three times over by mid and sft, and 5000 general conversations."""
    jobs = {str(j.config.stage): j.config for j in stage_jobs(pipeline("experiment=personality", "base_dir=B"))}
    assert list(jobs) == ["identity", *ALL]
    assert jobs["identity"].persona.name == "Mira"
    for stage in ("mid", "sft"):
        data = jobs[stage].data
        assert isinstance(data, MixtureConfig)
        assert data.identity == jobs["identity"].identity.out == "B/identity/personality.jsonl"
        assert (data.tasks["identity"]["repeat"], data.tasks["smoltalk"]["stop"]) == (3, 5000)


def test_the_file_of_a_persona_is_named_once() -> None:
    job = pipeline("experiment=personality", "base_dir=B", "run=ada", "identity.out=ada.jsonl")
    found = {r.override: [str(s) for s in r.stages] for r in route(job)}
    assert found["identity.out=ada.jsonl"] == ["identity", "mid", "sft"]
    configs = [j.config for j in stage_jobs(job) if j.config.stage in ("mid", "sft")]
    assert [c.data.identity for c in configs if isinstance(c.data, MixtureConfig)] == ["ada.jsonl", "ada.jsonl"]


def test_the_personality_recipe_shrunk_reads_what_its_identity_stage_makes() -> None:
    jobs = {
        str(j.config.stage): j.config
        for j in stage_jobs(pipeline("experiment=personality", "debug=tiny", "base_dir=B"))
    }
    for stage in ("mid", "sft"):
        data = jobs[stage].data
        assert isinstance(data, MixtureConfig)
        assert data.identity == jobs["identity"].identity.out == "B/identity/tiny.jsonl"


def test_an_experiment_sets_values_for_single_stages() -> None:
    jobs = {str(j.config.stage): j.config for j in stage_jobs(pipeline("experiment=quickstart"))}
    assert jobs["base"].train.num_iterations != jobs["mid"].train.num_iterations
    assert {config.run for config in jobs.values()} == {"quickstart"}
