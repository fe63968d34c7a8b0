"""Keys that contradict each other."""

import pytest

from nanochat.config.load import compose_run
from nanochat.errors import ConfigError


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["run=a/b"], "run=a/b is not a folder name"),
        (["tokenizer.name=../x"], "tokenizer.name=../x"),
        (["sweep=.."], "sweep=.."),
        (["base_dir="], "base_dir= is empty"),
        (["data.root=/x"], "did you mean data=text data.root=/x"),
        (["data.num_shards=3"], "data.num_shards=3 is not read by data=embedded"),
        (["data.packing=pad"], "stream or bestfit"),
        (["data.packing=bestfit_pad"], "data.packing=bestfit_pad pads rows"),
        (["data=sft"], "stage=base reads a corpus"),
        (["stage=tokenizer", "data=mid"], "stage=tokenizer reads a corpus"),
        (["stage=sft", "data=embedded"], "take data=sft"),
        (["schedule=step", "schedule.milestones=[0.5]"], "milestones has 1 values and schedule.factors 2"),
        (["schedule=step", "schedule.milestones=[0.8,0.5]"], "must rise"),
        (["schedule=step", "schedule.factors=[0.1,0.5]"], "must not rise"),
    ],
)
def test_contradictions_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run(overrides)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=text", "data.root=/x", "data.num_shards=3", "data.packing=bestfit"],
        ["stage=sft", "data=mid"],
        ["stage=sft", "data.packing=bestfit_pad"],
        ["stage=eval", "data=mid"],
        ["schedule=step", "schedule.milestones=[]", "schedule.factors=[]"],
        ["experiment=large", "debug=tiny"],
    ],
)
def test_what_goes_together_passes(overrides: list[str]) -> None:
    assert compose_run(overrides)
