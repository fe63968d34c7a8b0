"""defaults < stage < experiment < the experiment's stages.<stage> < debug < command line; options of the user's own."""

from pathlib import Path

import pytest

from nanochat.config.load import compose_run, stage_overrides
from nanochat.errors import ConfigError

EXPERIMENT = """# @package _global_
defaults:
  - override /optim: adamw
run: mine
train: {save_every: 1, init_lr_frac: 0.5}
eval: {every: 11}
stages:
  sft: ['eval.every=22', 'train.num_epochs=4', 'schedule=cosine', 'schedule.final_lr_frac=0.3']
"""
DEBUG = "# @package _global_\neval: {sample_tokens: 3}\nstages:\n  sft: ['eval.every=33']\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("experiment/mine", EXPERIMENT), ("debug/short", DEBUG)):
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "conf"


def add(folder: Path, name: str, text: str) -> None:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_each_level_wins_over_the_one_before(folder: Path) -> None:
    def every(*overrides: str) -> int:
        return compose_run(overrides, [str(folder)]).config.eval.every

    assert every("stage=base") == 250  # conf/eval/default.yaml
    assert every("stage=sft") == 100  # conf/stage/sft.yaml
    assert every("stage=base", "experiment=mine") == 11  # the experiment
    assert every("stage=sft", "experiment=mine") == 22  # its stages.sft
    assert every("stage=sft", "experiment=mine", "debug=short") == 33
    assert every("stage=sft", "eval.every=44", "debug=short", "experiment=mine") == 44  # the command line, in any order


def test_a_stage_can_have_another_option(folder: Path) -> None:
    sft = compose_run(["stage=sft", "experiment=mine"], [str(folder)]).config
    assert str(sft.schedule.name) == "cosine" and sft.schedule.final_lr_frac == 0.3  # type: ignore[attr-defined]
    assert sft.train.num_epochs == 4 and sft.train.save_every == 1 and str(sft.optim.name) == "adamw"
    mid = compose_run(["stage=mid", "experiment=mine"], [str(folder)]).config
    assert str(mid.schedule.name) == "trapezoid" and mid.train.num_epochs == 1 and mid.train.save_every == 1


def test_a_group_chosen_on_the_command_line_wins_over_the_experiment(folder: Path) -> None:
    config = compose_run(["stage=sft", "experiment=mine", "optim=muon_adamw"], [str(folder)]).config
    assert str(config.optim.name) == "muon_adamw"


def test_an_experiment_built_on_another_has_its_stages_too(folder: Path) -> None:
    child = "# @package _global_\ndefaults:\n  - mine\n  - _self_\nstages:\n  sft: [train.num_epochs=9]\n"
    add(folder, "experiment/child", child)
    config = compose_run(["stage=sft", "experiment=child"], [str(folder)]).config
    assert config.eval.every == 22 and config.train.num_epochs == 9 and config.run == "mine"


def test_several_experiments_in_order(folder: Path) -> None:
    add(folder, "experiment/late", "# @package _global_\nrun: late\nstages:\n  sft: [train.num_epochs=7]\n")
    config = compose_run(["stage=sft", "experiment=[mine,late]"], [str(folder)]).config
    assert config.run == "late" and config.train.num_epochs == 7 and config.eval.every == 22


def test_values_of_an_experiment_that_hydra_needs_quoted(folder: Path) -> None:
    add(folder, "experiment/named", "# @package _global_\nstages:\n  base: ['run=a=b', 'init_from=base/x-lr=0.1']\n")
    config = compose_run(["experiment=named"], [str(folder)]).config
    assert config.run == "a=b" and config.init_from == "base/x-lr=0.1"


def test_what_is_given_already_is_not_given_twice(folder: Path) -> None:
    wanted = stage_overrides(["stage=sft", "experiment=mine"], [str(folder)])
    assert wanted == ["eval.every=22", "train.num_epochs=4", "schedule=cosine", "schedule.final_lr_frac=0.3"]
    assert stage_overrides([*wanted, "stage=sft", "experiment=mine"], [str(folder)]) == []


def test_options_of_the_users_own_in_several_folders(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "it's here, too"
    add(other, "model/small", "defaults:\n  - gpt\n  - _self_\ndepth: 3\n")
    config = compose_run(["experiment=mine", "model=small"], [str(folder), str(other)]).config
    assert config.model.depth == 3 and config.model.aspect_ratio == 64 and config.run == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# @package _global_\nstages: {sftt: [x=1]}\n", ["stages.sftt", "did you mean sft"]),
        ("# @package _global_\nstages: {sft: train.num_epochs=2}\n", ["stages.sft", "list of overrides"]),
        ("# @package _global_\nstage: sft\n", ["cannot choose the stage"]),
        ("# @package _global_\ndefaults:\n  - override /stage: sft\n", ["cannot choose the stage"]),
        ("# @package _global_\nrun: [\n", ["bad.yaml", "is not YAML", "line 3"]),
        ("- a\n", ["bad.yaml", "no mapping"]),
        ("# @package _global_\nmodle: {depth: 3}\n", ["modle", "did you mean model"]),
        ("# @package _global_\nmodel: {depth: x}\n", ["model.depth", "whole number"]),
        ("run: x\n", ["experiment", "# @package _global_"]),
        ("# @package _global_\nstages: {sft: [train.epochs=2]}\n", ["train.epochs", "train.num_epochs", "experiment"]),
    ],
)
def test_mistakes_in_an_experiment_are_named(folder: Path, text: str, said: list[str]) -> None:
    add(folder, "experiment/bad", text)
    with pytest.raises(ConfigError) as caught:
        compose_run(["stage=sft", "experiment=bad"], [str(folder)])
    for part in said:
        assert part in str(caught.value)
