"""Every option of every group composes in every stage that takes it, and is then the one that was chosen."""

from pathlib import Path

import pytest
import yaml

from nanochat.config.conf import conf_dir
from nanochat.config.load import compose_run, stage_overrides
from nanochat.config.options import option_names, option_settings
from nanochat.config.root import Stage
from nanochat.config.validate import build_run_config, flatten, plain

GROUPS = sorted(p.name for p in conf_dir().iterdir() if p.is_dir() and p.name != "stage")
MIXTURES = [name for name, kind in option_settings("data", "kind").items() if kind == "mixture"]
# Each round takes one option of every group: the n-th of each, the last again where a group has fewer.
ROUNDS = max(len(option_names(group)) for group in GROUPS)


def options_for(group: str, stage: Stage) -> list[str]:
    names = option_names(group)
    if group != "data":
        return names
    if stage in (Stage.mid, Stage.sft, Stage.eval):
        return MIXTURES
    return [name for name in names if name not in MIXTURES]


def chosen(stage: Stage, number: int) -> dict[str, str]:
    return {g: options_for(g, stage)[min(number, len(options_for(g, stage)) - 1)] for g in GROUPS}


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("stage", list(Stage), ids=str)
def test_every_option_composes(stage: Stage, number: int, tmp_path: Path) -> None:
    choices = chosen(stage, number)
    if any(
        o.startswith("data.tasks.") for o in stage_overrides([f"stage={stage}", f"experiment={choices['experiment']}"])
    ):
        del choices["data"]  # the experiment is about the tasks of the stage's own mixture
    overrides = [f"stage={stage}", *(f"{group}={name}" for group, name in choices.items())]
    if choices.get("data") == "text":
        overrides.append(f"data.root={tmp_path}")
    composed = compose_run(overrides)
    assert {group: composed.choices[group] for group in choices} == choices
    assert composed.config.stage == stage
    assert build_run_config(plain(composed.config)) == composed.config  # as a worker reads it back


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture_composes(name: str) -> None:
    for stage in ("mid", "sft", "eval"):
        assert compose_run([f"stage={stage}", f"data={name}"]).choices["data"] == name


def test_the_rounds_leave_no_option_out() -> None:
    for stage in Stage:
        for group in GROUPS:
            taken = {chosen(stage, number)[group] for number in range(ROUNDS)}
            assert taken == set(options_for(group, stage))


@pytest.mark.parametrize("path", sorted(conf_dir().rglob("*.yaml")), ids=lambda p: str(p.relative_to(conf_dir())))
def test_every_file_says_what_it_is(path: Path) -> None:
    """The first line that is not a directive is a comment, and no file is long (config.yaml has the root keys too)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert next(line for line in lines if line != "# @package _global_").startswith("# ")
    assert len(lines) <= (75 if path.name == "config.yaml" else 45)
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, dict)


@pytest.mark.parametrize("name", option_names("experiment"))
def test_experiments_and_debug_options_belong_to_the_root(name: str) -> None:
    assert (conf_dir() / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").startswith("# @package _global_\n")


def test_stage_defaults_are_those_of_the_guide() -> None:
    base = flatten(compose_run(["stage=base"]).config)
    assert base["train.target_param_data_ratio"] == 20 and base["train.total_batch_size"] == 524288
    assert base["train.device_batch_size"] == 32 and base["optim.grad_clip"] == 1.0 and base["eval.every"] == 250
    mid = flatten(compose_run(["stage=mid"]).config)
    assert mid["train.num_epochs"] == 1 and mid["train.total_batch_size"] == 524288 and mid["eval.every"] == 150
    assert mid["optim.grad_clip"] == 0 and mid["train.init_lr_frac"] == 1.0 and mid["data.supervise"] == "all"
    sft = flatten(compose_run(["stage=sft"]).config)
    assert sft["train.target_examples_per_step"] == 32 and sft["train.total_batch_size"] is None
    assert sft["train.device_batch_size"] == 4 and sft["train.init_lr_frac"] == 0.02 and sft["eval.every"] == 100
    assert sft["eval.steps"] == 100 and sft["schedule.name"] == "linear" and sft["data.supervise"] == "assistant"
    assert mid["train.target_param_data_ratio"] is None and sft["train.target_param_data_ratio"] is None


@pytest.mark.parametrize("stage", ["base", "mid", "sft"])
def test_an_eval_option_that_is_chosen_wins_over_the_stages_own(stage: str) -> None:
    off = flatten(compose_run([f"stage={stage}", "eval=none"]).config)
    assert {off[f"eval.{key}"] for key in ("every", "sample_every", "metrics_every", "core_every")} == {-1}
    assert flatten(compose_run([f"stage={stage}", "eval=quick"]).config)["eval.tokens"] == 65536


def test_optimizer_defaults_are_those_of_the_guide() -> None:
    flat = flatten(compose_run([]).config)
    wanted = {"embedding_lr": 0.2, "unembedding_lr": 0.004, "matrix_lr": 0.02, "weight_decay": 0.0, "ns_steps": 5}
    wanted |= {"momentum.start": 0.85, "momentum.end": 0.95, "momentum.warmup_steps": 300, "eps": 1e-10}
    assert {key: flat[f"optim.{key}"] for key in wanted} == wanted
    assert flat["model.depth"] == 20 and flat["model.max_seq_len"] == 2048 and flat["tokenizer.vocab_size"] == 65536


def test_the_base_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "/somewhere/else")
    assert compose_run([]).config.base_dir == "/somewhere/else"
    monkeypatch.delenv("NANOCHAT_BASE_DIR")
    assert compose_run([]).config.base_dir == "~/.cache/nanochat"


def test_trackers_compose_together() -> None:
    tracking = compose_run(["tracking=[wandb,tensorboard]"]).config.tracking
    assert tracking.wandb.enabled and tracking.tensorboard.enabled


def test_values_may_refer_to_others() -> None:
    config = compose_run(["tokenizer.name=${run}", "run=mine", "data=fineweb_edu"]).config
    assert config.tokenizer.name == "mine"
    assert getattr(config.data, "root", "") == f"{config.base_dir}/fineweb_edu"
