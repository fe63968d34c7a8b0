"""Override strings before Hydra: quoting, sweeps as Hydra makes them, what a pipeline keeps for its stages."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from nanochat.config.overrides import (
    check_choices,
    defer_in_multirun,
    expand_sweep,
    normalize_override,
    split_later,
    swept_keys,
)
from nanochat.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("model.depth=4", "model.depth=4"),
        ("init_from=base/x-lr=0.1", "init_from='base/x-lr=0.1'"),
        ("run=a=b", "run='a=b'"),
        ("run='a=b'", "run='a=b'"),
        ("base_dir=~/runs", "base_dir='~/runs'"),
        ("data.root=/größer", "data.root='/größer'"),
        ("data.root=/it's", "data.root='/it\\'s'"),
        ("data.root=${base_dir}/x#y", "data.root=${base_dir}/x#y"),
        ("init_from=base/a=1,base/a=2", "init_from=base/a=1,base/a=2"),
        ('run="a=b"', 'run="a=b"'),
        ("+data.tasks.x={task: custom_json, path: a=b.jsonl}", "+data.tasks.x={task: custom_json, path: a=b.jsonl}"),
        ("~data.tasks.x", "~data.tasks.x"),
        ("pipeline.overrides.base=[train.num_iterations=3]", "pipeline.overrides.base=['train.num_iterations=3']"),
        (
            "pipeline.overrides.mid=[train.num_epochs=2, data.tasks.x.stop=5]",
            "pipeline.overrides.mid=['train.num_epochs=2','data.tasks.x.stop=5']",
        ),
        (
            "pipeline.overrides.base=[schedule=step,schedule.milestones=[0.1,0.2]]",
            "pipeline.overrides.base=['schedule=step','schedule.milestones=[0.1,0.2]']",
        ),
        ("pipeline.overrides.base=['a=1','b=2']", "pipeline.overrides.base=['a=1','b=2']"),
        ("run=choice(a=b,c)", "run=choice(a=b,c)"),
        ("pipeline.overrides.base=[]", "pipeline.overrides.base=[]"),
    ],
)
def test_only_what_the_grammar_refuses_is_quoted(text: str, wanted: str) -> None:
    assert normalize_override(text) == wanted
    assert normalize_override(wanted) == wanted


@given(st.text(alphabet="abc=/-.0123456789@~#'ßλ!&;<>^", min_size=1, max_size=20))
def test_a_quoted_value_is_the_value(value: str) -> None:
    if any(c in value for c in "=~#ßλ") and not value.startswith("'"):
        parsed = OverridesParser.create().parse_override(normalize_override(f"run={value}"))
        assert str(parsed.value()) == value


SWEEPS = [
    ["model.depth=2,4", "optim.matrix_lr=0.01,0.02"],
    ["model.depth=range(1,4)", "seed=1"],
    ["optim=adamw,muon_adamw", "run=choice(a,b)"],
    ["+data.tasks.mine={task:arithmetic,stop:5},{task:arithmetic,stop:6}"],
    ["tags=[a,b],[c]", "run='a,b',c"],
    ["~data.tasks.arithmetic", "seed=1,2,3"],
    ["seed=1"],
    ["optim.matrix_lr=1e-3,0.5", "model.depth=4,2,3"],
]


@pytest.mark.parametrize("overrides", SWEEPS, ids=lambda o: " ".join(o))
def test_a_sweep_has_the_jobs_that_hydra_gives_it(overrides: list[str]) -> None:
    parsed = OverridesParser.create().parse_overrides(overrides)
    theirs = [job for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]
    ours = expand_sweep(overrides)
    assert len(ours) == len(theirs)
    for mine, hydras in zip(ours, theirs, strict=True):
        assert [o.replace(" ", "") for o in mine] == [o.replace(" ", "").removesuffix("=null") for o in hydras]


def test_swept_keys_are_those_with_several_values() -> None:
    assert swept_keys(["model.depth=2,4", "seed=1", "run=choice(a)", "+x.y=1,2"]) == ["model.depth", "x.y"]


def test_an_unreadable_sweep_is_a_config_error() -> None:
    for function in (expand_sweep, swept_keys):
        with pytest.raises(ConfigError, match=r"'model.depth=\[1' cannot be read"):
            function(["model.depth=[1"])


def test_a_pipeline_keeps_the_keys_of_mixtures_for_its_stages() -> None:
    overrides = ["stage=pipeline", "data.tasks.a.stop=3", "data=text", "~data.tasks.b", "data.packing=stream"]
    now, later = split_later(overrides)
    assert now == ["stage=pipeline", "data=text", "data.packing=stream"]
    assert later == ["data.tasks.a.stop=3", "~data.tasks.b"]
    assert split_later(["stage=mid", *overrides[1:]])[1] == []
    assert split_later(["stage=pipeline", "data.too_long=drop", "+data.tasks.c={task: x}"])[1] == [
        "data.too_long=drop",
        "+data.tasks.c={task: x}",
    ]


def test_keys_of_mixtures_wait_for_their_stage_in_a_multirun() -> None:
    overrides = ["stage=mid,sft", "data.tasks.a.stop=3", "data.tasks.b.stop=1,2", "model.depth=4", "~data.tasks.c"]
    deferred = defer_in_multirun(overrides)
    assert deferred == [overrides[0], "data.tasks.a.stop=choice(3)", *overrides[2:]]
    assert expand_sweep(deferred) == expand_sweep(overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim=null", "known: adamw"),
        ("optim=", "optim= is not an option"),
        ("optim=3", "optim=3 is not an option"),
        ("experiment=null", "quickstart"),
        ("stage=[base,mid]", "stage=pipeline"),
        ("optim.name=adamw", "write optim=adamw"),
        ("data.kind=text", "write data=text"),
        ("++schedule.name=cosine", "write schedule=cosine"),
    ],
)
def test_choices_that_cannot_be(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_choices([override], [])
    assert said in str(caught.value)
